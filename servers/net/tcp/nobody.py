"""nobody: segments that belong to no connection, and the answers to them. Pure.

Strangers cause them, so each kind of answer has a budget, and no more than so many wait.
"""

from __future__ import annotations

from servers.net.tcp.block import Outgoing
from servers.net.tcp.budget import Budget
from servers.net.tcp.limits import Counters, Limits
from servers.net.tcp.quad import Quad
from servers.net.tcp.segment import ACK, FIN, MASK, RST, SYN, Segment


class Nobody:
    """`out` holds what is to be sent; its owner takes it."""

    def __init__(self, limits: Limits, counters: Counters) -> None:
        self.out: list[tuple[Quad, Outgoing]] = []
        self.counters = counters
        self._most = limits.replies
        self._resets = Budget(limits.resets)
        self.challenges = Budget(limits.challenges)

    def send(self, quad: Quad, outgoing: Outgoing) -> bool:
        """Have it sent if there is room for it."""
        if len(self.out) >= self._most:
            self.counters.held_back += 1
            return False
        self.out.append((quad, outgoing))
        return True

    def reset(self, quad: Quad, segment: Segment, now: int) -> None:
        """Tell the peer that there is no such connection (RFC 9293 §3.10.7.1)."""
        if segment.flags & RST:
            return
        if not self._resets.take(now):
            self.counters.held_back += 1
        elif self.send(quad, refusal(segment)):
            self.counters.resets_sent += 1

    def challenge(self, quad: Quad, acknowledgement: Outgoing, now: int) -> None:
        """Tell the peer where the connection stands, which it seems not to know."""
        if not self.challenges.take(now):
            self.counters.held_back += 1
        elif self.send(quad, acknowledgement):
            self.counters.challenges_sent += 1


def refusal(segment: Segment) -> Outgoing:
    """The reset that the sender of `segment` believes."""
    if segment.flags & ACK:
        return bare(RST, segment.ack, 0)
    length = len(segment.payload) + bool(segment.flags & SYN) + bool(segment.flags & FIN)
    return bare(RST | ACK, 0, (segment.seq + length) & MASK)


def bare(flags: int, seq: int, ack: int, window: int = 0, options: bytes = b"") -> Outgoing:
    """A segment without data."""
    return Outgoing(flags, seq, ack, window, options, 0, 0, 0)
