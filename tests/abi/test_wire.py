"""Foreign bytes: a message or the reason why not, a value or Malformed. Never anything else."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ukernel.abi import wire
from ukernel.abi.wire import HEADER, MAX_CAPS, MAX_DEPTH, MAX_ELEMENTS, MAX_FRAME, Malformed

BYTE, U16, U64 = st.integers(0, 255), st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1)
TOKEN = st.binary(min_size=16, max_size=16)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.binary(max_size=300))
@example(b"")
@example(bytes([wire.VERSION, wire.CALL, 0, 255]) + bytes(36))
def test_decode_never_raises(frame: bytes) -> None:
    assert isinstance(wire.decode(frame), wire.Message | str)


@given(BYTE, BYTE, U16, U16, U64, U64, TOKEN, st.lists(TOKEN, max_size=MAX_CAPS), st.binary())
def test_what_is_encoded_is_decoded(
    op: int,
    flags: int,
    opcode: int,
    status: int,
    seq: int,
    deadline_ns: int,
    token: bytes,
    caps: list[bytes],
    body: bytes,
) -> None:
    frame = wire.encode(
        op, flags=flags, opcode=opcode, status=status, seq=seq, deadline_ns=deadline_ns,
        token=token, caps=tuple(caps), body=body,
    )  # fmt: skip
    expected = (op, flags, opcode, status, seq, deadline_ns, token, tuple(caps), body)
    assert wire.decode(frame) == expected


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (bytes(HEADER.size - 1), "truncated: 39 bytes"),
        (bytes(MAX_FRAME + 1), "too large"),
        (b"\xff" + bytes(HEADER.size), "version 255, this kernel speaks 1"),
        (wire.encode(wire.CALL, caps=(bytes(16),) * 5), "5 capabilities, at most 4"),
        (wire.encode(wire.CALL, caps=(bytes(16),))[:-1], "truncated: 1 capabilities announced"),
    ],
)
def test_what_is_no_message_says_why(frame: bytes, why: str) -> None:
    decoded = wire.decode(frame)
    assert isinstance(decoded, str)
    assert decoded.startswith(why)


def test_the_largest_frame_is_a_message() -> None:
    assert isinstance(wire.decode(b"\x01" + bytes(MAX_FRAME - 1)), wire.Message)


@given(PLAIN)
def test_what_is_packed_is_unpacked(value: Any) -> None:
    assert wire.unpack(wire.pack(value)) == value


@given(st.binary(max_size=200))
@example(b"\xd6\xff\x00\x00\x00\x00")  # a timestamp
@example(b"\xc7\x0c\xff" + b"\xff" * 12)  # a timestamp that is none
@example(b"\x81\x91\x01\x02")  # a key that cannot be one
@example(b"\xa1\xff")  # text that is not UTF-8
@example(b"\xdd\xff\xff\xff\xff")  # four billion elements, announced
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xc1")
def test_unpack_raises_malformed_and_nothing_else(body: bytes) -> None:
    with contextlib.suppress(Malformed):
        wire.unpack(body)


def nested(depth: int) -> bytes:
    return b"\x91" * (depth - 1) + b"\x90"


@pytest.mark.parametrize(
    "body",
    [
        nested(MAX_DEPTH + 1),
        b"\x81\xa1a" * MAX_DEPTH + b"\x80",
        b"\x82\xa1a" + nested(MAX_DEPTH) + b"\xa1b\x01",
        nested(600),
        nested(100_000),
        b"\x91" * 100_000,
        b"\x80" * (1 << 20),
        b"\xdc" + (MAX_ELEMENTS + 1).to_bytes(2, "big") + b"\x80" * (MAX_ELEMENTS + 1),
        b"\xde" + (MAX_ELEMENTS + 1).to_bytes(2, "big"),
        b"\x82\xa1a\x01\xa1a\x02",
        b"\x91\x82\xa1a\x01\xa1a\x02",
        wire.pack([1]) + b"\x00",
        wire.pack("cut off")[:-1],
        b"",
    ],
    ids=[
        "a level too deep", "maps too deep", "deep among shallow", "600 arrays", "100,000 arrays",
        "100,000 arrays without an end", "a megabyte of empty maps", "an element too many",
        "a pair too many", "duplicate key", "duplicate key inside", "trailing bytes", "truncated",
        "nothing",
    ],
)  # fmt: skip
def test_beyond_the_limits_is_malformed_and_soon(body: bytes) -> None:
    began = time.process_time()
    with pytest.raises(Malformed):
        wire.unpack(body)
    assert time.process_time() - began < 1


def test_up_to_the_limits_is_fine() -> None:
    assert wire.unpack(nested(MAX_DEPTH)) is not None
    assert len(wire.unpack(wire.pack([0] * MAX_ELEMENTS))) == MAX_ELEMENTS


def test_a_value_that_cannot_be_packed_spoils_nothing() -> None:
    """The packer is shared: what it had written of the failure must not come with the next."""
    with pytest.raises(TypeError):
        wire.pack([1, 2, object()])
    assert wire.pack([3]) == msgpack.packb([3])
