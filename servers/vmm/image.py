"""image: a frozen machine as bytes, for a file or another monitor. Pages of zeros are left out.

    HEAD     magic and version, bytes of memory, bytes of state
    state    processor, board and devices
    pages    a byte for each page of memory: 1 when it has content, or 0
    content  of those pages
    SUM      CRC of all that is before it

Neither side waits for the other to sum it up: it is made of memory that must stay as it is, and
summed up as it leaves piece by piece, and again as the pieces arrive.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple
from zlib import crc32

MAGIC = b"uKVM\x02\0\0\0"
HEAD = struct.Struct("<8sQQ")
SUM = struct.Struct("<I")
WHOLE = crc32(SUM.pack(0))  # the CRC of anything that ends with its own CRC
PAGE = 4096
BLOCK = 64 << 10  # bytes that are looked at once
ZEROS, NOTHING = bytes(BLOCK), bytes(PAGE)  # in a block, in a page
EMPTY, CONTENT = b"\0", b"\1"  # pages


class BadImage(Exception):
    """It is not a whole image of a machine that fits here; the text says why."""


class Run(NamedTuple):
    """Pages that follow each other, all with content or all without."""

    begin: int  # bytes
    end: int
    content: bool


class Image:
    """Of a machine with this state and this memory."""

    def __init__(self, state: bytes, memory: memoryview) -> None:
        pages = _pages(memory)
        head = HEAD.pack(MAGIC, len(memory), len(state)) + state + pages
        content = [memory[run.begin : run.end] for run in _runs(pages) if run.content]
        self._pieces = [memoryview(head), *content]
        *self._begins, self._end = accumulate(map(len, self._pieces), initial=0)
        self.size = self._end + SUM.size
        self._crc, self._summed = 0, 0  # of so many bytes from the first one

    def fill(self, offset: int, into: memoryview) -> int:
        """Put what is at `offset` into memory, as much as there is room for; how many bytes."""
        end = max(offset, min(offset + len(into), self.size))
        at = 0
        for piece in self._between(offset, min(end, self._end)):
            into[at : at + len(piece)] = piece
            at += len(piece)
        self._sum_up(min(end, self._end))
        if end > self._end:
            last = SUM.pack(self._crc)[offset + at - self._end : end - self._end]
            into[at : at + len(last)] = last
        return end - offset

    def _sum_up(self, end: int) -> None:
        for piece in self._between(self._summed, end):
            self._crc = crc32(piece, self._crc)
        self._summed = max(self._summed, end)

    def _between(self, begin: int, end: int) -> Iterator[memoryview]:
        number = bisect_right(self._begins, begin) - 1
        while begin < end:
            at = begin - self._begins[number]
            piece = self._pieces[number][at : at + end - begin]
            yield piece
            begin, number = begin + len(piece), number + 1


class Arriving:
    """An image that comes piece by piece, into memory which nobody else writes."""

    def __init__(self, room: memoryview) -> None:
        self._room, self._crc = room, 0
        self.size = 0  # bytes that have come

    def take(self, offset: int, piece: memoryview) -> None:
        """Keep what is new of it. Raises BadImage."""
        if offset > self.size:
            raise BadImage(f"a piece of {len(piece)} bytes at {offset}, after {self.size} bytes")
        begin, end = self.size, offset + len(piece)
        if end > len(self._room):
            raise BadImage(f"it has more than the {len(self._room)} bytes that it could have here")
        if end > begin:
            self._room[begin:end] = piece[begin - offset :]
            self._crc = crc32(self._room[begin:end], self._crc)
            self.size = end

    def state(self, memory: int) -> bytes:
        """The state of a machine with so much memory, if all of it has come. Raises BadImage."""
        data = self._room[: self.size]
        if len(data) < HEAD.size + SUM.size:
            raise BadImage(f"{len(data)} bytes are no image of a virtual machine")
        magic, size, length = HEAD.unpack_from(data)
        if magic != MAGIC:
            raise BadImage("it is no image of a virtual machine, or one of another version")
        if size != memory:
            raise BadImage(f"its machine has {size} bytes of memory, and this one {memory}")
        pages, at = self._parts(size, length)
        used = pages.count(CONTENT)
        if used + pages.count(EMPTY) != size // PAGE or len(data) != at + used * PAGE + SUM.size:
            raise BadImage("there is not all of it, or more")
        if self._crc != WHOLE:
            raise BadImage("its checksum is wrong: it has been changed")
        return bytes(data[HEAD.size : HEAD.size + length])

    def unfold(self, memory: memoryview) -> None:
        """Have its memory in `memory`; `state` has checked it."""
        _, size, length = HEAD.unpack_from(self._room)
        pages, at = self._parts(size, length)
        for begin, end, content in _runs(pages):
            if content:
                memory[begin:end] = self._room[at : at + end - begin]
                at += end - begin
            else:
                _clear(memory[begin:end])

    def _parts(self, size: int, length: int) -> tuple[bytes, int]:
        """What is said of its pages, and where their content begins."""
        begin = HEAD.size + length
        end = begin + size // PAGE
        return bytes(self._room[begin : min(end, self.size)]), end


def overhead(memory: int) -> int:
    """Bytes that an image has at most besides state and memory."""
    return HEAD.size + memory // PAGE + SUM.size


def _pages(memory: memoryview) -> bytes:
    found = bytearray()
    for begin in range(0, len(memory), BLOCK):
        block = bytes(memory[begin : begin + BLOCK])
        pages = range(0, len(block), PAGE)
        if ZEROS.startswith(block):
            found += EMPTY * len(pages)
        else:
            found += bytes(not block.startswith(NOTHING, at) for at in pages)
    return bytes(found)


def _runs(pages: bytes) -> Iterator[Run]:
    begin = 0
    while begin < len(pages):
        content = pages.startswith(CONTENT, begin)
        end = pages.find(EMPTY if content else CONTENT, begin)
        end = len(pages) if end < 0 else end
        yield Run(begin * PAGE, end * PAGE, content)
        begin = end


def _clear(memory: memoryview) -> None:
    for begin in range(0, len(memory), BLOCK):
        memory[begin : begin + BLOCK] = ZEROS[: len(memory) - begin]
