"""The sector cache against plain memory: nothing made up, nothing forgotten, long runs."""

from __future__ import annotations

import random

import pytest

from servers.fs.cache import LINES, SectorCache
from servers.fs.integrity import LINE, LONGEST_RUN, PAYLOAD, SealedDisk, seal
from tests.servers.disk import Disk
from tests.servers.driver import behind
from ukernel.abi.services import SECTOR, DeviceFailed

SECTORS = 3 * LINE * LINES // 2 + 5  # more than the cache holds, and no whole number of lines


@pytest.mark.parametrize("seed", range(4))
def test_reads_see_every_write_and_a_sync_keeps_them(seed: int) -> None:
    dice = random.Random(seed)
    disk, truth = Disk(SECTORS), bytearray(dice.randbytes(SECTORS * PAYLOAD))
    disk.durable[:] = seal(truth, 0)
    cache = SectorCache(SealedDisk(behind(disk, seed) if seed % 2 else disk))
    first = 0
    for _ in range(600):
        goes_on = dice.random() < 0.7 and first + LINE < SECTORS
        first = first // LINE * LINE + LINE if goes_on else dice.randrange(SECTORS)
        count = min(dice.choice([1, 2, LINE]), LINE - first % LINE, SECTORS - first)
        window = slice(first * PAYLOAD, (first + count) * PAYLOAD)
        if dice.random() < 0.6:
            truth[window] = dice.randbytes(count * PAYLOAD)
            cache.write(first, bytes(truth[window]))
        else:
            assert cache.read(first, count) == truth[window]
    cache.sync()
    assert disk.durable == seal(truth, 0)


def test_a_part_of_a_sector_leaves_the_rest_of_it_alone() -> None:
    disk, truth = Disk(LINE), bytearray(random.Random(0).randbytes(LINE * PAYLOAD))
    disk.durable[:] = seal(truth, 0)
    cache = SectorCache(SealedDisk(disk))
    for skipped, length in ((100, 50), (0, PAYLOAD), (500, PAYLOAD), (1, 3 * PAYLOAD - 1)):
        start = 7 * PAYLOAD + skipped
        truth[start : start + length] = b"n" * length
        end = -(-(start + length) // PAYLOAD) * PAYLOAD
        fresh = SectorCache(SealedDisk(disk))
        for on in (cache, fresh):
            on.write(7, b"n" * length, skipped)
        assert fresh.read(7, 1) == truth[7 * PAYLOAD : 8 * PAYLOAD]
        cache.sync()
        assert disk.durable[: end // PAYLOAD * SECTOR] == seal(truth[:end], 0)


def test_a_last_sector_that_nobody_has_read_ends_in_zeros() -> None:
    disk = Disk(LINE)
    disk.durable[:] = seal(b"o" * LINE * PAYLOAD, 0)
    cache = SectorCache(SealedDisk(disk))
    cache.write(3, b"n" * 600)
    assert disk.operations == 0
    assert cache.read(3, 2) == b"n" * 600 + bytes(2 * PAYLOAD - 600)
    assert cache.read(5, 1) == b"o" * PAYLOAD
    cache.sync()
    assert cache.read(3, 2) == b"n" * 600 + bytes(2 * PAYLOAD - 600)


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
