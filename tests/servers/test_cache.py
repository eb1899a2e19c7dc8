"""The sector cache against plain memory: nothing made up, nothing forgotten, long runs."""

from __future__ import annotations

import random

import pytest

from servers.fs.cache import LINE, LINES, LONGEST_RUN, SectorCache
from tests.servers.disk import Disk
from ukernel.abi.services import SECTOR

SECTORS = 3 * LINE * LINES // 2 + 5  # more than the cache holds, and no whole number of lines


@pytest.mark.parametrize("seed", range(3))
def test_reads_see_every_write_and_a_sync_keeps_them(seed: int) -> None:
    dice = random.Random(seed)
    disk, truth = Disk(SECTORS), bytearray(dice.randbytes(SECTORS * SECTOR))
    disk.durable[:] = truth
    cache = SectorCache(disk)
    for _ in range(400):
        first = dice.randrange(SECTORS)
        count = min(dice.choice([1, 2, LINE, 3 * LINE]), SECTORS - first)
        window = slice(first * SECTOR, (first + count) * SECTOR)
        if dice.random() < 0.6:
            truth[window] = dice.randbytes(count * SECTOR)
            cache.write(first, bytes(truth[window]))
        else:
            assert cache.read(first, count) == truth[window]
    cache.sync()
    assert disk.durable == truth


def test_neighbours_go_out_together_and_a_second_sync_is_free() -> None:
    disk = Disk(SECTORS)
    cache = SectorCache(disk)
    for sector in reversed(range(7, 7 + LONGEST_RUN + 1)):
        cache.write(sector, b"%512d" % sector)
    cache.sync()
    assert disk.operations == 3
    cache.sync()
    assert disk.operations == 3
