"""Where partitions lie on a disk, and which sectors of it a request can name at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.partitions import AT_ONCE, BadLayout, Extent, Partition, layout
from ukernel.abi.errors import CallError, DeadlinePassed, DeadUnknown, Poison
from ukernel.abi.interface import Lent
from ukernel.abi.services import SECTOR, DeviceFailed, OutOfRange


def test_they_lie_one_after_the_other() -> None:
    assert layout({"parts": ["1KiB", 512, "2KiB"]}, 7) == [Extent(0, 2), Extent(2, 1), Extent(3, 4)]
    assert layout({"home": "1KiB", "swap": "512"}, 8) == [Extent(0, 2), Extent(2, 1)]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({}, "say `parts:"),
        ({"parts": "1MiB"}, "say `parts:"),
        ({"parts": []}, "say `parts:"),
        ({"parts": ["1KiB", 100]}, "partition 2 of 100: a multiple of 512"),
        ({"parts": ["lots"]}, "partition 1 of 'lots'"),
        ({"parts": [0]}, "partition 1 of 0"),
        ({"parts": [-512]}, "partition 1 of -512"),
        ({"parts": ["4KiB", "1KiB"]}, "10 sectors in 2 partitions: the disk has 8"),
    ],
)
def test_layouts_that_cannot_be(args: dict[str, Any], why: str) -> None:
    with pytest.raises(BadLayout, match=why):
        layout(args, 8)


class Later:
    """A call that waits, or one that is under way."""

    def __init__(self) -> None:
        self.wanted = True
        self.outcome: Any = None
        self.later: Any = self

    def answer(self, value: Any) -> None:
        assert self.outcome is None
        self.outcome = value

    fail = answer

    def result(self) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Rig:
    """A partition of a disk whose calls end when the test says so."""

    def __init__(self, extent: Extent) -> None:
        self.asked: list[Later] = []
        self.begun: list[tuple[str, tuple[Any, ...], Later, Callable[[Any], None]]] = []
        self.part = Partition(self, self, extent)  # type: ignore[arg-type]

    def pending(self) -> Any:
        self.asked.append(Later())
        return self.asked[-1]

    def when(self, call: Any, done: Callable[[Any], None]) -> None:
        self.begun.append((*call.what, call, done))

    def _begun(self, name: str, args: tuple[Any, ...]) -> Any:
        call: Any = Later()
        call.what = name, args
        return call

    def read(self, first: int, into: Lent) -> int: ...  # type: ignore[empty-body]
    def write(self, first: int, data: Lent) -> int: ...  # type: ignore[empty-body]
    def flush(self) -> None: ...
    def discard(self, first: int, count: int) -> None: ...

    def end(self, at: int, outcome: Any) -> None:
        _, _, call, done = self.begun.pop(at)
        call.outcome = outcome
        done(call)


def lent(sectors: int) -> Lent:
    return Lent(b"t", 0, sectors * SECTOR)


numbers = st.integers(0, 12) | st.integers(0, (1 << 64) - 1)


@given(numbers, st.integers(0, 5000), numbers)
def test_no_request_leaves_its_partition(first: int, length: int, count: int) -> None:
    rig = Rig(Extent(5, 7))
    for ask in (
        lambda: rig.part.read(first, Lent(b"t", 0, length)),
        lambda: rig.part.write(first, Lent(b"t", 0, length)),
        lambda: rig.part.discard(first, count),
    ):
        try:
            ask()
        except OutOfRange:
            continue
    for name, args, _, _ in rig.begun:
        sectors = args[1] if name == "discard" else args[1].length // SECTOR
        assert 5 <= args[0] < args[0] + sectors <= 12


def test_what_a_death_of_the_disk_cut_short_is_asked_again() -> None:
    rig = Rig(Extent(5, 7))
    rig.part.read(1, lent(2))
    rig.end(0, DeadUnknown("dead"))
    assert [(name, args) for name, args, _, _ in rig.begun] == [("read", (6, lent(2)))]
    rig.end(0, 1024)
    assert rig.asked[0].outcome == 1024


@pytest.mark.parametrize("error", [DeviceFailed("bad sector"), Poison("two lives"), CallError("x")])
def test_another_outcome_is_told_as_it_is(error: Exception) -> None:
    rig = Rig(Extent(5, 7))
    rig.part.flush()
    rig.end(0, error)
    assert rig.asked[0].outcome is error


def test_what_nobody_waits_for_any_more_is_not_asked_again() -> None:
    rig = Rig(Extent(5, 7))
    rig.part.flush()
    rig.asked[0].wanted = False
    rig.end(0, DeadUnknown("dead"))
    assert rig.begun == []
    assert isinstance(rig.asked[0].outcome, DeadlinePassed), "else the kernel takes it for in hand"


def test_so_many_are_at_the_disk_and_the_others_wait_their_turn() -> None:
    rig = Rig(Extent(0, 100))
    for sector in range(AT_ONCE + 3):
        rig.part.read(sector, lent(1))
    assert len(rig.begun) == AT_ONCE
    rig.asked[AT_ONCE].wanted = False
    rig.end(3, 512)
    assert [args[0] for _, args, _, _ in rig.begun][-1] == AT_ONCE + 1
    while rig.begun:
        rig.end(0, 512)
    assert [each.outcome for each in rig.asked].count(512) == AT_ONCE + 2
    assert isinstance(rig.asked[AT_ONCE].outcome, DeadlinePassed)
