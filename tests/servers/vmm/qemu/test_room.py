"""Room: no two pieces overlap, and what is given back can be taken again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from servers.vmm.qemu.room import Piece, Room

SIZE = 64


@given(st.lists(st.tuples(st.booleans(), st.integers(1, SIZE))))
def test_pieces_are_apart_and_come_back(deeds: list[tuple[bool, int]]) -> None:
    room, taken = Room(SIZE), list[Piece]()
    for take, number in deeds:
        if not take and taken:
            room.give(taken.pop(number % len(taken)))
        elif take and (piece := room.take(number)):
            taken.append(piece)
            covered = {at for offset, length in taken for at in range(offset, offset + length)}
            assert len(covered) == sum(piece.length for piece in taken)
            assert covered <= set(range(SIZE))
    for piece in taken:
        room.give(piece)
    assert room.take(SIZE) == Piece(0, SIZE)
    assert room.take(1) is None
