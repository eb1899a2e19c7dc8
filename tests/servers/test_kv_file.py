"""A journal on the real file system: power cuts, device errors and deaths of the file system.

The volume is the file server's own; only the lending of memory is done here, and the dying.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pytest

from servers.fs.paths import check_path
from servers.fs.volume import Volume
from servers.kv.file import BULK, DRAFT, FileStore, WrongPath
from servers.kv.journal import Journal
from servers.kv.log import MAGIC, Record
from servers.kv.stores import NoStore
from servers.kv.table import Table
from tests.servers.disk import BadSector, Disk, PowerCut
from ukernel.abi.errors import CallError, DeadlinePassed, DeadUnknown
from ukernel.abi.interface import Lent
from ukernel.abi.services import (
    CREATE,
    DIRECTORY,
    TRUNCATE,
    DeviceFailed,
    File,
    FileSystem,
    IsADirectory,
    NoSpace,
    Stat,
)

T = TypeVar("T")

SECTORS = 4096
PATH = "/deep/kv/journal"
LIMIT, REMEMBER, SHORT = 60_000, 40, 9000  # compacted every few changes
BEFORE, AFTER, WELL = "before", "after", ""  # when the file system dies, or is too late

Change = tuple[bytes, Callable[[Table], Record]]


def put(key: str, size: int, operation: bytes) -> Change:
    return operation, lambda table: table.put(key, operation * size, operation)


def add(key: str, amount: int, operation: bytes) -> Change:
    return operation, lambda table: table.add(key, amount, operation)


def remove(key: str, operation: bytes) -> Change:
    return operation, lambda table: table.remove(key, operation)


CHANGES = [
    put("a", 1000, b"p1"),
    add("n", 5, b"a1"),
    put("b", 800, b"p2"),
    *[put("a", 900 + n, b"q%d" % n) for n in range(6)],
    remove("b", b"r1"),
    *[add("n", n, b"b%d" % n) for n in range(6)],
    *[put("c", 1500 + n, b"c%d" % n) for n in range(8)],
    remove("n", b"r2"),
    add("n", 1, b"a2"),
]


class LocalFile(File):
    def __init__(self, fs: LocalFs, path: str) -> None:
        self.fs = fs
        self.path = path

    def read(self, offset: int, into: Lent) -> int:
        data = self.fs.do(lambda volume: volume.read(self.path, offset, into.length))
        self.fs.view[into.offset : into.offset + len(data)] = data
        return len(data)

    def write(self, offset: int, data: Lent) -> int:
        lent = bytes(self.fs.view[data.offset : data.offset + data.length])
        fate = self.fs.fates.pop(0) if self.fs.fates else WELL
        done = 0 if fate == BEFORE else self.fs.do(lambda v: v.write(self.path, offset, lent))
        if fate != WELL:
            raise DeadlinePassed("the disk does not answer")
        return done

    def truncate(self, size: int) -> None:
        self.fs.do(lambda volume: volume.truncate(self.path, size))


class LocalFs(FileSystem):
    """The file server without its process, and memory to lend it. `deaths`: when it dies in each
    rename and remove to come; the next life mounts again. `fates`: the same of writes."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.view = memoryview(bytearray(BULK))
        self.volume = Volume.mount(disk, True)
        self.deaths: list[str] = []
        self.fates: list[str] = []
        self.renames = 0
        self.drafts = 0

    def lend(self, offset: int, length: int) -> Lent:
        return Lent(b"", offset, length)

    show = lend

    def do(self, action: Callable[[Volume], T]) -> T:
        try:
            return action(self.volume)
        except BadSector as error:
            raise DeviceFailed("a sector") from error

    def open(self, path: str, mode: int) -> File:
        check_path(path)
        if mode & CREATE:
            self.drafts += 1
            self.do(lambda volume: volume.create(path, bool(mode & TRUNCATE)))
        if self.stat(path).kind == DIRECTORY:
            raise IsADirectory(path)
        return LocalFile(self, path)

    def stat(self, path: str) -> Stat:
        check_path(path)
        return self.do(lambda volume: volume.stat(path))

    def mkdir(self, path: str) -> None:
        check_path(path)
        self.do(lambda volume: volume.mkdir(path))

    def rename(self, old: str, new: str) -> None:
        self.renames += 1
        self._once(lambda volume: volume.rename(old, new))

    def remove(self, path: str) -> None:
        self._once(lambda volume: volume.remove(path))

    def _once(self, action: Callable[[Volume], None]) -> None:
        death = self.deaths.pop(0) if self.deaths else WELL
        if death != BEFORE:
            self.do(action)
        if death != WELL:
            self.volume = Volume.mount(self.disk, False)
            raise DeadUnknown("fs died while it had the call")


def has_draft(fs: LocalFs) -> bool:
    return PATH.rpartition("/")[2] + DRAFT in [e.name for e in fs.volume.entries("/deep/kv", 0)]


def blank() -> Table:
    return Table(LIMIT, REMEMBER)


def journal(fs: LocalFs) -> Journal:
    return Journal(FileStore(fs, PATH, fs), blank, SHORT)


def contents(of: Journal) -> object:
    table = of.table
    values = {key: table.get(key) for key in table.keys(0)}
    return values, table.number("n"), dict(table.answers)


def states() -> list[object]:
    """The contents before each change, and after the last."""
    model = Journal(NoStore(), blank, SHORT)
    return [contents(model), *(contents(model) for c in CHANGES if model.change(*c) is not None)]


def on_disk(disk: Disk) -> object:
    """What a later life finds there. No earlier one may go on after that."""
    return contents(journal(LocalFs(disk)))


def fresh() -> Disk:
    disk = Disk(SECTORS)
    Volume.mount(disk, True).unmount()
    return disk.after_power_cut(0)


def run(on: Journal) -> int:
    """Make the changes until the power goes; how many were answered."""
    for done, change in enumerate(CHANGES):
        try:
            on.change(*change)
        except PowerCut:
            return done
    return len(CHANGES)


def insist(on: Journal, change: Change) -> list[type[Exception]]:
    """Say it until it is answered; how it ended before."""
    ends: list[type[Exception]] = []
    while True:
        try:
            on.change(*change)
        except (DeviceFailed, CallError) as error:
            ends.append(type(error))
            assert len(ends) < 10
        else:
            return ends


def test_it_is_compacted_and_all_is_there_in_the_next_life() -> None:
    fs = LocalFs(fresh())
    first = journal(fs)
    assert run(first) == len(CHANGES)
    assert fs.renames > 5
    assert contents(first) == states()[-1] == on_disk(fs.disk)


def test_each_change_is_done_once_in_all_lives() -> None:
    disk = fresh()
    answers = [journal(LocalFs(disk)).change(*change) for change in CHANGES]
    last = on_disk(disk)
    assert [journal(LocalFs(disk)).change(*change) for change in CHANGES] == answers
    assert last == on_disk(disk) == states()[-1]


@pytest.mark.parametrize("seed", range(2))
def test_a_power_cut_at_every_operation_of_the_disk_loses_nothing_answered(seed: int) -> None:
    expected, start = states(), fresh()
    for cut in range(1, 10_000):
        disk = start.after_power_cut(0)
        disk.fail_at(cut, PowerCut, for_good=True)
        try:
            done = run(journal(LocalFs(disk)))
        except PowerCut:
            done = 0
        if disk.operations < cut:
            break
        after = disk.after_power_cut(seed * 10_000 + cut)
        survivor = journal(LocalFs(after))
        assert contents(survivor) in expected[done : done + 2]
        survivor.change(*CHANGES[done])
        assert contents(survivor) == expected[done + 1] == on_disk(after)
    assert cut > 100


@pytest.mark.parametrize("for_good", [False, True])
def test_a_change_refused_for_an_error_of_the_disk_was_not_made(for_good: bool) -> None:
    expected, start = states(), fresh()
    seen: set[type[Exception]] = set()
    for when in range(1, 10_000):
        fs = LocalFs(start.after_power_cut(0))
        under_test = journal(fs)
        fs.disk.fail_at(when, BadSector, for_good)
        for done, change in enumerate(CHANGES):
            try:
                under_test.change(*change)
            except (DeviceFailed, DeadUnknown) as error:
                fs.disk.heal()
                found = contents(journal(fs))
                seen.add(type(error))
                allowed = expected[done : done + (1 if type(error) is DeviceFailed else 2)]
                assert found in allowed
                insist(under_test, change)
        never_met = fs.disk.operations < when
        fs.disk.heal()
        assert contents(under_test) == expected[-1] == on_disk(fs.disk)
        if never_met:
            break
    assert when > 100
    assert seen == ({DeadUnknown} if for_good else {DeviceFailed, DeadUnknown})


@pytest.mark.parametrize("deaths", [*itertools.product((BEFORE, AFTER, WELL), repeat=3)])
def test_a_rename_or_remove_during_which_the_file_system_died_is_settled(
    deaths: tuple[str, ...],
) -> None:
    fs = LocalFs(fresh())
    journal(fs).load()
    fs.open(PATH + DRAFT, CREATE)  # an earlier life was killed while it compacted
    fs.deaths = list(deaths)
    under_test = journal(fs)
    assert contents(under_test) == states()[0]
    assert not has_draft(fs)
    for done, change in enumerate(CHANGES, 1):
        assert insist(under_test, change) == []
        assert contents(under_test) == states()[done] == contents(journal(fs))
    assert fs.deaths == []


@pytest.mark.parametrize("fate", [BEFORE, AFTER])
def test_a_write_that_is_late_is_looked_for(fate: str) -> None:
    refused = 0
    for late in range(len(CHANGES)):
        fs = LocalFs(fresh())
        under_test = journal(fs)
        under_test.load()
        for number, change in enumerate(CHANGES):
            fs.fates = [fate] if number == late else []
            ends = insist(under_test, change)
            assert ends in ([], [DeviceFailed])
            refused += len(ends)
        assert contents(under_test) == states()[-1] == on_disk(fs.disk)
    fs = LocalFs(fresh())
    run(journal(fs))
    # A record is found; a change whose compacted log came late was not yet made.
    assert refused == (len(CHANGES) if fate == BEFORE else fs.renames - 1)


def fill(fs: LocalFs) -> list[str]:
    """Leave no block free; the files that it took."""
    made: list[str] = []
    with suppress(NoSpace):
        while True:
            made.append(f"/filler{len(made)}")
            fs.volume.create(made[-1], True)
            fs.volume.write(made[-1], 0, bytes(7000))
    return made


def test_when_the_volume_is_full_nothing_is_changed() -> None:
    fs = LocalFs(Disk(512))
    under_test = journal(fs)
    under_test.load()
    refused = {"append": 0, "compact": 0}
    for done, change in enumerate(CHANGES):
        files, before = fill(fs), fs.drafts
        try:
            under_test.change(*change)
        except NoSpace:
            assert not has_draft(fs)
            assert contents(under_test) == states()[done] == contents(journal(fs))
            refused["append" if fs.drafts == before else "compact"] += 1
        for path in files:
            fs.volume.remove(path)
        under_test.change(*change)
    assert all(refused.values())
    assert contents(under_test) == states()[-1] == on_disk(fs.disk)


def test_a_half_record_at_the_end_is_dropped() -> None:
    fs = LocalFs(fresh())
    under_test = journal(fs)
    under_test.change(*CHANGES[0])
    size = fs.stat(PATH).size
    under_test.change(*CHANGES[1])
    for cut in range(size, fs.stat(PATH).size):
        fs.volume.truncate(PATH, cut)
        survivor = journal(fs)
        assert contents(survivor) == states()[1]
        survivor.change(*CHANGES[1])
        assert contents(survivor) == states()[2] == contents(journal(fs))


def test_a_damaged_journal_is_left_alone_until_it_can_be_read() -> None:
    fs = LocalFs(fresh())
    for change in CHANGES[:3]:
        journal(fs).change(*change)
    good = fs.volume.read(PATH, 0, BULK)
    fs.volume.write(PATH, len(MAGIC) + 30, b"\xff")
    wrong = fs.volume.read(PATH, 0, BULK)
    under_test = journal(fs)
    with pytest.raises(DeviceFailed, match=rf"at byte {len(MAGIC)} of"):
        contents(under_test)
    with pytest.raises(DeadUnknown, match="say it again"):
        under_test.change(*CHANGES[3])
    assert fs.volume.read(PATH, 0, BULK) == wrong
    fs.volume.write(PATH, 0, good)
    under_test.change(*CHANGES[3])
    assert contents(under_test) == states()[4] == on_disk(fs.disk)


@pytest.mark.parametrize("path", ["/directory", "/file/journal", "relative", "/a//b"])
def test_a_path_that_can_be_no_file_is_told(path: str) -> None:
    fs = LocalFs(fresh())
    fs.mkdir("/directory")
    fs.open("/file", CREATE)
    with pytest.raises(WrongPath, match=path):
        Journal(FileStore(fs, path, fs), blank).load()
