"""The file server's end of the disk: calls under way are never lost, mixed up or believed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from servers.fs.cache import SectorCache
from servers.fs.disk import AHEAD, WINDOWS, Disk
from servers.fs.integrity import LINE, LONGEST_RUN, PAYLOAD, SealedDisk, seal
from servers.fs.volume import Volume
from tests.servers import disk as memory
from tests.servers.disk import BadSector, PowerCut, garbled
from tests.servers.driver import Driver
from ukernel.abi.errors import Revoked
from ukernel.abi.services import SECTOR, DeviceFailed

SECTORS = 12 * LONGEST_RUN


def through(disk: memory.Disk, seed: int = 0) -> tuple[Driver, Disk]:
    driver = Driver(disk, seed)
    return driver, Disk(driver, driver.bounce, driver.begin)


def filled(sectors: int = SECTORS) -> tuple[memory.Disk, bytes]:
    disk, data = memory.Disk(sectors), random.Random(1).randbytes(sectors * PAYLOAD)
    disk.durable[:] = seal(data, 0)
    return disk, data


@pytest.mark.parametrize("seed", range(12))
def test_a_read_sees_every_write_and_a_flush_keeps_them(seed: int) -> None:
    dice, disk = random.Random(seed), memory.Disk(SECTORS)
    driver, edge = through(disk, seed)
    truth = bytearray(SECTORS * SECTOR)
    for _ in range(150):
        count = dice.choice([1, 2, LINE, LONGEST_RUN])
        first = dice.randrange(0, SECTORS // 4 - count, dice.choice([1, LINE]))
        window = slice(first * SECTOR, (first + count) * SECTOR)
        match dice.choice(["read", "read", "ahead", "write", "write", "flush"]):
            case "read":
                assert edge.read(first, count) == truth[window]
            case "ahead":
                edge.ahead(first, count)
            case "write":
                truth[window] = dice.randbytes(count * SECTOR)
                edge.write(first, truth[window])
            case "flush":
                edge.flush()
                assert disk.after_power_cut(seed).durable == truth
    assert len(driver.waited) <= WINDOWS


def test_writes_are_under_way_together_and_all_before_the_flush() -> None:
    disk = memory.Disk(SECTORS)
    driver, edge = through(disk)
    for n in range(WINDOWS):
        edge.write(n * LONGEST_RUN, bytes([n + 1]) * LONGEST_RUN * SECTOR)
    assert len(driver.waited) == WINDOWS
    edge.flush()
    assert [name for name, _, _ in driver.calls] == ["write"] * WINDOWS + ["flush"]
    assert disk.durable[: WINDOWS * LONGEST_RUN * SECTOR].count(0) == 0


FOLLOWING: dict[str, Callable[[Disk], object]] = {
    "flush": lambda edge: edge.flush(),
    "read": lambda edge: edge.read(5, 1),
    "ahead": lambda edge: edge.ahead(5, 1),
    "write": lambda edge: edge.write(0, bytes(SECTOR)),
}


@pytest.mark.parametrize("after", FOLLOWING)
def test_a_write_that_failed_comes_out_of_what_follows(after: str) -> None:
    disk = memory.Disk(SECTORS)
    driver, edge = through(disk)
    disk.fail_at(1, BadSector)
    edge.write(0, bytes(SECTOR))
    edge.write(LINE, bytes(SECTOR))
    with pytest.raises(BadSector):
        FOLLOWING[after](edge)
    assert not driver.waited
    edge.flush()


def test_a_read_ahead_that_failed_is_nobodys_failure() -> None:
    disk, data = filled()
    driver, edge = through(disk)
    disk.fail_at(1, BadSector)
    edge.ahead(0, LONGEST_RUN)
    assert edge.read(0, LINE) == seal(data[: LINE * PAYLOAD], 0)
    assert driver.calls == [("read", 0, LONGEST_RUN), ("read", 0, LINE)]


def test_wrong_sectors_of_a_read_ahead_are_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    disk, data = filled()
    driver, edge = through(disk)
    sealed = SealedDisk(edge)
    disk.lie(garbled(3))
    sealed.ahead(0, LONGEST_RUN)
    for first in range(0, LONGEST_RUN, LINE):
        assert sealed.read(first, LINE, -1) == (data[first * PAYLOAD :][: LINE * PAYLOAD], 0)
    assert driver.calls[0] == ("read", 0, LONGEST_RUN)
    assert 1 <= len(driver.calls) - 1 <= LONGEST_RUN // LINE
    assert "rightly the second time" in capsys.readouterr().err


def test_a_read_ahead_is_forgotten_when_its_sectors_are_written() -> None:
    disk = memory.Disk(SECTORS)
    driver, edge = through(disk)
    edge.ahead(0, LONGEST_RUN)
    for begun in list(driver.under_way):  # what it brings is old
        begun.happen()
    edge.write(LINE - 1, b"n" * SECTOR)
    assert edge.read(0, LINE) == bytes((LINE - 1) * SECTOR) + b"n" * SECTOR


def test_read_aheads_that_nobody_wants_make_room() -> None:
    disk, data = filled()
    driver, edge = through(disk)
    for n in range(12):
        edge.ahead(n * LONGEST_RUN, LONGEST_RUN)
        assert len(driver.waited) <= WINDOWS
    assert edge.read(0, LINE) == seal(data[: LINE * PAYLOAD], 0)
    newest = 12 - AHEAD
    calls = len(driver.calls)
    edge.read(newest * LONGEST_RUN, LONGEST_RUN)
    assert len(driver.calls) == calls


def test_a_refused_call_is_a_failed_device(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, edge = through(memory.Disk(SECTORS))

    def refuse(*_: object) -> int:
        raise Revoked("the disk is no longer ours")

    for name in ("read", "write", "flush"):
        monkeypatch.setattr(driver, name, refuse)
    with pytest.raises(DeviceFailed, match="no longer ours"):
        edge.read(0, 1)
    with pytest.raises(DeviceFailed, match="no longer ours"):
        edge.flush()
    edge.write(0, bytes(SECTOR))
    with pytest.raises(DeviceFailed, match="no longer ours"):
        edge.flush()


@pytest.mark.parametrize("down", [False, True])
def test_a_sequential_reader_makes_few_long_reads(down: bool) -> None:
    disk, data = filled()
    driver, edge = through(disk)
    cache = SectorCache(SealedDisk(edge))
    firsts = range(0, SECTORS, LINE)
    for first in reversed(firsts) if down else firsts:
        assert cache.read(first, LINE) == data[first * PAYLOAD :][: LINE * PAYLOAD]
    assert len(driver.calls) <= SECTORS // LONGEST_RUN + 3
    assert max(length for _, _, length in driver.calls) == LONGEST_RUN


def test_a_reader_here_and_there_reads_no_more_than_it_needs() -> None:
    disk, data = filled()
    driver, edge = through(disk)
    cache = SectorCache(SealedDisk(edge))
    for line in (9, 3, 40, 17, 28, 1, 46, 12):
        assert cache.read(line * LINE, 8) == data[line * LINE * PAYLOAD :][: 8 * PAYLOAD]
    assert driver.calls == [("read", n * LINE, LINE) for n in (9, 3, 40, 17, 28, 1, 46, 12)]


def test_a_cut_during_a_large_read_and_what_was_written_before_it() -> None:
    """The file is larger than the cache, so that its reads and read-aheads reach the disk."""
    content = random.Random(2).randbytes(3_000_000)
    made = memory.Disk(64 * LINE)
    volume = Volume.mount(made, True)
    volume.create("/f", True)
    volume.write("/f", 0, content)
    for cut in range(1, 200):
        disk = made.after_power_cut(0)
        volume = Volume.mount(through(disk, cut)[1], False)
        disk.fail_at(cut, PowerCut, for_good=True)
        try:
            assert volume.read("/f", 0, len(content)) == content
            break
        except PowerCut:
            disk.heal()
        assert volume.read("/f", 0, len(content)) == content
    assert cut > 5
