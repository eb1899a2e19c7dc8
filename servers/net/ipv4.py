"""ipv4: headers of IPv4 (RFC 791), and the cutting of datagrams into fragments. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from servers.net import checksum
from servers.net.malformed import Malformed
from servers.net.ring import Bytes

ICMP = 1
TCP = 6
UDP = 17

HEADER_BYTES = 20
MOST_BYTES = 0xFFFF  # of a datagram with its header
LEAST_MTU = 68  # every link takes this (RFC 791 §3.2)
DONT_FRAGMENT = 0x4000
MORE_FRAGMENTS = 0x2000
OFFSET = 0x1FFF  # in units of 8 bytes
FRAGMENT = MORE_FRAGMENTS | OFFSET  # a whole datagram has none of these
DEFAULT_TTL = 64  # RFC 1700

_HEADER = struct.Struct("!BBHHHBBHII")


class Packet(NamedTuple):
    """A datagram or a fragment of one, as it came."""

    source: int
    destination: int
    protocol: int
    ident: int
    cut: int  # DONT_FRAGMENT, MORE_FRAGMENTS and the offset in units of 8 bytes
    ttl: int
    header_bytes: int  # with options, which are not looked at
    payload: memoryview


def parse(data: memoryview) -> Packet:
    """What lies behind the total length (Ethernet's padding) is cut off. Raises Malformed also
    when the header's checksum is wrong."""
    size = len(data)
    if size < HEADER_BYTES:
        raise Malformed("shorter than an IPv4 header")
    fields = _HEADER.unpack_from(data)
    first, _, length, ident, cut, ttl, protocol, _, source, destination = fields
    header = (first & 15) * 4
    if first >> 4 != 4 or header < HEADER_BYTES:
        raise Malformed("not version 4, or a header shorter than 20 bytes")
    if not header <= length <= size:
        raise Malformed("a total length that is less than the header or more than what came")
    if checksum.ones(data[:header]) != 0xFFFF:
        raise Malformed("wrong checksum of the IPv4 header")
    return Packet(source, destination, protocol, ident, cut, ttl, header, data[header:length])


def build(
    protocol: int,
    source: int,
    destination: int,
    length: int,
    ident: int = 0,
    cut: int = 0,
    ttl: int = DEFAULT_TTL,
) -> bytes:
    """The header of a packet with `length` bytes of payload."""
    length += HEADER_BYTES
    total = 0x4500 + length + ident + cut + (ttl << 8) + protocol + source + destination
    check = checksum.finish(total)
    return _HEADER.pack(0x45, 0, length, ident, cut, ttl, protocol, check, source, destination)


class Cut(NamedTuple):
    """One fragment: what stands in its header, and its payload."""

    field: int
    payload: memoryview


def fragments(payload: Bytes, mtu: int) -> Iterator[Cut]:
    """A datagram's payload for packets of at most `mtu` bytes, without options (RFC 791 §3.2);
    every piece but the last is a multiple of 8 bytes long."""
    view = memoryview(payload)
    step = (mtu - HEADER_BYTES) // 8 * 8
    for at in range(0, len(view), step):
        more = MORE_FRAGMENTS if at + step < len(view) else 0
        yield Cut(more | at // 8, view[at : at + step])
