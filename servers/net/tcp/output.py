"""output: segments that go out. First what was lost, then what is new, then an ACK if one is due.

Silly windows are avoided (RFC 9293 §3.8.6.2.1) and small segments held back (Nagle, §3.7.4). The
payload of a segment stays in the send ring; a segment is cut where the ring begins again.
"""

from __future__ import annotations

from servers.net.tcp import congestion, rtt, sack
from servers.net.tcp.block import LARGEST_WINDOW, Block, Outgoing, State, window_scale
from servers.net.tcp.segment import ACK, FIN, MASK, PSH, RST, SYN, pack_options, pack_timestamp
from servers.net.tcp.window import announce


def output(c: Block, now: int) -> None:
    """Send whatever may be sent, and see to the timers."""
    if c.lost_edge > c.high_rxt:
        _repair(c, now)
    if c.queued_end + c.closing > c.max:
        _fresh(c, now)
    if c.ack_now:
        acknowledge(c, now)
    arm(c, now)


def arm(c: Block, now: int) -> None:
    """The timer of retransmission, or, when the peer's window is shut, of persist."""
    if c.max > c.una:
        if not c.retransmit_at:
            c.retransmit_at = now + rtt.timeout(c)
    elif c.queued_end + c.closing > c.max:
        if not c.retransmit_at:
            c.retransmit_at = now + persist(c)
            c.since = now
    else:
        c.retransmit_at = 0


def persist(c: Block) -> int:
    """How long to wait for a window before the peer is probed (RFC 9293 §3.8.6.1)."""
    return min(c.rto << min(c.probes, 16), c.config.rto_max)


def _repair(c: Block, now: int) -> None:
    """What is lost, as much of it as the congestion window allows."""
    while True:
        start, end = sack.hole(c, max(c.high_rxt, c.una), c.lost_edge)
        if start >= end:
            c.high_rxt = max(c.high_rxt, c.lost_edge)
            break
        room = c.cwnd - congestion.pipe(c)
        if c.rescue:
            room = max(room, c.mss)
        length = _whole(c, end - start, room)
        if length <= 0:
            break
        c.rescue = False
        resend(c, start, length, now)
        c.high_rxt = start + length


def _whole(c: Block, length: int, room: int) -> int:
    """As much of `length` as fits, in frames that are full unless it is the last."""
    if length <= room and length <= c.burst:
        return length
    room = min(room, length, c.burst)
    return room - room % c.mss


def resend(c: Block, start: int, length: int, now: int) -> None:
    """Send again what stands at `start`."""
    rtt.resent(c)
    c.retransmits += 1
    data = min(start + length, c.queued_end) - start
    transmit(c, start, data, start + length > c.queued_end, now)


def _fresh(c: Block, now: int) -> None:
    """What was never sent, as far as windows and manners allow."""
    if c.max == c.una:
        congestion.idle(c, now)
    while True:
        at = c.max
        left = c.queued_end - at
        length = _allowed(c, at, left) if left > 0 else 0
        fin = c.closing and length == left and at <= c.queued_end < c.snd_edge
        if length <= 0 and not fin:
            return
        if at == c.una:
            c.retransmit_at = 0  # it was the persist timer
            c.since = now
        transmit(c, at, length, fin, now)
        c.max = at + length + fin
        c.changed = True
        if c.timed_end < 0 and not c.karn:
            c.timed_end = c.max
            c.timed_at = now


def _allowed(c: Block, at: int, left: int) -> int:
    """How many of the `left` bytes at `at` may go out now."""
    mss = c.mss
    flight = at - c.una
    window = c.snd_edge - at
    lossless = c.lost_edge <= c.una and not c.sacked_bytes
    room = c.cwnd - (flight if lossless else congestion.pipe(c))
    length = min(left, window, room, c.burst)
    if length < left:
        # Larger segments are cheaper for everybody: with enough under way, ACKs will make room.
        third = min(c.cwnd, c.snd_edge - c.una) // 3
        if flight and lossless and length < min(c.burst, third):
            return 0
        if length >= mss:
            return length - length % mss
        # A crumb: only when the peer never had a larger window to give.
        return length if length == window and 0 < length >= c.max_wnd >> 1 else 0
    if length < c.burst <= flight and lossless and not (c.config.nodelay or c.closing):
        return 0  # as Nagle has it, for long segments: with so much under way, ACKs are near
    tail = length % mss
    if tail and at > c.una and not c.config.nodelay and not c.closing:
        length -= tail  # Nagle
    return length


def transmit(c: Block, at: int, length: int, fin: bool, now: int) -> None:
    """Segments with `length` bytes from `at`, and the FIN after them if `fin`."""
    window = announce(c)
    ack = (c.irs1 + c.received + c.peer_done) & MASK
    options = pack_timestamp(rtt.stamp(c, now), c.ts_recent) if c.stamps else b""
    end = at + length
    mss = c.mss
    ring = c.send
    while True:
        piece = ring.piece(at, end - at).length if at < end else 0
        flags = ACK
        if at + piece == end:
            if end == c.queued_end and piece:
                flags |= PSH
            if fin:
                flags |= FIN
        gso = mss if piece > mss else 0
        c.out.append(Outgoing(flags, (c.iss1 + at) & MASK, ack, window, options, at, piece, gso))
        at += piece
        if at >= end:
            break
    c.sent_at = now
    _acknowledged(c)


def _acknowledged(c: Block) -> None:
    c.ack_now = False
    c.ack_at = c.ack_pending = 0
    c.ack_sent = c.received + c.peer_done


def acknowledge(c: Block, now: int, back: int = 0) -> None:
    """An ACK alone, with what lies beyond it (RFC 2018 §4); `back` makes it a probe, which the
    peer must answer since it stands before what it expects (RFC 9293 §3.8.4)."""
    window = announce(c)
    stamps = (rtt.stamp(c, now), c.ts_recent) if c.stamps else None
    options = b""
    if c.islands and c.sack_ok:
        blocks = tuple(((c.irs1 + s) & MASK, (c.irs1 + e) & MASK) for s, e in c.islands)
        options = pack_options(timestamp=stamps, sack=blocks)
    elif stamps:
        options = pack_timestamp(*stamps)
    seq = (c.iss1 + (c.una if back else c.max) - back) & MASK
    ack = (c.irs1 + c.received + c.peer_done) & MASK
    c.out.append(Outgoing(ACK, seq, ack, window, options, 0, 0, 0))
    _acknowledged(c)
    c.changed = True


def synchronize(c: Block, now: int) -> None:
    """Our SYN; it acknowledges the peer's when that has come."""
    answer = c.state == State.SYN_RECEIVED
    c.adv = max(c.adv, min(c.receive.size, LARGEST_WINDOW))  # never scaled in a SYN
    options = pack_options(
        mss=c.config.mss,
        scale=window_scale(c.receive.size) if c.scaled else -1,
        sack_permitted=c.sack_ok,
        timestamp=(rtt.stamp(c, now), c.ts_recent) if c.stamps else None,
    )
    flags, ack = (SYN | ACK, c.irs1 & MASK) if answer else (SYN, 0)
    window = min(c.adv, LARGEST_WINDOW)
    c.out.append(Outgoing(flags, (c.iss1 - 1) & MASK, ack, window, options, 0, 0, 0))
    c.changed = True


def reset(c: Block, seq: int | None = None) -> None:
    """A RST where the peer must believe it (RFC 9293 §3.5.2), or at `seq`."""
    if seq is not None:
        c.out.append(Outgoing(RST, seq, 0, 0, b"", 0, 0, 0))
        return
    ack = (c.irs1 + c.received + c.peer_done) & MASK
    c.out.append(Outgoing(RST | ACK, (c.iss1 + c.max) & MASK, ack, 0, b"", 0, 0, 0))
