"""segment: the TCP header and its options, as bytes and as values. Pure.

Sequence numbers are compared modulo 2**32 (RFC 9293 §3.4): `a` lies before `b` when the way from
`a` to `b` is shorter than half of the circle.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from servers.net.malformed import Malformed

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32

HEADER_BYTES = 20
OPTION_BYTES = 40  # at most, RFC 9293 §3.1
CHECKSUM_AT = 16  # the checksum's place in the header
MASK = 0xFFFFFFFF
_HALF = 0x80000000

_HEADER = struct.Struct(">HHIIBBHHH")  # the last two: checksum, urgent pointer
_TIMESTAMP = struct.Struct(">III")  # two NOPs, kind and length first: RFC 7323 appendix A
_TIMESTAMP_WORD = 0x0101080A
_BLOCK = struct.Struct(">II")

_END, _NOP, _MSS, _SCALE, _SACK_PERMITTED, _SACK, _STAMPS = 0, 1, 2, 3, 4, 5, 8


class Options(NamedTuple):
    """The options that we know. `scale` is -1 and `mss` 0 where they are absent; `timestamp` is
    (TSval, TSecr); `sack` holds the blocks (left edge, right edge) in their order."""

    mss: int = 0
    scale: int = -1
    sack_permitted: bool = False
    timestamp: tuple[int, int] | None = None
    sack: tuple[tuple[int, int], ...] = ()


NO_OPTIONS = Options()


class Segment(NamedTuple):
    """A TCP segment (RFC 9293 §3.1); the ports first, `window` as on the wire."""

    source: int
    destination: int
    seq: int
    ack: int
    flags: int
    window: int
    options: Options
    payload: memoryview


def diff(a: int, b: int) -> int:
    """How far sequence number `a` lies after `b`: -2**31 .. 2**31 - 1."""
    return ((a - b + _HALF) & MASK) - _HALF


def lt(a: int, b: int) -> bool:
    """Sequence number `a` lies before `b`."""
    return (a - b) & MASK >= _HALF


def le(a: int, b: int) -> bool:
    """Sequence number `a` lies before `b`, or is it."""
    return (b - a) & MASK < _HALF


def parse(data: memoryview) -> Segment:
    """Read a segment from its header on; its checksum is not looked at. Raises Malformed."""
    if len(data) < HEADER_BYTES:
        raise Malformed("TCP header cut short")
    source, destination, seq, ack, offset, flags, window, _, _ = _HEADER.unpack_from(data)
    start = (offset >> 4) * 4
    if start == HEADER_BYTES:
        options = NO_OPTIONS
    elif start < HEADER_BYTES or start > len(data):
        raise Malformed("TCP data offset out of range")
    else:
        options = _parse_options(data, start)
    return Segment(source, destination, seq, ack, flags & 0x3F, window, options, data[start:])


def _parse_options(data: memoryview, end: int) -> Options:
    if end == HEADER_BYTES + 12:  # what nearly every segment has: timestamps alone
        word, value, echo = _TIMESTAMP.unpack_from(data, HEADER_BYTES)
        if word == _TIMESTAMP_WORD:
            return Options(0, -1, False, (value, echo), ())
    return _walk(bytes(data[HEADER_BYTES:end]))


def _walk(data: bytes) -> Options:
    """Options one by one (RFC 9293 §3.2). A known one of a wrong length is passed over."""
    options = NO_OPTIONS
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == _NOP:
            at += 1
            continue
        length = data[at + 1] if at + 1 < len(data) else 0
        if length < 2 or at + length > len(data):
            raise Malformed("TCP option of an illegal length")
        options = _with(options, data[at], data[at + 2 : at + length])
        at += length
    return options


def _with(options: Options, kind: int, body: bytes) -> Options:
    match kind, len(body):
        case 2, 2:
            return options._replace(mss=int.from_bytes(body))
        case 3, 1:
            return options._replace(scale=min(body[0], 14))  # RFC 7323 §2.3
        case 4, 0:
            return options._replace(sack_permitted=True)
        case 8, 8:
            return options._replace(timestamp=_BLOCK.unpack(body))
        case 5, 8 | 16 | 24 | 32:
            return options._replace(sack=tuple(_BLOCK.iter_unpack(body)))
    return options


def pack_header(
    source: int, destination: int, seq: int, ack: int, flags: int, window: int, options: bytes
) -> bytes:
    """A header with `options` (padded to 4, as pack_options does); its checksum is 0."""
    offset = (HEADER_BYTES + len(options)) << 2
    return _HEADER.pack(source, destination, seq, ack, offset, flags, window, 0, 0) + options


def pack_options(
    mss: int = 0,
    scale: int = -1,
    sack_permitted: bool = False,
    timestamp: tuple[int, int] | None = None,
    sack: tuple[tuple[int, int], ...] = (),
) -> bytes:
    """Options as bytes, padded to 4; of the SACK blocks as many as there is room for."""
    parts = []
    if mss:
        parts.append(struct.pack(">BBH", _MSS, 4, mss))
    if scale >= 0:
        parts.append(bytes((_NOP, _SCALE, 3, scale)))
    if sack_permitted:
        parts.append(bytes((_NOP, _NOP, _SACK_PERMITTED, 2)))
    if timestamp is not None:
        parts.append(pack_timestamp(*timestamp))
    if sack:
        room = (OPTION_BYTES - sum(map(len, parts)) - 4) // 8
        blocks = sack[:room]
        parts.append(bytes((_NOP, _NOP, _SACK, 2 + 8 * len(blocks))))
        parts += [_BLOCK.pack(*block) for block in blocks]
    return b"".join(parts)


def pack_timestamp(value: int, echo: int) -> bytes:
    """The timestamps option alone, 12 bytes."""
    return _TIMESTAMP.pack(_TIMESTAMP_WORD, value, echo)
