"""image: a frozen machine as bytes, for a file or another monitor. Pages of zeros are left out.

    HEAD     magic and version, CRC of all that follows, bytes of memory, bytes of state
    memory   the same number again, and the bytes of state (so the CRC covers them)
    state    processor, board and devices
    pages    a bit for each page of memory, the first is the lowest of its byte: it has content
    content  of those pages

It is made of memory that must stay as it is, and piece by piece: nothing is copied before.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

MAGIC = b"uKVM\x01\0\0\0"
HEAD = struct.Struct("<8sI4x")
SIZES = struct.Struct("<QQ")  # of memory, of state
PAGE = 4096
ZEROS = bytes(PAGE)


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
        bits = bytearray(-(-len(memory) // PAGE // 8))
        for page in range(len(memory) // PAGE):
            if bytes(memory[page * PAGE : (page + 1) * PAGE]) != ZEROS:
                bits[page >> 3] |= 1 << (page & 7)
        rest = SIZES.pack(len(memory), len(state)) + state + bytes(bits)
        content = [memory[run.begin : run.end] for run in _runs(bits, len(memory)) if run.content]
        crc = 0
        for piece in (memoryview(rest), *content):
            crc = crc32(piece, crc)
        self._pieces = [memoryview(HEAD.pack(MAGIC, crc) + rest), *content]
        self._begins = [0]
        for piece in self._pieces:
            self._begins.append(self._begins[-1] + len(piece))
        self.size = self._begins.pop()

    def read(self, offset: int, most: int) -> bytes:
        """Bytes from `offset`, at most so many; none at the end."""
        found = bytearray()
        number = bisect_right(self._begins, offset) - 1
        while number < len(self._pieces) and len(found) < most:
            at = offset + len(found) - self._begins[number]
            found += self._pieces[number][at : at + most - len(found)]
            number += 1
        return bytes(found)


def overhead(memory: int) -> int:
    """Bytes that an image has at most besides state and memory."""
    return HEAD.size + SIZES.size + -(-memory // PAGE // 8)


def state_of(data: memoryview, memory: int) -> bytes:
    """The state in an image of a machine with so much memory, if it is whole. Raises BadImage."""
    if len(data) < HEAD.size + SIZES.size:
        raise BadImage(f"{len(data)} bytes are no image of a virtual machine")
    magic, crc = HEAD.unpack_from(data)
    if magic != MAGIC:
        raise BadImage("it is no image of a virtual machine, or one of another version")
    size, length = SIZES.unpack_from(data, HEAD.size)
    if size != memory:
        raise BadImage(f"its machine has {size} bytes of memory, and this one {memory}")
    start = HEAD.size + SIZES.size
    bits = data[start + length : start + length + -(-memory // PAGE // 8)]
    pages = sum(byte.bit_count() for byte in bits)
    if len(data) != start + length + len(bits) + pages * PAGE:
        raise BadImage("there is not all of it, or more")
    if crc32(data[HEAD.size :]) != crc:
        raise BadImage("its checksum is wrong: it has been changed")
    return bytes(data[start : start + length])


def unfold(data: memoryview, memory: memoryview) -> None:
    """Have the memory of an image in `memory`; `state_of` has checked the image."""
    _, length = SIZES.unpack_from(data, HEAD.size)
    start = HEAD.size + SIZES.size + length
    at = start + -(-len(memory) // PAGE // 8)
    for begin, end, content in _runs(bytes(data[start:at]), len(memory)):
        if content:
            memory[begin:end] = data[at : at + end - begin]
            at += end - begin
        else:
            memory[begin:end] = bytes(end - begin)


def _runs(bits: bytes | bytearray, memory: int) -> Iterator[Run]:
    pages = memory // PAGE
    begin = 0
    while begin < pages:
        content, end = _bit(bits, begin), begin + 1
        while end < pages and _bit(bits, end) == content:
            end += 1
        yield Run(begin * PAGE, end * PAGE, content)
        begin = end


def _bit(bits: bytes | bytearray, page: int) -> bool:
    return bool(bits[page >> 3] >> (page & 7) & 1)
