"""The timer with a clock that the test advances."""

from __future__ import annotations

from hwsim.hardware import Hardware
from hwsim.iommu import Iommu
from hwsim.timer import Timer
from tests.hwsim.harness import Line
from ukernel.abi.timer import TIMER_ARM, TIMER_DISARM, TIMER_FIRED, TIMER_MAGIC, TimerReg

WHEN = (3 << 32) + 5


class Clock:
    now = 0

    def __call__(self) -> int:
        return self.now


def make() -> tuple[Timer, Clock, Line]:
    clock, line = Clock(), Line()
    timer = Timer("clock", Iommu("clock"), line, clock)
    hardware: Hardware = timer
    assert hardware.load(TimerReg.MAGIC) == TIMER_MAGIC
    return timer, clock, line


def arm(timer: Timer, when: int) -> None:
    timer.store(TimerReg.COMPARE_LO, when & 0xFFFF_FFFF)
    timer.store(TimerReg.COMPARE_HI, when >> 32)
    timer.store(TimerReg.CONTROL, TIMER_ARM)


def test_reading_the_low_half_latches_the_high_half() -> None:
    timer, clock, _ = make()
    clock.now = (7 << 32) + 0xFFFF_FFFF
    low = timer.load(TimerReg.NOW_LO)
    clock.now += 1
    assert (timer.load(TimerReg.NOW_HI), low) == (7, 0xFFFF_FFFF)
    assert (timer.load(TimerReg.NOW_LO), timer.load(TimerReg.NOW_HI)) == (0, 8)


def test_fires_once_when_the_clock_shows_it() -> None:
    timer, _, line = make()
    assert timer.next_deadline() is None
    arm(timer, WHEN)
    assert timer.next_deadline() == WHEN
    timer.expire(WHEN - 1)
    assert (line.raised, timer.load(TimerReg.STATUS)) == (0, 0)
    timer.expire(WHEN)
    timer.expire(WHEN + 1)
    assert (line.raised, timer.load(TimerReg.STATUS)) == (1, TIMER_FIRED)
    assert timer.next_deadline() is None
    timer.store(TimerReg.STATUS, TIMER_FIRED)
    assert timer.load(TimerReg.STATUS) == 0


def test_armed_in_the_past_is_due_at_once() -> None:
    timer, clock, line = make()
    clock.now = 100
    arm(timer, 50)
    assert timer.next_deadline() == 50
    timer.expire(clock.now)
    assert line.raised == 1


def test_disarm_and_reset_silence_it() -> None:
    timer, _, line = make()
    arm(timer, WHEN)
    timer.store(TimerReg.CONTROL, TIMER_DISARM)
    timer.expire(WHEN)
    arm(timer, WHEN)
    timer.reset()
    timer.expire(WHEN)
    assert line.raised == 0
    assert [timer.load(reg) for reg in TimerReg] == [TIMER_MAGIC, 0, 0, 0, 0, 0, 0]


def test_other_offsets_are_empty() -> None:
    timer, _, _ = make()
    timer.store(0x1000, 5)
    timer.store(TimerReg.MAGIC, 5)
    timer.doorbell()
    timer.notify(0)
    assert (timer.load(0x1000), timer.load(1), timer.config(0, 8)) == (0, 0, b"")
