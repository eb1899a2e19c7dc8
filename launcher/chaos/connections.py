"""connections: which TCP connections the host has opened, from the frames that it sent. Pure.

Only what comes to the card is looked at: the SYN that opens a connection, and the acknowledgements
of what the host has received on it. A SYN that is sent again is the same one: it has the same
number. Whose checksum is wrong was damaged on its way, and says nothing.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from launcher.chaos.evidence import Connection

ETHERNET = 14
IPV4 = b"\x08\x00"
TCP = 6
SYN, RST, ACK = 0x02, 0x04, 0x10  # RFC 9293 §3.1
NUMBERS = 1 << 32  # of octets
IP_HEAD = struct.Struct(">BBHHHBBH4s4s")
TCP_HEAD = struct.Struct(">HHIIBB")


class Segment(NamedTuple):
    ends: tuple[bytes, int, bytes, int]  # source and destination, address and port
    seq: int
    ack: int
    flags: int


class Known:
    """One connection, as far as it has been seen."""

    def __init__(self, segment: Segment, at_ns: int) -> None:
        self.first = segment
        self.opened_ns = self.ended_ns = at_ns
        self.acked_bytes = 0
        self._acked = -1  # the last acknowledgement; before the first, none

    def acknowledge(self, ack: int) -> None:
        """The first says where the other side began: it can have sent nothing before."""
        if self._acked < 0:
            self._acked = ack
        forward = (ack - self._acked) % NUMBERS
        if forward < NUMBERS // 2:
            self._acked = ack
            self.acked_bytes += forward


class Connections:
    """Of one card."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._last: dict[tuple[bytes, int, bytes, int], Known] = {}
        self._known: list[Known] = []

    def see(self, frame: memoryview, at_ns: int) -> None:
        """A frame has come to the card."""
        segment = parsed(frame)
        if segment is None:
            return
        known = self._last.get(segment.ends)
        if segment.flags & (SYN | ACK) == SYN:
            if known is None or known.first.seq != segment.seq:
                known = self._last[segment.ends] = Known(segment, at_ns)
                self._known.append(known)
        elif known is not None and segment.flags & (ACK | RST) == ACK:
            known.acknowledge(segment.ack)
        if known is not None:
            known.ended_ns = at_ns

    @property
    def found(self) -> list[Connection]:
        """In the order in which they were opened."""
        return [
            Connection(self._device, k.first.ends[1], k.opened_ns, k.ended_ns, k.acked_bytes)
            for k in self._known
        ]


def parsed(frame: memoryview) -> Segment | None:
    """The head of a TCP segment over IPv4; None for what is none, or is damaged."""
    packet = frame[ETHERNET:]
    if frame[12:14] != IPV4 or len(packet) < IP_HEAD.size:
        return None
    first, _, length, _, fragment, _, protocol, _, source, target = IP_HEAD.unpack_from(packet)
    at = (first & 15) * 4
    if protocol != TCP or fragment & 0x3FFF or not IP_HEAD.size <= at <= length <= len(packet):
        return None
    segment = packet[at:length]
    pseudo = source + target + struct.pack(">HH", TCP, len(segment))
    if len(segment) < 20 or ones(packet[:at]) or ones(pseudo + segment):
        return None
    port, to_port, seq, ack, _, flags = TCP_HEAD.unpack_from(segment)
    return Segment((source, port, target, to_port), seq, ack, flags)


def ones(data: bytes | memoryview) -> int:
    """The sum of 16-bit words in ones' complement (RFC 1071): 0 with a right checksum in it."""
    padded = bytes(data) + bytes(len(data) % 2)
    return int.from_bytes(padded, "big") % 0xFFFF
