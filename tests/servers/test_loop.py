"""Files as disks: which bytes a request can name at all, and what is done when the file is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.loop import AT_ONCE, BadFiles, FileDisk, sizes
from ukernel.abi.errors import Answer, CallError, DeadNotRun, DeadUnknown, Poison, Unavailable
from ukernel.abi.interface import Lent
from ukernel.abi.services import (
    SECTOR,
    DeviceFailed,
    NoSpace,
    NoSuchFile,
    OutOfRange,
    StaleHandle,
    Stat,
)

SECTORS = 7


def test_each_file_has_a_size() -> None:
    found = sizes({"/b.img": "1KiB", "/a/a.img": 512})
    assert list(found.items()) == [("/b.img", 1024), ("/a/a.img", 512)]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({}, "say `{/vm-a.img: 8MiB}`"),
        ({"a.img": "1KiB"}, r"args.a.img: a path is absolute, such as /a.img"),
        ({"/a.img": 100}, r"args./a.img is 100: a multiple of 512"),
        ({"/a.img": "lots"}, "is 'lots': a multiple"),
        ({"/a.img": ["1KiB"]}, "a multiple of 512"),
        ({"/a.img": 0}, "is 0:"),
        ({"/a.img": -512}, "is -512:"),
    ],
)
def test_what_is_no_disk(args: dict[str, Any], why: str) -> None:
    with pytest.raises(BadFiles, match=why):
        sizes(args)


class Later:
    """A call that waits, or one that is under way."""

    def __init__(self, what: str, args: tuple[Any, ...] = ()) -> None:
        self.what, self.args = what, args
        self.wanted = True
        self.outcome: Any = None
        self.later: Any = self
        self.done: Callable[[Any], None] = lambda _: None

    def answer(self, value: Any) -> None:
        assert self.outcome is None
        self.outcome = value

    fail = answer

    def result(self) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Opened:
    """A handle of the file, whose calls are begun."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _begun(self, what: str, args: tuple[Any, ...]) -> Any:
        return Later(f"{self.name}.{what}", args)

    def read(self, offset: int, into: Lent) -> int: ...  # type: ignore[empty-body]
    def write(self, offset: int, data: Lent) -> int: ...  # type: ignore[empty-body]
    def sync(self) -> None: ...
    def stat(self) -> Stat: ...  # type: ignore[empty-body]
    def open(self, path: str, mode: int) -> Any: ...


class Rig:
    """A disk of SECTORS on a file whose calls end when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Later] = []
        self.begun: list[Later] = []
        fs: Any = Opened("fs")
        first: Any = Opened("first")
        server: Any = self
        self.disk = FileDisk(server, fs, "/a.img", SECTORS * SECTOR, first)

    def pending(self) -> Any:
        self.asked.append(Later("asked"))
        return self.asked[-1]

    def when(self, call: Any, done: Callable[[Any], None]) -> None:
        call.done = done
        self.begun.append(call)

    def end(self, outcome: Any, at: int = 0) -> None:
        call = self.begun.pop(at)
        call.outcome = outcome
        call.done(call)

    @property
    def names(self) -> list[str]:
        return [call.what for call in self.begun]

    @property
    def outcomes(self) -> list[Any]:
        return [each.outcome for each in self.asked]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def lent(sectors: int = 1) -> Lent:
    return Lent(b"t", 0, sectors * SECTOR)


numbers = st.integers(0, 12) | st.integers(0, (1 << 64) - 1)


@given(numbers, st.integers(0, 5000), numbers)
def test_no_request_leaves_the_file(first: int, length: int, count: int) -> None:
    rig = Rig()
    for ask in (
        lambda: rig.disk.read(first, Lent(b"t", 0, length)),
        lambda: rig.disk.write(first, Lent(b"t", 0, length)),
        lambda: rig.disk.discard(first, count),
    ):
        try:
            ask()
        except OutOfRange:
            continue
    for call in rig.begun:
        offset, memory = call.args
        assert 0 <= offset < offset + memory.length <= SECTORS * SECTOR
        assert (offset, memory.length) == (first * SECTOR, length)


@pytest.mark.parametrize("death", [DeadNotRun("dead"), DeadUnknown("dead")])
def test_what_a_death_cut_short_is_asked_again(rig: Rig, death: CallError) -> None:
    rig.disk.write(2, lent(2))
    rig.end(death)
    assert [(call.what, call.args) for call in rig.begun] == [("first.write", (1024, lent(2)))]
    rig.end(1024)
    assert rig.outcomes == [1024]


@pytest.mark.parametrize("error", [NoSpace("full"), Poison("x"), Unavailable("given up")])
def test_what_is_wrong_with_the_file_is_wrong_with_the_disk(rig: Rig, error: Exception) -> None:
    rig.disk.flush()
    rig.end(error)
    (outcome,) = rig.outcomes
    assert isinstance(outcome, DeviceFailed)
    assert str(outcome) == f"/a.img: {type(error).__name__}: {error}"
    assert rig.begun == []


def test_a_file_that_somebody_has_cut_fails_the_request(rig: Rig) -> None:
    rig.disk.read(6, lent(1))
    rig.end(100)
    assert isinstance(rig.outcomes[0], DeviceFailed)


def test_a_stale_handle_is_opened_again_and_nobody_waits_in_vain(rig: Rig) -> None:
    for sector in range(4):
        rig.disk.read(sector, lent())
    rig.end(StaleHandle("removed"))
    assert rig.names == ["first.read", "fs.open"], "once, and nothing else meanwhile"
    rig.end(StaleHandle("removed"))
    assert rig.names == ["fs.open"]
    rig.end(DeadUnknown("dead"))
    assert rig.begun[0].args == ("/a.img", 0)
    rig.end(Opened("second"))
    rig.end(DeadNotRun("dead"))
    assert rig.names == ["second.stat"]
    rig.end(Stat(1, SECTORS * SECTOR))
    while rig.begun:
        assert {*rig.names} == {"second.read"}
        rig.end(SECTOR)
    assert rig.outcomes == [SECTOR] * 4


@pytest.mark.parametrize(
    ("ends", "why"),
    [
        ([NoSuchFile("none")], "/a.img: NoSuchFile: none"),
        ([Opened("other"), Stat(1, 512)], "/a.img is another file now, of 512 bytes"),
        ([Opened("other"), CallError("no")], "/a.img: CallError: no"),
    ],
)
def test_a_file_that_is_gone_fails_all_until_it_is_back(
    rig: Rig, ends: list[Any], why: str
) -> None:
    for sector in range(3):
        rig.disk.write(sector, lent())
    rig.asked[2].wanted = False
    rig.end(StaleHandle("removed"))
    rig.end(StaleHandle("removed"))
    for end in ends:
        rig.end(end)
    assert [str(outcome) for outcome in rig.outcomes[:2]] == [why] * 2
    assert rig.begun == []
    rig.disk.write(0, lent())
    assert rig.names == ["first.write"], "nothing is written to the other file"
    rig.end(StaleHandle("removed"))
    rig.end(Opened("back"))
    rig.end(Stat(1, SECTORS * SECTOR))
    rig.end(SECTOR)
    assert rig.outcomes[-1] == SECTOR


def test_so_many_are_at_the_file_system_and_the_others_wait_their_turn(rig: Rig) -> None:
    for sector in range(AT_ONCE + 3):
        rig.disk.read(sector, lent())
    assert len(rig.begun) == AT_ONCE
    rig.asked[AT_ONCE].wanted = False
    rig.end(SECTOR, at=1)
    assert rig.begun[-1].args[0] == (AT_ONCE + 1) * SECTOR
    while rig.begun:
        rig.end(SECTOR)
    assert rig.outcomes.count(SECTOR) == AT_ONCE + 2


def test_a_refusal_at_the_beginning_is_an_outcome(rig: Rig) -> None:
    def refused(what: str, args: tuple[Any, ...]) -> Any:
        raise Answer("closed")

    rig.disk._file._begun = refused  # type: ignore[attr-defined]
    rig.disk.flush()
    assert isinstance(rig.outcomes[0], DeviceFailed)
