"""cache: a write-back cache of sectors. Every write has reached the device when `sync` returns.

Between two syncs writes may reach the device in any order, in runs as long as possible, or never;
`sync` writes all of them and only then flushes. A read sees every write. What was never read or
written is never made up: littlefs looks at the bytes behind a commit and trusts what it sees.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from ukernel.abi.services import SECTOR, DeviceFailed

LINE = 128  # sectors; one device read brings 64 KiB, since a round trip costs more than the bytes
LINES = 64  # 4 MiB in all
LONGEST_RUN = 512  # sectors in one device write: 256 KiB, what one message could carry as well


class Sectors(Protocol):
    """A disk in sectors of SECTOR bytes. A write is durable after the `flush` that follows it."""

    @property
    def capacity(self) -> int:
        """Sectors on the disk."""

    def read(self, first_sector: int, count: int) -> bytes | memoryview:
        """`count` sectors from `first_sector`."""

    def write(self, first_sector: int, data: bytes) -> None:
        """Write whole sectors from `first_sector`."""

    def flush(self) -> None:
        """Make every write before this one survive a power cut."""


class Line:
    """LINE sectors of the disk; bit n of a mask speaks of sector n of the line."""

    __slots__ = ("data", "dirty", "valid")

    def __init__(self) -> None:
        self.data = bytearray(LINE * SECTOR)
        self.valid = 0
        self.dirty = 0


class SectorCache:
    """LINES lines, least recently used out first. Whatever the device raises passes through;
    after that `drop` before anything else, since some writes may have been lost.
    """

    def __init__(self, device: Sectors) -> None:
        self._device = device
        self._lines: OrderedDict[int, Line] = OrderedDict()
        self._unflushed = True

    def read(self, first: int, count: int) -> bytes:
        """`count` sectors from `first`."""
        return b"".join(
            self._load(number, mask).data[at * SECTOR : (at + length) * SECTOR]
            for number, at, length, mask in _pieces(first, count)
        )

    def write(self, first: int, data: bytes) -> None:
        """Put whole sectors from `first` into the cache."""
        taken = 0
        for number, at, length, mask in _pieces(first, len(data) // SECTOR):
            line = self._line(number)
            size = length * SECTOR
            line.data[at * SECTOR : at * SECTOR + size] = data[taken : taken + size]
            line.valid |= mask
            line.dirty |= mask
            taken += size

    def sync(self) -> None:
        """Make everything that a read can see durable. Costs nothing when it is already."""
        self._push()
        if self._unflushed:
            self._device.flush()
            self._unflushed = False

    def drop(self) -> None:
        """Forget everything, writes too. The device may hold some that were never flushed."""
        self._lines.clear()
        self._unflushed = True

    def _line(self, number: int) -> Line:
        line = self._lines.get(number)
        if line is None:
            if len(self._lines) >= LINES:
                self._evict()
            line = self._lines[number] = Line()
        self._lines.move_to_end(number)
        return line

    def _evict(self) -> None:
        if next(iter(self._lines.values())).dirty:
            self._push()  # all of them: their neighbours make longer runs
        self._lines.popitem(last=False)

    def _load(self, number: int, wanted: int) -> Line:
        line = self._line(number)
        if wanted & ~line.valid:
            self._fill(number, line)
        return line

    def _fill(self, number: int, line: Line) -> None:
        """Read the whole line in one go and keep what was written to it since."""
        first = number * LINE
        count = min(LINE, self._device.capacity - first)
        fresh = self._device.read(first, count)
        if len(fresh) != count * SECTOR:
            raise DeviceFailed(f"sector {first}: {len(fresh)} bytes read, not {count * SECTOR}")
        for at, length in _runs(~line.valid & _mask(0, count)):
            line.data[at * SECTOR : (at + length) * SECTOR] = fresh[
                at * SECTOR : (at + length) * SECTOR
            ]
        line.valid = _mask(0, count)

    def _push(self) -> None:
        """Give the device every dirty sector, in ascending runs."""
        for first, parts in self._dirty_runs():
            self._unflushed = True
            self._device.write(first, b"".join(parts))
        for line in self._lines.values():
            line.dirty = 0

    def _dirty_runs(self) -> Iterator[tuple[int, list[bytearray]]]:
        start, end = 0, -1
        parts: list[bytearray] = []
        for number in sorted(n for n, line in self._lines.items() if line.dirty):
            line = self._lines[number]
            for at, length in _runs(line.dirty):
                first = number * LINE + at
                if first != end or first + length - start > LONGEST_RUN:
                    if parts:
                        yield start, parts
                    start, parts = first, []
                parts.append(line.data[at * SECTOR : (at + length) * SECTOR])
                end = first + length
        if parts:
            yield start, parts


def _mask(at: int, length: int) -> int:
    return ((1 << length) - 1) << at


def _pieces(first: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    """(line, first sector in it, sectors, mask) for each line that the range touches."""
    end = first + count
    while first < end:
        number, at = divmod(first, LINE)
        length = min(LINE - at, end - first)
        yield number, at, length, _mask(at, length)
        first += length


def _runs(mask: int) -> Iterator[tuple[int, int]]:
    """(first bit, length) of each run of ones, ascending."""
    at = 0
    while mask:
        gap = (mask & -mask).bit_length() - 1
        mask >>= gap
        length = (~mask & (mask + 1)).bit_length() - 1
        yield at + gap, length
        mask >>= length
        at += gap + length
