"""chain: where the blocks of a file lie, read from the file itself and remembered.

littlefs keeps a file as a list from its last block to its first (SPEC.md, "CTZ skip-lists"). Block
n > 0 begins with the addresses of blocks n - 1, n - 2, n - 4, ...: one for each time that 2 divides
n, and one more; the rest is content. To find one block littlefs walks there from the last, again
for each; here what a walk has seen is kept. That is right for as long as nobody writes to the file.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

ADDRESS = struct.Struct("<I")
UNKNOWN = 0  # the superblock is there, so no file is

ReadBlock = Callable[[int, int], memoryview]  # its first bytes: (block, how many)


class Piece(NamedTuple):
    """Bytes of a block that are content."""

    block: int
    start: int
    end: int


class NotAChain(Exception):
    """An address points out of the volume."""


class Chain:
    """A file of `size` bytes whose last block is `head`. `read` gives the start of a block."""

    def __init__(
        self, head: int, size: int, block_bytes: int, blocks: int, read: ReadBlock
    ) -> None:
        self._block_bytes = block_bytes
        self._blocks = blocks
        self._read = read
        self._last = position(size - 1, block_bytes)[0]
        self._known = array("I", bytes(4 * (self._last + 1)))
        self._learn(self._last, head)

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """What `length` bytes from `offset` consist of; all of them are inside the file."""
        number, start = position(offset, self._block_bytes)
        while length > 0:
            end = min(self._block_bytes, start + length)
            yield Piece(self._known[number] or self._find(number), start, end)
            length -= end - start
            number += 1
            start = pointers(number) * ADDRESS.size

    def _find(self, number: int) -> int:
        """The address of a block: a later one has it, the further away the better."""
        step = number & -number or 1 << self._last.bit_length()
        while number + step > self._last:
            step >>= 1
        later = number + step
        block = self._known[later] or self._find(later)
        count = pointers(later)
        addresses = self._read(block, count * ADDRESS.size)
        for power, (address,) in enumerate(ADDRESS.iter_unpack(addresses)):
            self._learn(later - (1 << power), address)
        return self._known[number]

    def _learn(self, number: int, address: int) -> None:
        if not 0 < address < self._blocks:
            raise NotAChain(f"block {number} of the file at {address} of {self._blocks}")
        self._known[number] = address


def pointers(number: int) -> int:
    """Addresses at the start of a file's block `number`."""
    return (number & -number).bit_length()


def position(offset: int, block_bytes: int) -> tuple[int, int]:
    """(block of the file, byte in it) of a byte of the content; littlefs's lfs_ctz_index."""
    content = block_bytes - 2 * ADDRESS.size  # of a block, on the average
    number = offset // content
    if number:
        number = (offset - ADDRESS.size * ((number - 1).bit_count() + 2)) // content
        offset -= content * number + ADDRESS.size * number.bit_count()
    return number, offset
