"""cache: a write-back cache of payloads. Every write has reached the device when `sync` returns.

Between two syncs writes may reach the device in any order, in runs as long as possible, or never;
`sync` writes all of them and only then flushes. A read sees every write. What was never read or
written is never made up: littlefs looks at the bytes behind a commit and trusts what it sees.
A sector that is wrong on the disk fails the reads of that sector, not those of its neighbours.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from servers.fs.integrity import LINE, PAYLOAD

LINES = 64  # 4 MiB in all
LONGEST_RUN = 512  # sectors in one device write: 256 KiB, what one message could carry as well


class Payloads(Protocol):
    """Sectors of PAYLOAD bytes. A write is durable after the `flush` that follows it."""

    @property
    def capacity(self) -> int:
        """How many there are."""

    def read(self, first: int, count: int, needed: int) -> tuple[bytes, int]:
        """`count` sectors from `first`, inside one line, and a mask of those that are wrong.

        Raises if one of the mask `needed` is.
        """

    def write(self, first: int, payloads: bytes) -> None:
        """Write whole sectors from `first`."""

    def flush(self) -> None:
        """Make every write before this one survive a power cut."""


class Line:
    """LINE sectors of the disk; bit n of a mask speaks of sector n of the line."""

    __slots__ = ("data", "dirty", "valid")

    def __init__(self) -> None:
        self.data = bytearray(LINE * PAYLOAD)
        self.valid = 0
        self.dirty = 0


class SectorCache:
    """LINES lines, least recently used out first. Whatever the device raises passes through;
    after that `drop` before anything else, since some writes may have been lost.
    """

    def __init__(self, device: Payloads) -> None:
        self._device = device
        self._lines: OrderedDict[int, Line] = OrderedDict()
        self._unflushed = True

    def read(self, first: int, count: int) -> bytearray:
        """`count` sectors from `first`, all in one line."""
        number, at = divmod(first, LINE)
        line = self._line(number)
        missing = _mask(at, count) & ~line.valid
        if missing:
            self._fill(number, line, missing)
        return line.data[at * PAYLOAD : (at + count) * PAYLOAD]

    def write(self, first: int, data: bytes) -> None:
        """Put whole sectors from `first`, all in one line, into the cache."""
        number, at = divmod(first, LINE)
        line = self._line(number)
        mask = _mask(at, len(data) // PAYLOAD)
        line.data[at * PAYLOAD : at * PAYLOAD + len(data)] = data
        line.valid |= mask
        line.dirty |= mask

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

    def _fill(self, number: int, line: Line, needed: int) -> None:
        """Read the whole line in one go and keep what was written to it since."""
        first = number * LINE
        count = min(LINE, self._device.capacity - first)
        payloads, wrong = self._device.read(first, count, needed)
        fresh = _mask(0, count) & ~line.valid & ~wrong
        source = memoryview(payloads)
        for at, length in _runs(fresh):
            window = slice(at * PAYLOAD, (at + length) * PAYLOAD)
            line.data[window] = source[window]
        line.valid |= fresh

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
                parts.append(line.data[at * PAYLOAD : (at + length) * PAYLOAD])
                end = first + length
        if parts:
            yield start, parts


def _mask(at: int, length: int) -> int:
    return ((1 << length) - 1) << at


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
