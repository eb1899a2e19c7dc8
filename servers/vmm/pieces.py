"""pieces: the data of a block request, however its guest has cut it, as calls that move whole
sectors. Pure.

A run of whole sectors that lies together is one piece. A sector that does not is a piece too: it
takes a way of its own, by memory of the monitor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from servers.vmm.guest_memory import Span
from ukernel.abi.services import SECTOR


class Piece(NamedTuple):
    """Some sectors of a request, the first of them `at`; in one span, or one sector in several."""

    at: int
    spans: tuple[Span, ...]

    @property
    def together(self) -> bool:
        return len(self.spans) == 1


def cut(spans: Iterable[Span]) -> list[Piece]:
    """All of `spans`, which hold a whole number of sectors."""
    pieces: list[Piece] = []
    odd: list[Span] = []  # a sector that has begun
    at = missing = 0  # and how much of it is still to come
    for span in spans:
        offset, length = span
        if missing:
            part = min(missing, length)
            odd.append(Span(offset, part))
            offset, length, missing = offset + part, length - part, missing - part
            if not missing:
                pieces.append(Piece(at, tuple(odd)))
                at += 1
        count, rest = divmod(length, SECTOR)
        if count:
            pieces.append(Piece(at, (Span(offset, count * SECTOR),)))
            at += count
        if rest:
            odd, missing = [Span(offset + count * SECTOR, rest)], SECTOR - rest
    return pieces
