"""The internet checksum against the plain sum of RFC 1071 §4.1, and its examples."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.net import checksum


def plain(data: bytes) -> int:
    """Word for word, as the RFC writes it."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(st.binary(max_size=200))
def test_is_the_plain_sum(data: bytes) -> None:
    assert checksum.ones(data) == plain(data)
    assert checksum.ones(memoryview(data)) == plain(data)


@pytest.mark.parametrize("length", [4095, 4096, 4097, 8192, 9001, 65534, 65535])
def test_long_texts_are_added_in_pieces(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert checksum.ones(data) == plain(data)


@pytest.mark.parametrize("length", [0, 1, 2, 20, 8192])
def test_zeros_and_ones_are_not_mixed_up(length: int) -> None:
    assert checksum.ones(bytes(length)) == 0
    assert checksum.ones(b"\xff" * length) == plain(b"\xff" * length)
    assert checksum.ones(b"\xff\xfe\x00\x01" + bytes(length)) == 0xFFFF


def test_example_of_rfc_1071() -> None:
    assert checksum.ones(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2
    assert checksum.finish(0xDDF2) == 0x220D


def test_example_of_rfc_1624() -> None:
    # §4: HC = 0xDD2F, m = 0x5555, m' = 0x3285 gives 0x0000, where RFC 1141 gave 0xFFFF.
    assert checksum.replace(0xDD2F, 0x5555, 0x3285) == 0


@given(st.binary(min_size=20, max_size=60), st.integers(0, 0xFFFF))
def test_verify_finds_every_single_wrong_word(data: bytes, value: int) -> None:
    header = data[:10] + b"\0\0" + data[12:]
    whole = header[:10] + checksum.finish(checksum.ones(header)).to_bytes(2, "big") + header[12:]
    assert checksum.verify(whole)
    changed = value.to_bytes(2, "big") + whole[2:]
    same = checksum.fold(value) % 0xFFFF == int.from_bytes(whole[:2], "big") % 0xFFFF
    assert checksum.verify(changed) == (same and any(changed))


@given(st.binary(min_size=4, max_size=40), st.integers(0, 0xFFFF))
def test_replace_is_adding_up_again(data: bytes, new: int) -> None:
    data = b"\x01\x00" + data  # a header is never all zeros
    changed = data[:2] + new.to_bytes(2, "big") + data[4:]
    old = int.from_bytes(data[2:4], "big")
    before = checksum.finish(checksum.ones(data))
    assert checksum.replace(before, old, new) == checksum.finish(checksum.ones(changed))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 255), st.data())
def test_pseudo_is_the_sum_of_the_pseudo_header(
    source: int, destination: int, protocol: int, data: st.DataObject
) -> None:
    length = data.draw(st.integers(0, 65535))
    header = source.to_bytes(4, "big") + destination.to_bytes(4, "big")
    header += bytes([0, protocol]) + length.to_bytes(2, "big")
    assert checksum.pseudo(source, destination, protocol, length) == plain(header)
