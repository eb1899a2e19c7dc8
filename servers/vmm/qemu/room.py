"""room: pieces of one memory, of any length up to all of it, taken and given back. Pure.

First fit, in a list of the holes: there are never more of them than pieces taken, and one.
"""

from __future__ import annotations

from bisect import bisect
from typing import NamedTuple


class Piece(NamedTuple):
    offset: int
    length: int


class Room:
    def __init__(self, size: int) -> None:
        self._holes = [Piece(0, size)]  # by offset; no two touch

    def take(self, length: int) -> Piece | None:
        """So many bytes that lie together, or None while there are not."""
        for at, (offset, free) in enumerate(self._holes):
            if free >= length:
                left = [Piece(offset + length, free - length)] if free > length else []
                self._holes[at : at + 1] = left
                return Piece(offset, length)
        return None

    def give(self, piece: Piece) -> None:
        """Back, and together with the holes beside it."""
        holes, at = self._holes, bisect(self._holes, piece)
        begin, end = at, at
        offset, stop = piece.offset, piece.offset + piece.length
        if at and holes[at - 1].offset + holes[at - 1].length == offset:
            begin, offset = at - 1, holes[at - 1].offset
        if at < len(holes) and holes[at].offset == stop:
            end, stop = at + 1, stop + holes[at].length
        holes[begin:end] = [Piece(offset, stop - offset)]
