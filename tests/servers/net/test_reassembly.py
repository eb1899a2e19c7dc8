"""Datagrams out of fragments: in any order, never wrong, and never more than there is room for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.net import ipv4
from servers.net.malformed import Malformed
from servers.net.reassembly import MOST_BYTES, MOST_DATAGRAMS, PATIENCE_US, PIECE_BYTES, Reassembly


def piece(
    start: int, data: bytes, more: bool = True, ident: int = 1, protocol: int = ipv4.UDP
) -> ipv4.Packet:
    cut = (ipv4.MORE_FRAGMENTS if more else 0) | start // 8
    return ipv4.Packet(1, 2, protocol, ident, cut, 64, 20, memoryview(data))


def pieces(payload: bytes, mtu: int, ident: int = 1) -> list[ipv4.Packet]:
    return [
        ipv4.Packet(1, 2, ipv4.UDP, ident, cut.field, 64, 20, cut.payload)
        for cut in ipv4.fragments(payload, mtu)
    ]


@given(st.data())
def test_any_order_with_duplicates(data: st.DataObject) -> None:
    payload = data.draw(st.binary(min_size=100, max_size=900))
    whole = pieces(payload, data.draw(st.integers(68, 90)))
    order = data.draw(st.permutations(whole))
    again = data.draw(st.integers(0, len(order) - 1))
    held = Reassembly()
    for packet in [*order[:again], *order[:again]]:
        assert held.add(packet, 0) is None
    results = [held.add(packet, 0) for packet in order[again:]]
    assert results[:-1] == [None] * (len(results) - 1)
    last = results[-1]
    assert last is not None
    assert (bytes(last.payload), last.cut, last.ident) == (payload, 0, 1)
    assert (len(held), held.bytes, held.deadline) == (0, 0, 0)


def test_datagrams_do_not_mix() -> None:
    held = Reassembly()
    assert held.add(piece(0, b"a" * 8, ident=1), 0) is None
    assert held.add(piece(0, b"b" * 8, ident=2), 0) is None
    assert held.add(piece(8, b"C", more=False, ident=3), 0) is None
    done = held.add(piece(8, b"B", more=False, ident=2), 0)
    assert done is not None
    assert bytes(done.payload) == b"bbbbbbbbB"


@pytest.mark.parametrize("second", [(8, 16), (0, 24), (0, 16), (16, 16)])
def test_teardrop_is_refused_with_all_that_comes_after_it(second: tuple[int, int]) -> None:
    start, length = second
    held = Reassembly()
    held.add(piece(8, bytes(16)), 0)
    if start + length <= 24 and start >= 8:
        assert held.add(piece(start, b"x" * length), 0) is None  # within: came twice
        return
    with pytest.raises(Malformed, match="overlap"):
        held.add(piece(start, b"x" * length), 0)
    assert (held.bytes, held.dropped) == (0, 1)
    for packet in pieces(bytes(40), 68):
        assert held.add(packet, 1) is None
    held.tick(PATIENCE_US)
    assert len(held) == 0


def test_what_came_twice_stays_what_it_was() -> None:
    held = Reassembly()
    held.add(piece(0, b"a" * 16), 0)
    held.add(piece(0, b"b" * 16), 0)
    done = held.add(piece(16, b"c", more=False), 0)
    assert done is not None
    assert bytes(done.payload) == b"a" * 16 + b"c"


@pytest.mark.parametrize(
    "wrong",
    [
        piece(65528, bytes(8)),  # ping of death: ends behind 65,535
        piece(65512, bytes(9), more=False),
        piece(0, b""),
        piece(8, b"", more=False),
        piece(0, bytes(9)),
        piece(8, bytes(16), protocol=ipv4.TCP),  # RFC 3128
    ],
)
def test_never_part_of_a_datagram(wrong: ipv4.Packet) -> None:
    held = Reassembly()
    with pytest.raises(Malformed):
        held.add(wrong, 0)
    assert len(held) == 0


@pytest.mark.parametrize(
    ("start", "more"), [(32, True), (32, False), (8, False)], ids=["behind", "two ends", "before"]
)
def test_fragments_that_do_not_agree_on_the_end(start: int, more: bool) -> None:
    held = Reassembly()
    held.add(piece(16, bytes(8), more=False), 0)
    with pytest.raises(Malformed):
        held.add(piece(start, bytes(8), more), 0)


def test_a_last_fragment_before_others() -> None:
    held = Reassembly()
    held.add(piece(64, bytes(8)), 0)
    with pytest.raises(Malformed):
        held.add(piece(8, bytes(8), more=False), 0)


def test_the_longest_datagram() -> None:
    payload = random.Random(1).randbytes(65515)
    held = Reassembly()
    *others, last = pieces(payload, 1500)
    assert all(held.add(packet, 0) is None for packet in others)
    done = held.add(last, 0)
    assert done is not None
    assert done.payload == payload


def test_time_runs_out_and_the_beginning_is_known() -> None:
    held = Reassembly()
    held.add(piece(0, b"beginning", more=True)._replace(payload=memoryview(b"beginnin")), 5)
    held.add(piece(8, b"behind..", ident=2), 6)
    assert held.deadline == 5 + PATIENCE_US
    assert held.tick(held.deadline - 1) == []
    (first,) = held.tick(6 + PATIENCE_US)
    assert bytes(first.payload) == b"beginnin"
    assert (len(held), held.bytes, held.deadline, held.dropped) == (0, 0, 0, 2)


def test_the_oldest_makes_room_for_the_65th() -> None:
    held = Reassembly()
    for ident in range(MOST_DATAGRAMS + 1):
        held.add(piece(0, bytes(8), ident=ident), ident)
    assert (len(held), held.dropped) == (MOST_DATAGRAMS, 1)
    assert held.add(piece(8, b"x", more=False, ident=1), 100) is not None
    assert held.add(piece(8, b"x", more=False, ident=0), 100) is None


@pytest.mark.parametrize("length", [8, 1024, 65504])
def test_bytes_are_bounded_whatever_the_size_of_the_fragments(length: int) -> None:
    held = Reassembly()
    each = 65504 // length
    for number in range(2 * MOST_BYTES // (length + PIECE_BYTES)):
        start, ident = number % each * length, number // each
        held.add(piece(start, bytes(length), ident=ident), 0)
        assert held.bytes <= MOST_BYTES
    assert held.dropped
