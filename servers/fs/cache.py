"""cache: a write-back cache of payloads. Every write has reached the device when `sync` returns.

Between two syncs writes may reach the device in any order, in runs as long as possible, or never;
`sync` writes all of them and only then flushes. A read sees every write. What was never read or
written is never made up: littlefs looks at the bytes behind a commit and trusts what it sees.
A sector that is wrong on the disk fails the reads of that sector, not those of its neighbours.
Who reads line after line has the next ones asked for ahead.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from servers.fs.integrity import LINE, LONGEST_RUN, PAYLOAD, Bytes
from servers.fs.readahead import ReadAhead

LINES = 64  # 4 MiB in all


class Payloads(Protocol):
    """Sectors of PAYLOAD bytes. A write is durable after the `flush` that follows it."""

    @property
    def capacity(self) -> int:
        """How many there are."""

    def read(self, first: int, count: int, needed: int) -> tuple[bytes, int]:
        """`count` sectors from `first`, inside one line, and a mask of those that are wrong.

        Raises if one of the mask `needed` is.
        """

    def ahead(self, first: int, count: int) -> None:
        """Say that these sectors will probably be read soon."""

    def write(self, first: int, payloads: Bytes) -> None:
        """Write whole sectors from `first`, at most LONGEST_RUN; kept by nobody afterwards."""

    def flush(self) -> None:
        """Make every write before this one survive a power cut."""


class Line:
    """LINE sectors of the disk; bit n of a mask speaks of sector n of the line."""

    __slots__ = ("dirty", "valid", "view")

    def __init__(self) -> None:
        self.view = memoryview(bytearray(LINE * PAYLOAD))
        self.valid = 0
        self.dirty = 0


class SectorCache:
    """LINES lines, least recently used out first. Whatever the device raises passes through;
    after that `drop` before anything else, since some writes may have been lost.
    """

    def __init__(self, device: Payloads) -> None:
        self._device = device
        self._lines: OrderedDict[int, Line] = OrderedDict()
        self._readahead = ReadAhead()
        self._run = memoryview(bytearray(LONGEST_RUN * PAYLOAD))  # what is being written
        self._unflushed = True

    def read(self, first: int, count: int) -> memoryview:
        """`count` sectors from `first`, all in one line. Valid until the next call."""
        number, at = divmod(first, LINE)
        line = self._lines.get(number)
        if line is None:
            line = self._make(number)
        else:
            self._lines.move_to_end(number)
        missing = ((1 << count) - 1 << at) & ~line.valid
        if missing:
            self._fill(number, line, missing)
        return line.view[at * PAYLOAD : (at + count) * PAYLOAD]

    def write(self, first: int, data: bytes, skipped: int = 0) -> None:
        """Put bytes from sector `first` on, without the first `skipped` of it, into its line.

        A last sector that is not here and gets only its beginning ends in zeros.
        """
        number, at = divmod(first, LINE)
        line = self._lines.get(number) or self._make(number)
        self._lines.move_to_end(number)
        if skipped and not line.valid >> at & 1:
            self._fill(number, line, 1 << at)
        start = at * PAYLOAD + skipped
        end = start + len(data)
        mask = _mask(at, -(-end // PAYLOAD) - at)
        line.view[start:end] = data
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
        self._readahead = ReadAhead()
        self._unflushed = True

    def _make(self, number: int) -> Line:
        if len(self._lines) >= LINES:
            self._evict()
        line = self._lines[number] = Line()
        return line

    def _evict(self) -> None:
        if next(iter(self._lines.values())).dirty:
            self._push()  # all of them: their neighbours make longer runs
        self._lines.popitem(last=False)

    def _fill(self, number: int, line: Line, needed: int) -> None:
        """Read the whole line in one go and keep what was written to it since."""
        first = number * LINE
        count = min(LINE, self._device.capacity - first)
        self._ask_ahead(self._readahead.read(number))
        payloads, wrong = self._device.read(first, count, needed)
        fresh = _mask(0, count) & ~line.valid & ~wrong
        source = memoryview(payloads)
        for at, length in _runs(fresh):
            window = slice(at * PAYLOAD, (at + length) * PAYLOAD)
            line.view[window] = source[window]
        line.valid |= fresh

    def _ask_ahead(self, lines: range) -> None:
        """Ask the disk for those that are not here; a line that was just made is empty."""
        wanted = [n for n in lines if n not in self._lines or not self._lines[n].valid]
        if wanted:
            first, end = wanted[0] * LINE, min((wanted[-1] + 1) * LINE, self._device.capacity)
            if first < end:
                self._device.ahead(first, end - first)

    def _push(self) -> None:
        """Give the device every dirty sector, in ascending runs."""
        start = count = 0
        for first, payloads in self._dirty():
            length = len(payloads) // PAYLOAD
            if count and (first != start + count or count + length > LONGEST_RUN):
                self._write(start, count)
                count = 0
            start = start if count else first
            self._run[count * PAYLOAD : (count + length) * PAYLOAD] = payloads
            count += length
        if count:
            self._write(start, count)
        for line in self._lines.values():
            line.dirty = 0

    def _write(self, first: int, count: int) -> None:
        self._unflushed = True
        self._device.write(first, self._run[: count * PAYLOAD])

    def _dirty(self) -> Iterator[tuple[int, memoryview]]:
        """The runs of each line: first sector, payloads."""
        for number in sorted(n for n, line in self._lines.items() if line.dirty):
            line = self._lines[number]
            for at, length in _runs(line.dirty):
                yield number * LINE + at, line.view[at * PAYLOAD : (at + length) * PAYLOAD]


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
