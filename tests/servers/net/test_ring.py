"""A ring is a window onto an endless stream: what was put at a position is found there."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from servers.net.ring import Piece, Ring

SIZES = st.integers(1, 70)
FAR = st.integers(0, 1 << 70)


def stream(at: int, length: int) -> bytes:
    """The bytes of a stream at these positions."""
    return bytes((p * 13 + p // 251) % 256 for p in range(at, at + length))


def ring_of(size: int, base: int = 0) -> tuple[Ring, memoryview]:
    """A ring, and the memory that it lies in with guards on both sides."""
    around = memoryview(bytearray(b"\xee" * (size + 16)))
    return Ring(around[8 : 8 + size], base), around


def found(ring: Ring, at: int, length: int) -> bytes:
    into = memoryview(bytearray(length + 4))
    ring.get(at, length, into)
    assert not any(into[length:])
    return bytes(into[:length])


@given(SIZES, FAR, st.data())
@settings(max_examples=80)
def test_what_was_put_is_found_until_its_place_is_taken(
    size: int, start: int, data: st.DataObject
) -> None:
    ring, around = ring_of(size)
    end = start
    kinds = st.sampled_from((bytes, bytearray, memoryview))
    for _ in range(data.draw(st.integers(1, 6))):
        length = data.draw(st.integers(0, size))
        ring.put(end, data.draw(kinds)(stream(end, length)))
        end += length
        first = max(start, end - size)
        at = data.draw(st.integers(first, end))
        assert found(ring, at, end - at) == stream(at, end - at)
    assert _guarded(around)


def _guarded(around: memoryview) -> bool:
    return bytes(around[:8]) == bytes(around[-8:]) == b"\xee" * 8


@given(SIZES, FAR, st.integers(0, 200), st.integers(0, 1 << 40))
def test_pieces_lie_together_and_make_up_the_whole(
    size: int, at: int, length: int, base: int
) -> None:
    ring, _ = ring_of(size, base)
    assert (ring.size, ring.base) == (size, base)
    whole = stream(at, min(length, size))
    ring.put(at, whole)
    joined = b""
    while len(joined) < len(whole):
        piece = ring.piece(at + len(joined), len(whole) - len(joined))
        assert isinstance(piece, Piece)
        assert piece.length > 0
        assert piece.offset + piece.length <= size
        joined += bytes(ring.memory[piece.offset : piece.offset + piece.length])
    assert joined == whole
    assert ring.piece(at, 0).length == 0
    assert ring.piece(at, length).length <= length


@given(SIZES, st.permutations(range(8)), FAR)
def test_pieces_may_come_in_any_order_and_twice(size: int, order: list[int], at: int) -> None:
    ring, around = ring_of(size)
    cuts = [at + size * n // 8 for n in range(9)]
    for n in (*order, *order[:3]):
        ring.put(cuts[n], stream(cuts[n], cuts[n + 1] - cuts[n]))
    assert found(ring, at, size) == stream(at, size)
    assert _guarded(around)
