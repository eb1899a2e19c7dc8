"""ethernet: frames of Ethernet II, without preamble and check sequence. Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

from servers.net.malformed import Malformed
from servers.net.ring import Bytes

IPV4 = 0x0800
ARP = 0x0806
TAGGED = frozenset({0x8100, 0x88A8, 0x9100})  # IEEE 802.1Q, 802.1ad, and what was before it
HEADER_BYTES = 14
BROADCAST = b"\xff" * 6
UNKNOWN = bytes(6)

_HEADER = struct.Struct("!6s6sH")


class Header(NamedTuple):
    destination: bytes
    source: bytes
    kind: int  # the EtherType; up to 1500 it is the length of an IEEE 802.3 frame


def parse(frame: Bytes) -> Header:
    """Raises Malformed for less than a header, and for a source that is a group."""
    if len(frame) < HEADER_BYTES:
        raise Malformed("a frame shorter than an Ethernet header")
    header = _HEADER.unpack_from(frame)
    if header[1][0] & 1:
        raise Malformed("a frame from a group address")
    return Header._make(header)


def build(destination: bytes, source: bytes, kind: int) -> bytes:
    return _HEADER.pack(destination, source, kind)


def is_group(mac: bytes) -> bool:
    """Broadcast or multicast."""
    return bool(mac[0] & 1)


def multicast(address: int) -> bytes:
    """Where packets to an IPv4 multicast address go (RFC 1112 §6.4)."""
    return b"\x01\x00\x5e" + (address & 0x7FFFFF).to_bytes(3, "big")
