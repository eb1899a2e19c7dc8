"""icmp: messages of ICMP (RFC 792), and which of our packets an error is about. Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

from servers.net import checksum, ipv4
from servers.net.events import Conversation, PathMtu, Unreachable
from servers.net.malformed import Malformed
from servers.net.ring import Bytes

ECHO_REPLY = 0
UNREACHABLE = 3
ECHO_REQUEST = 8
TIME_EXCEEDED = 11
PARAMETER_PROBLEM = 12

NET_UNREACHABLE = 0  # codes of UNREACHABLE
HOST_UNREACHABLE = 1
PROTOCOL_UNREACHABLE = 2
PORT_UNREACHABLE = 3
FRAGMENTATION_NEEDED = 4
REASSEMBLY_TIME_EXCEEDED = 1  # a code of TIME_EXCEEDED

ERRORS = frozenset({UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM})  # that are passed on
HEADER_BYTES = 8
MOST_ECHO_BYTES = ipv4.MOST_BYTES - ipv4.HEADER_BYTES - HEADER_BYTES
MOST_QUOTED = 548  # so that an error has at most 576 bytes (RFC 1812 §4.3.2.3)
LEAST_MTU = 552  # smaller ones come from those who want many small packets; Linux has this too

_HEADER = struct.Struct("!BBHHH")
_QUOTED = struct.Struct("!BxHxxHxBxxII")
_PORTS = struct.Struct("!HHI")
# RFC 1191 §7: of a router that does not say what fits, the next smaller of these.
_PLATEAUS = (32000, 17914, 8166, 4352, 2002, 1492, 1006, LEAST_MTU)


class Message(NamedTuple):
    kind: int
    code: int
    first: int  # the two halves of the header's second word: of an echo, its identifier
    second: int  # and sequence number
    payload: memoryview


def parse(data: memoryview) -> Message:
    """Raises Malformed also for a wrong checksum."""
    if len(data) < HEADER_BYTES:
        raise Malformed("shorter than an ICMP header")
    if not checksum.verify(data):
        raise Malformed("wrong checksum of an ICMP message")
    kind, code, _, first, second = _HEADER.unpack_from(data)
    return Message(kind, code, first, second, data[HEADER_BYTES:])


def build(kind: int, code: int, first: int = 0, second: int = 0, payload: Bytes = b"") -> bytes:
    total = (kind << 8 | code) + first + second + checksum.ones(payload)
    header = _HEADER.pack(kind, code, checksum.finish(total), first, second)
    return b"".join((header, payload))


def reply(request: memoryview) -> bytes:
    """The answer to an echo request, which has been parsed: only its type changes."""
    check = int.from_bytes(request[2:4], "big")
    check = checksum.replace(check, ECHO_REQUEST << 8 | request[1], ECHO_REPLY << 8 | request[1])
    check = check or 0xFFFF  # right for zeros alone, and as good as 0 for anything else
    return b"".join((bytes((ECHO_REPLY, request[1])), check.to_bytes(2, "big"), request[4:]))


def error(kind: int, code: int, packet: ipv4.Packet) -> bytes:
    """An error about a packet that came. It is quoted with a header without options, which were
    skipped and are not known any more."""
    header = ipv4.build(
        packet.protocol,
        packet.source,
        packet.destination,
        len(packet.payload),
        packet.ident,
        packet.cut,
        packet.ttl,
    )
    payload = packet.payload[: MOST_QUOTED - len(header)]
    return build(kind, code, 0, 0, b"".join((header, payload)))


def about(message: Message, address: int) -> Unreachable | PathMtu | None:
    """What an error that came says about a packet of ours; None if it does not concern anybody.
    Raises Malformed if what it quotes cannot have come from us, whose address is given."""
    quoted = message.payload
    if len(quoted) < ipv4.HEADER_BYTES:
        raise Malformed("an ICMP error that quotes less than an IPv4 header")
    first, length, cut, protocol, source, destination = _QUOTED.unpack_from(quoted)
    header = (first & 15) * 4
    if first >> 4 != 4 or header < ipv4.HEADER_BYTES or len(quoted) < header + _PORTS.size:
        raise Malformed("an ICMP error that quotes no IPv4 packet")
    if source != address:
        raise Malformed("an ICMP error about a packet that is not ours")
    if cut & ipv4.OFFSET:
        return None  # not the fragment that has the ports
    near, far, sequence = _PORTS.unpack_from(quoted, header)
    quad = (source, near, destination, far)
    if protocol == ipv4.ICMP:
        return _about_echo(message, quoted[header:], quad)
    sequence = sequence if protocol == ipv4.TCP else 0
    if (message.kind, message.code) == (UNREACHABLE, FRAGMENTATION_NEEDED):
        return PathMtu(protocol, quad, _next_mtu(message.second, length), sequence)
    return Unreachable(protocol, quad, message.kind, message.code, sequence)


def _about_echo(message: Message, quoted: memoryview, quad: Conversation) -> Unreachable | None:
    kind, _, _, ident, sequence = _HEADER.unpack_from(quoted)
    if kind != ECHO_REQUEST:
        return None
    quad = (quad[0], ident, quad[2], sequence)
    return Unreachable(ipv4.ICMP, quad, message.kind, message.code, 0)


def _next_mtu(said: int, length: int) -> int:
    """Always less than what was sent, as long as there is something less (RFC 1191 §6.5)."""
    if not 0 < said < length:
        said = next((size for size in _PLATEAUS if size < length), LEAST_MTU)
    return max(said, LEAST_MTU)
