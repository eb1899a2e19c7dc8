"""events: what the layers above are told. Pure.

A conversation is named by (our address, our port, their address, their port), which equals a
`Quad` of these; for an ICMP echo the ports are its identifier and sequence number.
"""

from __future__ import annotations

from typing import NamedTuple

Conversation = tuple[int, int, int, int]


class Unreachable(NamedTuple):
    """A packet of ours did not get there: somebody says so by ICMP, or we found out ourselves: no
    way leads there (kind 3, code 0), or the neighbour does not answer (kind 3, code 1).

    `sequence` is TCP's sequence number in the packet: believe only what is in flight (RFC 5927
    §4.1).
    """

    protocol: int
    quad: Conversation
    kind: int  # the ICMP type
    code: int
    sequence: int


class PathMtu(NamedTuple):
    """A packet of ours must not be longer than `mtu` bytes, IP header included (RFC 1191)."""

    protocol: int
    quad: Conversation
    mtu: int
    sequence: int


class EchoReply(NamedTuple):
    """Answers a ping."""

    source: int
    ident: int
    sequence: int
    data: bytes
    at: int  # us


class Conflict(NamedTuple):
    """Somebody else uses our address (RFC 5227 §2.4); told at most once in 10 s."""

    address: int
    mac: bytes


Event = Unreachable | PathMtu | EchoReply | Conflict
