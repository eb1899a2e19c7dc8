"""disk: a disk in memory that loses what was not flushed, and fails or lies when it is told to."""

from __future__ import annotations

import random
from collections.abc import Callable

from servers.fs.integrity import Bytes
from ukernel.abi.services import SECTOR

Lie = Callable[[int, bytes], bytes]


def garbled(seed: int) -> Lie:
    """A few bits are others."""

    def lie(first_sector: int, data: bytes) -> bytes:
        dice, wrong = random.Random(seed), bytearray(data)
        for _ in range(dice.choice([1, 1, 2, 50])):
            wrong[dice.randrange(len(wrong))] ^= 1 << dice.randrange(8)
        return bytes(wrong)

    return lie


class PowerCut(Exception):
    """The machine stopped during this device operation."""


class BadSector(Exception):
    """The device reported an error for this operation."""


class Disk:
    """Sectors with a volatile write cache. `operations` counts reads, writes and flushes."""

    def __init__(self, sectors: int) -> None:
        self.capacity = sectors
        self.durable = bytearray(sectors * SECTOR)
        self.cached: dict[int, list[bytes]] = {}  # sector: every version since the last flush
        self.operations = 0
        self.flushes = 0
        self._fault: tuple[int, type[Exception], bool] | None = None
        self._lies: tuple[int, Lie] = (0, lambda first, data: data)

    def fail_at(self, operation: int, error: type[Exception], for_good: bool = False) -> None:
        """Raise `error` in that operation, counted from now; `for_good`: in all after it too."""
        self._fault = (self.operations + operation, error, for_good)

    def lie(self, lie: Lie, reads: int = 1) -> None:
        """The next `reads` reads give what `lie` makes of the first sector and the true bytes."""
        self._lies = reads, lie

    def heal(self) -> None:
        self._fault = None

    def flip(self, sector: int, bit: int) -> None:
        """Change one bit of the medium; bits are counted from the start of the sector."""
        self.durable[sector * SECTOR + bit // 8] ^= 1 << bit % 8

    def read(self, first_sector: int, count: int) -> bytes:
        self._step()
        assert first_sector + count <= self.capacity
        data = b"".join(self._newest(first_sector + n) for n in range(count))
        left, lie = self._lies
        self._lies = max(0, left - 1), lie
        return lie(first_sector, data) if left else data

    def ahead(self, first_sector: int, count: int) -> None:
        """A hint; `UnderWay` in tests/servers/driver.py is the disk that takes it."""
        assert first_sector + count <= self.capacity

    def write(self, first_sector: int, data: Bytes) -> None:
        assert data
        assert len(data) % SECTOR == 0
        assert first_sector + len(data) // SECTOR <= self.capacity
        self._step(lambda: self._cache(first_sector, data))

    def flush(self) -> None:
        """Persist the cache. If that fails, what was in it is lost, as on real disks."""
        try:
            self._step()
        except BadSector:
            self.cached.clear()
            raise
        for sector in self.cached:
            self._persist(sector, self._newest(sector))
        self.cached.clear()
        self.flushes += 1

    def after_power_cut(self, seed: int) -> Disk:
        """What the next boot finds: of each sector any version since the last flush."""
        dice = random.Random(seed)
        after = Disk(self.capacity)
        after.durable[:] = self.durable
        for sector, versions in self.cached.items():
            if chosen := dice.choice([b"", *versions]):
                after._persist(sector, chosen)
        return after

    def _step(self, torn: Callable[[], None] = lambda: None) -> None:
        """Count, fail if it is time, else do it. A write cut by the power may have got there."""
        self.operations += 1
        if self._fault is not None:
            when, error, for_good = self._fault
            if self.operations == when and error is PowerCut:
                torn()
            if self.operations == when or (for_good and self.operations > when):
                raise error
        torn()

    def _cache(self, first: int, data: Bytes) -> None:
        for n in range(len(data) // SECTOR):
            piece = bytes(data[n * SECTOR : (n + 1) * SECTOR])
            self.cached.setdefault(first + n, []).append(piece)

    def _newest(self, sector: int) -> bytes:
        if versions := self.cached.get(sector):
            return versions[-1]
        return bytes(self.durable[sector * SECTOR : (sector + 1) * SECTOR])

    def _persist(self, sector: int, data: bytes) -> None:
        self.durable[sector * SECTOR : (sector + 1) * SECTOR] = data
