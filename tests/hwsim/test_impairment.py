"""Lines that lose, repeat, reorder, corrupt, delay and slow down, by seed and clock alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.faults import Defects
from hwsim.impairment import (
    AT_ONCE,
    HOLD_NS,
    QUEUE_BYTES,
    UNDER_WAY,
    Dice,
    Impairment,
    Lane,
    Pace,
    damaged,
    impaired,
)
from hwsim.inbox import ROOM
from hwsim.switch import Wire as Link
from tests.hwsim.card import ALL, FAR, CardDriver, arp, checks_out, plain, segment, unchecked
from ukernel.abi.faults import (
    CORRUPT_FRAME,
    DUPLICATE_FRAME,
    FRAME_FAULTS,
    LOSE_FRAME,
    REORDER_FRAME,
    STUCK,
)

MS = 1_000_000
NO_FAULTS = {
    "loss": 0.0, "duplicate": 0.0, "reorder": 0.0, "corrupt": 0.0,
    "delay_ms": 0.0, "jitter_ms": 0.0, "rate": None, "seed": 1,
}  # fmt: skip


class Clock:
    """Time that goes on when it is told to, and what is to happen then."""

    def __init__(self) -> None:
        self.now_ns = 1_000 * MS
        self._later: list[tuple[int, int, Callable[[], None]]] = []

    def __call__(self) -> int:
        return self.now_ns

    def at(self, due_ns: int, action: Callable[[], None]) -> None:
        self._later.append((due_ns, len(self._later), action))

    def later(self, action: Callable[[], None]) -> None:
        self.at(self.now_ns + MS, action)

    def go_on(self, ms: float) -> None:
        end_ns = self.now_ns + int(ms * MS)
        while due := [each for each in self._later if each[0] <= end_ns]:
            first = min(due, key=lambda each: each[:2])
            self._later.remove(first)
            self.now_ns = max(self.now_ns, first[0])
            first[2]()
        self.now_ns = end_ns


def lane(seed: int = 1, pace: Pace | None = None, **chances: float) -> Lane:
    every = {fault: chances.get(fault.removesuffix("_frame"), 0.0) for fault in FRAME_FAULTS}
    chance = random.Random(seed)
    return Lane(Dice(every, chance).strikes, chance, pace or AT_ONCE)


def passed(one: Lane, count: int = 200, now_ns: int = 0) -> list[bytes]:
    """What arrives at once of so many frames, sent one after the other."""
    arrived: list[bytes] = []
    for number in range(count):
        one.offer(segment(number.to_bytes(2, "big")), now_ns)
        arrived += map(bytes, one.due(now_ns))
    return arrived


# --- one direction, pure ------------------------------------------------------------------------


def test_without_faults_all_arrive_in_order() -> None:
    assert passed(lane()) == [segment(number.to_bytes(2, "big")) for number in range(200)]


@pytest.mark.parametrize("fault", ["lose", "duplicate", "reorder", "corrupt"])
def test_the_seed_decides(fault: str) -> None:
    def run(seed: int) -> list[bytes]:
        return passed(lane(seed, None, **{fault: 0.3}))

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert run(1) != passed(lane(1))


def test_loss() -> None:
    assert not passed(lane(lose=1.0))
    assert 100 < len(passed(lane(lose=0.3))) < 180


def test_duplication() -> None:
    seen = Counter(passed(lane(duplicate=0.5)))
    assert len(seen) == 200
    assert set(seen.values()) == {1, 2}


def test_reordering_is_by_one_and_loses_nothing() -> None:
    every = [segment(number.to_bytes(2, "big")) for number in range(200)]
    one = lane(reorder=0.3)
    arrived = passed(one) + [bytes(frame) for frame in one.due(HOLD_NS)]
    assert arrived != every
    assert sorted(arrived) == sorted(every)
    places = [every.index(frame) for frame in arrived]
    assert all(place - at <= 1 for at, place in enumerate(places)), "none comes earlier than by one"
    assert sum(a > b for a, b in pairwise(places)) > 20


def test_the_last_frame_does_not_wait_for_another() -> None:
    one = lane(reorder=1.0)
    one.offer(b"only", 5)
    assert (one.due(5), one.deadline_ns, len(one)) == ([], 5 + HOLD_NS, 1)
    assert (one.due(5 + HOLD_NS), one.deadline_ns, len(one)) == ([b"only"], None, 0)


def test_corruption_is_one_bit_that_a_checksum_finds() -> None:
    whole = [bytes(each) for each in passed(lane())]
    for before, after in zip(whole, passed(lane(corrupt=1.0)), strict=True):
        different = [a ^ b for a, b in zip(before, after, strict=True) if a != b]
        assert len(different) == 1
        assert different[0].bit_count() == 1
        assert before[:14] == after[:14]


def test_what_no_checksum_protects_is_lost_instead() -> None:
    one = lane(corrupt=1.0)
    for frame in (arp(), plain(), b"x" * 14, b""):
        one.offer(frame, 0)
    assert not one.due(0)


@given(st.binary(max_size=80), st.integers())
def test_damage_is_done_to_any_bytes(frame: bytes, seed: int) -> None:
    ip = b"\0" * 12 + b"\x08\0" + frame
    after = damaged(ip, random.Random(seed))
    assert len(after) in (0, len(ip))
    assert after != ip


def test_delay_is_by_the_clock() -> None:
    one = lane(pace=Pace(delay_ns=5 * MS))
    one.offer(b"a", 0)
    one.offer(b"b", MS)
    assert (one.due(4 * MS), one.deadline_ns) == ([], 5 * MS)
    assert one.due(5 * MS) == [b"a"]
    assert one.due(6 * MS) == [b"b"]


def test_jitter_keeps_the_order() -> None:
    one = lane(pace=Pace(5 * MS, 4 * MS))
    times = []
    for number in range(100):
        one.offer(bytes([number]), number * 1000)
        times.append(one._under_way[-1].at_ns)
    assert times == sorted(times)
    assert MS <= times[0] <= 9 * MS
    assert len(set(times)) > 3
    assert one.due(10 * MS) == [bytes([number]) for number in range(100)]


def test_rate_is_bytes_in_a_second() -> None:
    one = lane(pace=Pace(rate=1000))
    for number in range(3):
        one.offer(bytes([number]) * 100, 0)
    assert [len(one.due(at * MS)) for at in (99, 100, 199, 200, 1000)] == [0, 1, 0, 1, 1]
    one.offer(b"z" * 100, 1000 * MS)
    assert (one.due(1099 * MS), len(one.due(1100 * MS))) == ([], 1)


def test_a_slow_line_has_a_short_queue() -> None:
    one = lane(pace=Pace(rate=1000))
    for _ in range(2 * ROOM):
        one.offer(bytes(1514), 0)
    assert one.dropped == 2 * ROOM - QUEUE_BYTES // 1514 - 1


def test_a_long_line_is_bounded() -> None:
    one = lane(pace=Pace(delay_ns=1000 * MS))
    for _ in range(UNDER_WAY + 9):
        one.offer(b"x", 0)
    assert (len(one), one.dropped) == (UNDER_WAY, 9)


# --- a line between two cards -------------------------------------------------------------------


class Line:
    """Two cards at a wire; the near one's end of it is not what it should be."""

    def __init__(self, far: int = ALL, slots: int = 8, **faults: Any) -> None:
        self.clock, link = Clock(), Link()
        cable = impaired(link.port(), {**NO_FAULTS, **faults}, self.clock, self.clock.at)
        self.near = CardDriver(cable, slots=slots)
        self.far = CardDriver(link.port(), far, slots, FAR)


def test_a_line_without_faults_is_no_stage() -> None:
    port = Link().port()
    assert impaired(port, NO_FAULTS, Clock(), Clock().at) is port


def test_both_directions_are_delayed() -> None:
    line = Line(delay_ms=5.0)
    line.near.send(plain(1))
    line.far.send(plain(2))
    line.clock.go_on(4.9)
    assert not line.near.frames() + line.far.frames()
    line.clock.go_on(0.2)
    assert (line.near.frames(), line.far.frames()) == ([plain(2)], [plain(1)])


@pytest.mark.parametrize("size", [0, 1460])
def test_frames_on_the_line_are_real(size: int) -> None:
    line = Line(delay_ms=1.0)
    payload = b"payload " * (500 if size else 100)
    line.near.send(segment(payload), unchecked(size=size))
    line.far.send(segment(payload), unchecked(size=size))
    line.clock.go_on(2)
    for card in (line.near, line.far):
        came = card.received()
        assert len(came) == -(-len(payload) // (size or len(payload)))
        assert b"".join(frame[54:] for _, frame in came) == payload
        assert all(header[:2] == (0, 0) and checks_out(frame) for header, frame in came)


def test_all_is_lost_and_counted_nowhere() -> None:
    line = Line(loss=1.0)
    line.near.send(plain(1))
    line.far.send(plain(2))
    assert not line.near.frames() + line.far.frames()
    assert line.near.net.sent == 1


def test_a_corrupt_segment_does_not_check_out() -> None:
    line = Line(corrupt=1.0)
    line.near.send(segment(b"payload " * 100), unchecked())
    (came,) = line.far.frames()
    assert not checks_out(came)


def test_a_card_without_buffers_keeps_the_line_waiting_and_loses_nothing_at_once() -> None:
    line = Line(slots=1, delay_ms=1.0)
    for number in range(100):
        line.far.send(plain(number))
    line.clock.go_on(2)
    came = []
    for _ in range(100):
        came += line.near.frames()
    assert came == [plain(number) for number in range(100)]


def test_a_driver_that_is_gone_does_not_make_the_line_grow() -> None:
    line = Line(delay_ms=1.0)
    line.near.net.reset()
    for number in range(2000):
        line.far.send(plain(number))
    line.clock.go_on(5)
    assert line.near.net.drops() > 1000
    line.near.up()
    assert line.near.frames()


# --- as an experiment asks for it ---------------------------------------------------------------


class Experiment(Line):
    def __init__(self) -> None:
        super().__init__()
        self.defects = Defects(self.near.net, self.clock.later)

    def plan(self, fault: str, count: int = 0, probability: float = 1.0, seed: int = 1) -> None:
        self.defects.plan(fault, count, probability, seed)


@pytest.mark.parametrize(
    ("fault", "there"), [(LOSE_FRAME, 0), (DUPLICATE_FRAME, 2), (CORRUPT_FRAME, 1)]
)
def test_frames_meet_what_is_planned(fault: str, there: int) -> None:
    bench = Experiment()
    bench.plan(fault, count=2)
    for card, other in ((bench.near, bench.far), (bench.far, bench.near)):
        card.send(segment(b"x" * 100), unchecked())
        came = other.frames()
        assert len(came) == there
        assert all(checks_out(frame) == (fault != CORRUPT_FRAME) for frame in came)
    assert bench.defects.landed[fault] == 2
    bench.near.send(plain(7))
    assert bench.far.frames() == [plain(7)]


def test_a_frame_comes_after_the_next_or_after_a_while() -> None:
    bench = Experiment()
    bench.plan(REORDER_FRAME, count=1)
    bench.near.send(plain(1))
    assert not bench.far.frames()
    bench.near.send(plain(2))
    assert bench.far.frames() == [plain(2), plain(1)]
    bench.plan(REORDER_FRAME, count=1)
    bench.near.send(plain(3))
    assert not bench.far.frames()
    assert bench.defects.landed[REORDER_FRAME] == 2


def test_mended_it_is_as_it_was() -> None:
    bench = Experiment()
    bench.plan(LOSE_FRAME)
    bench.near.send(plain(1))
    bench.defects.mend()
    assert bench.near.net.trouble is None
    bench.near.send(segment(b"x" * 4000), unchecked(size=1460))
    bench.far.send(plain(2))
    assert [header.gso_type for header, _ in bench.far.received()] == [1]
    assert bench.near.frames() == [plain(2)]
    assert dict(bench.defects.landed) == {LOSE_FRAME: 1}


def test_other_faults_do_not_touch_the_line() -> None:
    bench = Experiment()
    bench.plan(STUCK, probability=0.0)
    assert bench.near.net.trouble is None


def test_both_kinds_at_once() -> None:
    clock, link = Clock(), Link()
    cable = impaired(link.port(), {**NO_FAULTS, "delay_ms": 1.0}, clock, clock.at)
    near, far = CardDriver(cable), CardDriver(link.port(), mac=FAR)
    assert isinstance(cable, Impairment)
    Defects(near.net, clock.later).plan(DUPLICATE_FRAME, 1, 1.0, 1)
    near.send(plain(1))
    clock.go_on(2)
    assert far.frames() == [plain(1), plain(1)]
