"""handshake: how a connection begins (RFC 9293 §3.10.1, §3.10.7.2 and §3.10.7.3)."""

from __future__ import annotations

from servers.net.tcp import congestion, text
from servers.net.tcp.block import (
    DEFAULT_MSS,
    LARGEST_WINDOW,
    LEAST_MSS,
    SECOND,
    TIMESTAMP_BYTES,
    Block,
    Error,
    State,
    close,
    window_scale,
)
from servers.net.tcp.output import arm, reset, synchronize
from servers.net.tcp.segment import ACK, FIN, MASK, RST, SYN, Options, Segment, diff

SLOW_RTO = 3 * SECOND


def connect(c: Block, iss: int, offset: int, now: int) -> None:
    """Send the first SYN."""
    c.state = State.SYN_SENT
    c.active_open = True
    _start(c, iss, offset, now)


def answer(c: Block, syn: Segment, iss: int, offset: int, now: int) -> None:
    """Answer a SYN that has come for a listener."""
    learn(c, syn.seq, syn.options, now)
    c.state = State.SYN_RECEIVED
    c.snd_edge = c.max_wnd = syn.window
    _start(c, iss, offset, now)


def _start(c: Block, iss: int, offset: int, now: int) -> None:
    c.iss1 = (iss + 1) & MASK
    c.ts_offset = offset
    c.una, c.max = -1, 0
    c.timed_end, c.timed_at = 0, now
    c.since = c.heard_at = now
    synchronize(c, now)
    arm(c, now)


def resume(c: Block, third: Segment, options: Options, offset: int, now: int) -> None:
    """Be where a handshake stood that nobody kept, before its third segment; `options` are those
    of the SYN, their timestamp that of the third segment."""
    learn(c, (third.seq - 1) & MASK, options, now)
    c.state = State.SYN_RECEIVED
    c.iss1 = third.ack
    c.ts_offset = offset
    c.una, c.max = -1, 0
    c.adv = min(c.receive.size, LARGEST_WINDOW)
    c.since = c.heard_at = now
    c.changed = True


def learn(c: Block, irs: int, options: Options, now: int) -> None:
    """What the peer's SYN says."""
    c.irs1 = (irs + 1) & MASK
    c.stamps = c.config.timestamps and options.timestamp is not None
    c.sack_ok = c.config.sack and options.sack_permitted
    c.scaled = c.config.scale and options.scale >= 0
    c.snd_scale = options.scale if c.scaled else 0
    c.rcv_scale = window_scale(c.receive.size) if c.scaled else 0
    c.peer_mss = max(LEAST_MSS, options.mss or DEFAULT_MSS)
    if options.timestamp:
        c.ts_recent, c.ts_recent_at = options.timestamp[0], now
    sizes(c)
    c.changed = True


def sizes(c: Block) -> None:
    """How long segments may be. The MSS does not count options (RFC 6691)."""
    c.mss = min(c.config.mss, c.peer_mss) - (TIMESTAMP_BYTES if c.stamps else 0)
    c.burst = max(c.mss, c.config.longest - c.config.longest % c.mss)


def establish(c: Block, now: int) -> None:
    """Both SYNs are acknowledged."""
    c.state = State.FIN_WAIT_1 if c.closing else State.ESTABLISHED
    c.lost_edge = c.high_rxt = 0
    congestion.begin(c)
    if c.retransmits and not c.srtt_us:  # RFC 6298 §5.7
        c.rto = min(max(c.rto, SLOW_RTO), c.config.rto_max)
        c.backoff = 0
    if c.config.keepalive:
        c.linger_at = now + c.config.keepalive


def syn_sent(c: Block, segment: Segment, now: int) -> bool:
    """A segment for SYN-SENT; whether it established the connection, so that its text and FIN are
    to be looked at, and output made."""
    flags = segment.flags
    acceptable = bool(flags & ACK) and diff(segment.ack, c.iss1) == 0
    if flags & ACK and not acceptable:
        if not flags & RST:
            reset(c, segment.ack)
        return False
    if flags & RST:
        if acceptable:
            close(c, Error.REFUSED)
        return False
    if not flags & SYN:
        return False
    learn(c, segment.seq, segment.options, now)
    c.snd_edge = c.max_wnd = segment.window
    c.wl1, c.wl2 = 0, 0
    if not acceptable:  # both have called
        c.state = State.SYN_RECEIVED
        synchronize(c, now)
        return False
    return True


def first_text(c: Block, segment: Segment, now: int) -> None:
    """Text and FIN that came with the peer's SYN."""
    if segment.payload:
        text.take(c, 0, segment.payload, now)
    if segment.flags & FIN and len(segment.payload) <= c.adv:
        text.finish(c, len(segment.payload))
