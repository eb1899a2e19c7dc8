"""ring: a window that moves along a stream of bytes, kept in a fixed piece of memory. Pure.

Positions count the bytes of the stream from its beginning and never wrap; position `p` lies at
`p % size` in the memory. What is valid, and where it begins, the owner of the ring knows.
"""

from __future__ import annotations

from typing import NamedTuple

Bytes = bytes | bytearray | memoryview


class Piece(NamedTuple):
    """Bytes that lie together: where in the memory, and how many."""

    offset: int
    length: int


class Ring:
    """The memory of one direction of a stream, writable; `base` is where it begins in the region
    that others are lent."""

    def __init__(self, memory: memoryview, base: int = 0) -> None:
        self.memory = memory
        self.base = base
        self.size = len(memory)

    def put(self, at: int, data: Bytes) -> None:
        """Store bytes at position `at`; at most `size` of them."""
        offset, first = self.piece(at, len(data))
        view = memoryview(data)
        self.memory[offset : offset + first] = view[:first]
        if first < len(data):
            self.memory[: len(data) - first] = view[first:]

    def get(self, at: int, length: int, into: memoryview) -> None:
        """Copy bytes from position `at` into the first `length` of `into`."""
        offset, first = self.piece(at, length)
        into[:first] = self.memory[offset : offset + first]
        if first < length:
            into[first:length] = self.memory[: length - first]

    def piece(self, at: int, length: int) -> Piece:
        """The part of `length` bytes at position `at` that lies together."""
        offset = at % self.size
        return Piece(offset, min(length, self.size - offset))
