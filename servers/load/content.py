"""content: bytes that say by themselves where they belong. Pure; the same in every life.

No two pieces of a file, and no two generations of a small file, have a sector in common, so bytes
of another place or of an earlier time are never taken for the right ones.
"""

from __future__ import annotations

import random
import struct

LARGEST = 128 * 1024  # bytes of one piece
STEP = 257  # odd, so that pieces are shifted against each other and against the sectors
PIECES = 512  # after so many a shift comes back to the border of a sector
POOL = random.Random(1).randbytes(LARGEST + STEP * PIECES)
HEADER = struct.Struct("<QQ")  # which file, which generation of it


def piece(number: int, size: int = LARGEST) -> bytes:
    """The bytes of piece `number` of a large file."""
    start = STEP * (number % PIECES)
    return POOL[start : start + size]


def small(file: int, generation: int, size: int) -> bytes:
    """A small file as one write leaves it."""
    return HEADER.pack(file, generation) + piece(generation, size - HEADER.size)


def generation_of(file: int, content: bytes) -> int:
    """Which generation of `file` these bytes are as a whole; 0: of none."""
    if len(content) < HEADER.size:
        return 0
    found, generation = HEADER.unpack_from(content)
    whole = found == file and content == small(file, generation, len(content))
    return generation if whole else 0
