"""acks: what an acknowledgement does (RFC 9293 §3.10.7.4, fifth step)."""

from __future__ import annotations

from servers.net.tcp import congestion, rtt, sack
from servers.net.tcp.block import Block, Mode
from servers.net.tcp.segment import Segment


def advance(c: Block, to: int, echo: int, now: int) -> None:
    """Everything before `to` has arrived; `echo` is the timestamp that came back, or -1."""
    count = to - c.una
    flight = c.max - c.una
    c.una = to
    c.since = now
    c.dupacks = 0
    c.changed = True
    rtt.acknowledged(c, echo, now)
    if c.mode:
        congestion.progress(c, count, flight)
        c.karn = c.karn and c.mode != Mode.OPEN
    else:
        if c.sacked:
            sack.advance(c)
        else:
            c.sacked_bytes = 0
        c.karn = False
        congestion.grow(c, count, flight)
    c.retransmit_at = now + rtt.timeout(c) if c.max > to else 0


def window(c: Block, seq: int, ack: int, size: int) -> bool:
    """The window of a segment at these positions, unless a later one has told; whether the peer
    now takes more or less than it did."""
    if seq < c.wl1 or (seq == c.wl1 and ack < c.wl2):
        return False
    edge = ack + size
    moved = edge != c.snd_edge
    c.wl1, c.wl2 = seq, ack
    if moved:
        c.snd_edge = edge
        c.changed = True
        c.max_wnd = max(c.max_wnd, size)
        if size and c.probes:
            c.probes = 0
            c.retransmit_at = 0 if c.max == c.una else c.retransmit_at
    return moved


def acknowledge(c: Block, segment: Segment, seq: int, ack: int, now: int) -> None:
    """An acceptable ACK, una <= ack <= max, or an old one, which tells nothing."""
    options = segment.options
    news = bool(options.sack) and c.sack_ok and sack.note(c, options.sack)
    if ack < c.una:
        return
    if ack > c.una:
        advance(c, ack, options.timestamp[1] if options.timestamp and c.stamps else -1, now)
        if news and c.mode != Mode.LOSS:
            congestion.detect(c)
        window(c, seq, ack, segment.window << c.snd_scale)
        return
    moved = window(c, seq, ack, segment.window << c.snd_scale)
    if c.snd_edge <= c.una and not c.closed:
        c.since = now  # its window is shut, but it lives
    repeated = not moved and not segment.payload and not c.sack_ok
    if c.max > c.una and (news or repeated):
        congestion.duplicate(c)
