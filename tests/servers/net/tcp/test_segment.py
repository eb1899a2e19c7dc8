"""TCP headers and options: what is packed is parsed; foreign bytes are Malformed or a Segment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.net.malformed import Malformed
from servers.net.tcp import segment as tcp

u32 = st.integers(0, 2**32 - 1)


def header(options: bytes = b"", payload: bytes = b"") -> memoryview:
    return memoryview(tcp.pack_header(1, 2, 3, 4, tcp.ACK, 5, options) + payload)


@given(u32, u32, st.integers(0, 63), st.integers(0, 65535), st.binary(max_size=9))
def test_a_packed_segment_is_parsed(
    seq: int, ack: int, flags: int, window: int, data: bytes
) -> None:
    got = tcp.parse(memoryview(tcp.pack_header(80, 99, seq, ack, flags, window, b"") + data))
    assert tuple(got) == (80, 99, seq, ack, flags, window, tcp.NO_OPTIONS, data)


@given(
    st.integers(0, 65535),
    st.integers(-1, 14),
    st.booleans(),
    st.none() | st.tuples(u32, u32),
    st.lists(st.tuples(u32, u32), max_size=2),
)
def test_packed_options_are_parsed(
    mss: int,
    scale: int,
    permitted: bool,
    stamp: tuple[int, int] | None,
    sack: list[tuple[int, int]],
) -> None:
    blocks = () if permitted else tuple(sack)  # never together: there is no room for both
    packed = tcp.pack_options(mss, scale, permitted, stamp, blocks)
    assert len(packed) % 4 == 0
    assert tcp.parse(header(packed)).options == tcp.Options(mss, scale, permitted, stamp, blocks)


def test_sack_blocks_that_do_not_fit_are_left_out() -> None:
    packed = tcp.pack_options(timestamp=(1, 2), sack=((1, 2), (3, 4), (5, 6), (7, 8)))
    assert len(packed) == tcp.OPTION_BYTES
    assert tcp.parse(header(packed)).options.sack == ((1, 2), (3, 4), (5, 6))


@pytest.mark.parametrize(
    "options", [b"\x02\x00\x00\x00", b"\x02\x01\x00\x00", b"\x01\x01\x01\x02", b"\x02\x05\x00\x00"]
)
def test_an_option_of_illegal_length_is_malformed(options: bytes) -> None:
    with pytest.raises(Malformed):
        tcp.parse(header(options))


def test_unknown_options_and_wrong_lengths_are_passed_over() -> None:
    options = tcp.parse(header(b"\xfe\x04\x00\x00\x02\x03\x00\x01\x02\x04\x05\xb4")).options
    assert options == tcp.Options(mss=1460)


def test_a_scale_above_14_is_14() -> None:
    assert tcp.parse(header(b"\x03\x03\xff\x00")).options.scale == 14


@given(st.binary(max_size=80))
def test_foreign_bytes_are_malformed_or_a_segment(data: bytes) -> None:
    try:
        got = tcp.parse(memoryview(data))
    except Malformed:
        return
    assert len(got.payload) <= len(data) - tcp.HEADER_BYTES


@given(u32, st.integers(-(2**31) + 1, 2**31 - 1))
def test_sequence_numbers_are_ordered_around_the_circle(seq: int, step: int) -> None:
    other = (seq + step) % 2**32
    assert tcp.diff(other, seq) == step
    assert tcp.lt(seq, other) == (step > 0)
    assert tcp.le(seq, other) == (step >= 0)
