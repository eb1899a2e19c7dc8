"""timer: the machine's clock and one alarm (register map: ukernel.abi.timer).

It never looks at the time by itself: the bus asks for `next_deadline`, waits, and calls `expire`.
"""

from __future__ import annotations

from collections.abc import Callable

from hwsim.iommu import Iommu
from ukernel.abi.timer import TIMER_ARM, TIMER_FIRED, TIMER_MAGIC, TimerReg
from ukernel.lib.virtio.dma import FaultLog

LOW = 0xFFFF_FFFF


class Timer:
    """`clock` gives nanoseconds that never go back. The domain stays empty: a timer has no DMA."""

    def __init__(
        self, name: str, domain: Iommu, interrupt: Callable[[], None], clock: Callable[[], int]
    ) -> None:
        self.name = name
        self.domain = domain
        self.interrupt = interrupt
        self.backlog = False
        self._clock = clock
        self.reset()

    @property
    def faults(self) -> FaultLog:
        return self.domain.faults

    def reset(self) -> None:
        """Disarmed, nothing latched. The clock goes on."""
        self._latched_hi = 0
        self._compare = 0
        self._armed = False
        self._fired = False

    def next_deadline(self) -> int | None:
        """When `expire` is due, in nanoseconds of the clock; None while disarmed."""
        return self._compare if self._armed else None

    def expire(self, now: int) -> None:
        """The clock shows `now`: raise the line if that is what the driver waits for."""
        if self._armed and now >= self._compare:
            self._armed = False
            self._fired = True
            self.interrupt()

    def load(self, offset: int) -> int:
        match offset:
            case TimerReg.MAGIC:
                return TIMER_MAGIC
            case TimerReg.NOW_LO:
                return self._latch()
            case TimerReg.NOW_HI:
                return self._latched_hi
            case TimerReg.COMPARE_LO:
                return self._compare & LOW
            case TimerReg.COMPARE_HI:
                return self._compare >> 32
            case TimerReg.CONTROL:
                return int(self._armed)
            case TimerReg.STATUS:
                return TIMER_FIRED * self._fired
        return 0

    def store(self, offset: int, value: int) -> None:
        value &= LOW
        match offset:
            case TimerReg.COMPARE_LO:
                self._compare = self._compare & ~LOW | value
            case TimerReg.COMPARE_HI:
                self._compare = self._compare & LOW | value << 32
            case TimerReg.CONTROL:
                self._armed = value == TIMER_ARM
            case TimerReg.STATUS if value & TIMER_FIRED:
                self._fired = False

    def config(self, offset: int, length: int) -> bytes:
        """There is none."""
        return b""

    def notify(self, index: int) -> None:
        """There are no queues."""

    def doorbell(self) -> None:
        """There are no queues."""

    def _latch(self) -> int:
        now = self._clock()
        self._latched_hi = now >> 32 & LOW
        return now & LOW
