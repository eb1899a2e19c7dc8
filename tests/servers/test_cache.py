"""The sector cache against plain memory: nothing made up, nothing forgotten, long runs."""

from __future__ import annotations

import random

import pytest

from servers.fs.cache import LINES, LONGEST_RUN, SectorCache
from servers.fs.integrity import LINE, PAYLOAD, SealedDisk, seal
from tests.servers.disk import Disk
from ukernel.abi.services import DeviceFailed

SECTORS = 3 * LINE * LINES // 2 + 5  # more than the cache holds, and no whole number of lines


@pytest.mark.parametrize("seed", range(3))
def test_reads_see_every_write_and_a_sync_keeps_them(seed: int) -> None:
    dice = random.Random(seed)
    disk, truth = Disk(SECTORS), bytearray(dice.randbytes(SECTORS * PAYLOAD))
    disk.durable[:] = seal(truth, 0)
    cache = SectorCache(SealedDisk(disk))
    for _ in range(600):
        first = dice.randrange(SECTORS)
        count = min(dice.choice([1, 2, LINE]), LINE - first % LINE, SECTORS - first)
        window = slice(first * PAYLOAD, (first + count) * PAYLOAD)
        if dice.random() < 0.6:
            truth[window] = dice.randbytes(count * PAYLOAD)
            cache.write(first, bytes(truth[window]))
        else:
            assert cache.read(first, count) == truth[window]
    cache.sync()
    assert disk.durable == seal(truth, 0)


def test_neighbours_go_out_together_and_a_second_sync_is_free() -> None:
    disk = Disk(SECTORS)
    cache = SectorCache(SealedDisk(disk))
    for sector in reversed(range(7, 7 + LONGEST_RUN + 1)):
        cache.write(sector, b"%*d" % (PAYLOAD, sector))
    cache.sync()
    assert disk.operations == 3
    cache.sync()
    assert disk.operations == 3


def test_a_wrong_sector_fails_its_own_reads_until_it_is_written() -> None:
    disk, truth = Disk(LINE), random.Random(0).randbytes(LINE * PAYLOAD)
    disk.durable[:] = seal(truth, 0)
    disk.flip(7, 99)
    cache = SectorCache(SealedDisk(disk))
    assert cache.read(0, 7) == truth[: 7 * PAYLOAD]
    assert cache.read(8, LINE - 8) == truth[8 * PAYLOAD :]
    for first, count in ((7, 1), (0, LINE), (6, 2)):
        with pytest.raises(DeviceFailed, match="sector 7 "):
            cache.read(first, count)
    cache.write(7, bytes(PAYLOAD))
    expected = truth[: 7 * PAYLOAD] + bytes(PAYLOAD) + truth[8 * PAYLOAD :]
    assert cache.read(0, LINE) == expected


def test_a_wrong_sector_does_not_spoil_what_was_written_over_it() -> None:
    disk = Disk(LINE)
    cache = SectorCache(SealedDisk(disk))
    cache.write(3, b"x" * PAYLOAD)
    with pytest.raises(DeviceFailed, match="sector 4 "):  # nothing was ever written to it
        cache.read(3, 2)
    assert cache.read(3, 1) == b"x" * PAYLOAD
