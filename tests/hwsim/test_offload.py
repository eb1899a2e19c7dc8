"""Checksums and segments in software: what comes out is what a real card would have sent."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hwsim import card
from tests.hwsim.card import ALL, checks_out, segment, unchecked
from ukernel.abi import virtio
from ukernel.abi.virtio import NET_HEADER, NetHeader
from ukernel.lib.virtio.offload import CAME, PLAIN, BadFrame, complete, cut, ones, real, suits

FIN, PSH, ACK, CWR = 0x01, 0x08, 0x10, 0x80


@given(st.binary(max_size=200))
def test_the_sum_is_that_of_rfc_1071(data: bytes) -> None:
    assert ones(memoryview(data)) == card.ones(data)


@pytest.mark.parametrize("size", [4095, 4096, 4097, 8192, 65535])
def test_the_sum_of_long_texts(size: int) -> None:
    data = bytes((7 * n) & 0xFF for n in range(size))
    assert ones(memoryview(data)) == card.ones(data)
    assert ones(memoryview(bytes(size))) == 0
    assert ones(memoryview(b"\xff" * size)) == card.ones(b"\xff" * size)


@given(st.binary(max_size=300))
def test_a_checksum_is_completed(payload: bytes) -> None:
    frame = segment(payload)
    (whole,) = real(NET_HEADER.pack(*unchecked()), frame)
    assert checks_out(bytes(whole))
    assert whole[:50] + whole[52:] == frame[:50] + frame[52:]


def test_a_frame_that_needs_nothing_is_itself() -> None:
    frame = segment(b"x")
    assert real(PLAIN, frame) == real(CAME, frame) == [frame]
    assert real(CAME, frame)[0] is frame


def test_a_sum_of_nothing_is_sent_as_all_ones() -> None:
    frame = bytearray(14) + b"\xff\xff\0\0"
    complete(frame, 14, 2)
    assert frame[16:] == b"\xff\xff"


def test_a_checksum_beyond_the_frame_is_refused() -> None:
    with pytest.raises(BadFrame, match="a checksum at 50 of 20 bytes"):
        complete(bytearray(20), 34, 16)


@given(
    st.integers(1, 3000),
    st.integers(100, 1460),
    st.sampled_from([0, 12]),
    st.integers(0, (1 << 32) - 1),
)
def test_a_segment_is_cut_into_frames(size: int, piece: int, options: int, seq: int) -> None:
    payload = bytes((13 * n) & 0xFF for n in range(size))
    flags = FIN | PSH | ACK | CWR
    frame = segment(payload, flags, seq, options=options)
    frames = [bytes(each) for each in cut(frame, piece)]
    head = 54 + options
    assert b"".join(each[head:] for each in frames) == payload
    assert len(frames) == -(-size // piece)
    at = 0
    for index, each in enumerate(frames):
        last = index == len(frames) - 1
        assert checks_out(each)
        assert struct.unpack_from(">HH", each, 16) == (len(each) - 14, 77 + index & 0xFFFF)
        assert struct.unpack_from(">I", each, 38) == ((seq + at) & 0xFFFF_FFFF,)
        assert each[47] == ACK | (FIN | PSH if last else 0) | (CWR if not index else 0)
        assert each[:16] + each[20:24] == frame[:16] + frame[20:24]
        at += len(each) - head


def test_a_segment_without_payload_is_one_frame() -> None:
    (only,) = cut(segment(b"", FIN | ACK), 1000)
    assert checks_out(bytes(only))


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (12, 0x86, "not IPv4"),
        (14, 0x65, "not TCP over IPv4"),
        (14, 0x44, "not TCP over IPv4"),
        (14, 0x4F, "not TCP over IPv4"),
        (23, 17, "not TCP over IPv4"),
        (46, 0x40, "a TCP header that ends at 50"),
        (46, 0xF0, "a TCP header that ends at 94"),
    ],
)
def test_what_is_no_segment_is_not_cut(at: int, value: int, why: str) -> None:
    frame = bytearray(segment(b"abc"))
    frame[at] = value
    with pytest.raises(BadFrame, match=why):
        cut(frame, 1000)


@given(st.binary(max_size=120), st.integers(-1, 100))
def test_whatever_the_bytes_are(frame: bytes, size: int) -> None:
    with contextlib.suppress(BadFrame):
        assert cut(frame, size)


def test_who_takes_what() -> None:
    sums = virtio.NET_F_GUEST_CSUM
    assert suits(1, 1, ALL)
    assert suits(1, 0, sums)
    assert not suits(1, 1, sums)
    assert not suits(1, 0, 0)
    assert not suits(2, 0, 0), "nor a word about checksums (§5.1.6.4.1)"
    assert suits(0, 0, 0)


def test_a_header_that_comes_has_one_buffer() -> None:
    assert NetHeader(*NET_HEADER.unpack(CAME)) == NetHeader(num_buffers=1)
