"""arp: which Ethernet address an IPv4 address has (RFC 826): the packets. Pure.

Who is believed is the business of `neighbours`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from servers.net import ethernet
from servers.net.malformed import Malformed
from servers.net.ring import Bytes

REQUEST = 1
REPLY = 2
PACKET_BYTES = 28

_PACKET = struct.Struct("!HHBBH6sI6sI")
_KIND = (1, ethernet.IPV4, 6, 4)  # IPv4 over Ethernet: nothing else is spoken


class Arp(NamedTuple):
    operation: int
    sender_mac: bytes
    sender: int
    target_mac: bytes
    target: int


def parse(data: Bytes) -> Arp:
    """What lies behind it is padding. Raises Malformed for anything but a request or reply about
    IPv4 over Ethernet by one station."""
    if len(data) < PACKET_BYTES:
        raise Malformed("shorter than an ARP packet")
    fields = _PACKET.unpack_from(data)
    packet = Arp._make(fields[4:])
    if fields[:4] != _KIND or packet.operation not in (REQUEST, REPLY):
        raise Malformed("ARP, but no request or reply for IPv4 over Ethernet")
    if ethernet.is_group(packet.sender_mac) or packet.sender_mac == ethernet.UNKNOWN:
        raise Malformed("ARP from nobody")
    return packet


def build(packet: Arp) -> bytes:
    return _PACKET.pack(*_KIND, *packet)


def announcement(mac: bytes, address: int) -> bytes:
    """A frame that tells everybody where `address` is (RFC 5227 §3)."""
    packet = Arp(REQUEST, mac, address, ethernet.UNKNOWN, address)
    return ethernet.build(ethernet.BROADCAST, mac, ethernet.ARP) + build(packet)
