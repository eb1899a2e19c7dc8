"""57 and 59: devices that storm or lie, under drivers that mean well."""

from __future__ import annotations

import random

import pytest

from launcher.board import MACHINE
from tests.adversary.conftest import WorldMaker
from tests.adversary.tasks.stormy import Stormy
from tests.adversary.world import World, gone
from ukernel.abi.faults import SPURIOUS_INTERRUPT, WRONG_DATA, DeviceFaults
from ukernel.abi.services import CREATE, SECTOR, Block, DeviceFailed, Entropy, FileSystem
from ukernel.lib.memory import Region

STORMY = """
  rng:
    run: tests.adversary.tasks.stormy
    serves: tests.adversary.tasks.stormy:Stormy
    devices: [rng0]
  other: {run: servers.rng, serves: entropy, devices: [rng1]}
  client: {run: servers.client, calls: [rng, other], start: demand}
hardware:
  rng0: {model: virtio-rng}
  rng1: {model: virtio-rng}
"""
LENGTH = 32  # bytes of random data
STORM = 500  # looks at a ring in which there is nothing; each for many times that it was raised


@pytest.mark.parametrize("line", ["interrupt", "doorbell"])
def test_57_storm_on_a_line(make_world: WorldMaker, line: str) -> None:
    """Raised again and again, with nothing behind it: driver, machine and everybody else go on."""
    world = make_world(STORMY)
    client = world.intrude("client")
    rng, other = client.stub(Stormy, "rng"), client.stub(Entropy, "other")
    child = rng.storm(line)

    def work() -> None:
        for _ in range(10):
            assert len(rng.read(LENGTH)) == len(other.read(LENGTH)) == LENGTH

    world.alongside(work)
    if line == "interrupt":
        world.until(lambda: rng.looks() > STORM, "the storm")
    world.check()
    assert not gone([child]), "it goes on to the end"
    for name in ("rng", "other", "machine"):
        row = world.slot(name)
        assert (row.life, row.faults, row.errors) == (1, 0, 0)


FILES = """
  disk: {run: servers.disk, serves: block, devices: [disk0]}
  fs: {run: servers.fs, serves: file, calls: [disk], state: disk, args: {format_if_blank: true}}
  client: {run: servers.client, calls: [disk, fs], start: demand}
hardware: {disk0: {model: virtio-blk, image: disk.img, size: 16MiB}}
"""
PIECE = 64 * 1024
PIECES = 96  # more than the file system's cache holds, so that each is read from the disk again
REQUESTS = 1000
SEED = 59


class Files:
    """A file of known bytes on a disk that can break."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = world.intrude("client")
        self.box = Region(self.client, "box", PIECE)
        self.faults = world.system.reach(DeviceFaults, MACHINE)
        self.written = random.Random(SEED).randbytes(PIECE * PIECES)
        self.file = self.client.stub(FileSystem, "fs").open("/file", CREATE)
        for at in range(0, len(self.written), PIECE):
            self.box.view[:] = self.written[at : at + PIECE]
            self.file.write(at, self.box.lend(0, PIECE))

    def read(self, number: int) -> bool:
        """Whether a piece can be read. What is read is right."""
        at = number * PIECE
        try:
            count = self.file.read(at, self.box.lend(0, PIECE))
        except DeviceFailed:
            return False
        assert count == PIECE
        assert self.box.view == self.written[at : at + PIECE]
        return True

    def landed(self, fault: str) -> int:
        return sum(times for _, found, times in self.faults.broken() if found == fault)

    def healed(self) -> int:
        return self.world.logs()["fs"].count("was read wrongly, and rightly the second time")


@pytest.fixture
def files(make_world: WorldMaker) -> Files:
    return Files(make_world(FILES))


def test_57_spurious_interrupts_without_end(files: Files) -> None:
    files.faults.break_device("disk0", SPURIOUS_INTERRUPT, 0, 1.0, SEED)
    block = files.client.stub(Block, "disk")
    for _ in range(REQUESTS):
        block.read(0, files.box.lend(0, SECTOR))
    assert all(files.read(number) for number in range(PIECES))
    assert files.landed(SPURIOUS_INTERRUPT) > REQUESTS / 10, "an awake driver needs no interrupt"
    assert [files.world.slot(name).life for name in ("disk", "fs", "machine")] == [1, 1, 1]


def test_59_wrong_data_once_is_healed(files: Files) -> None:
    files.faults.break_device("disk0", WRONG_DATA, 1, 1.0, SEED)
    assert all(files.read(number) for number in range(PIECES))
    assert (files.landed(WRONG_DATA), files.healed()) == (1, 1)


def test_59_wrong_data_is_never_passed_on(files: Files) -> None:
    """Each read of the device brings a wrong byte. Every read of the file is right, or fails."""
    files.faults.break_device("disk0", WRONG_DATA, 0, 1.0, SEED)
    right = [files.read(number) for number in [*range(PIECES)] * 2].count(True)
    assert right > PIECES, "the second read is wrong too, mostly elsewhere"
    assert files.healed() >= right // 4, "a read of the device brings four pieces at most"
    files.faults.mend()
    assert all(files.read(number) for number in range(PIECES))
    assert [files.world.slot(name).life for name in ("disk", "fs", "machine")] == [1, 1, 1]


def test_59_data_that_stays_wrong_fails_by_name(files: Files) -> None:
    """Somebody has changed a byte here and there on the disk itself, and later puts it back."""
    block = files.client.stub(Block, "disk")

    def change_some() -> None:
        window = files.box.lend(0, SECTOR)
        # Not the first sector of a block of fs: it says where other blocks are.
        for sector in [n for n in range(1029, block.capacity(), 64) if n // 1024 % 2]:
            block.read(sector, window)
            files.box.view[100] ^= 1
            block.write(sector, window)

    change_some()
    outcomes = [files.read(number) for number in range(PIECES)]
    assert {*outcomes} == {True, False}
    with pytest.raises(DeviceFailed, match=r"sector \d+ holds other bytes than were written"):
        files.file.read(outcomes.index(False) * PIECE, files.box.lend(0, PIECE))
    change_some()
    assert all(files.read(number) for number in range(PIECES))
    assert files.world.slot("fs").life == 1
