"""arrival: a segment arrives (RFC 9293 §3.10.7, with RFC 5961 and RFC 7323). The steps are taken in
the order that the RFC has them in; what nearly always comes takes a short way through."""

from __future__ import annotations

from servers.net.tcp import acks, handshake, text
from servers.net.tcp.block import SECOND, Block, Error, State, close, settle
from servers.net.tcp.output import acknowledge, output, reset, synchronize
from servers.net.tcp.segment import ACK, FIN, MASK, PSH, RST, SYN, Segment, diff

HALF = 0x80000000
OUTDATED = 24 * 24 * 3600 * SECOND  # RFC 7323 §5.5

TEXT = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)


def arrived(c: Block, segment: Segment, now: int) -> None:
    """Take a segment that is for this connection."""
    if c.state == State.ESTABLISHED and _predicted(c, segment, now):
        settle(c)
        return
    if c.state == State.SYN_SENT:
        if handshake.syn_sent(c, segment, now):
            acks.advance(c, 0, -1, now)
            handshake.establish(c, now)
            handshake.first_text(c, segment, now)
            c.ack_now = True
            _finished(c, now)
            output(c, now)
    elif c.state > State.SYN_SENT:
        _checked(c, segment, now)
    if c.state != State.CLOSED:
        settle(c)


def _predicted(c: Block, segment: Segment, now: int) -> bool:
    """What a connection that goes well gets: the next ACK without text, or the next text. False
    when it is something else, and nothing has been done."""
    _, _, seq, ack, flags, window, options, payload = segment
    received = c.received
    if flags & ~PSH != ACK or seq != (c.irs1 + received) & MASK or c.islands or c.fin_at >= 0:
        return False
    una = c.una
    to = una + ((ack - c.iss1 - una + HALF) & MASK) - HALF
    if not una <= to <= c.max or options.sack:
        return False
    length = len(payload)
    if (to == una and not length) or length > c.adv - received:
        return False
    echo = -1
    if c.stamps:
        if options.timestamp is None:
            return False
        value, echo = options.timestamp
        if (value - c.ts_recent) & MASK >= HALF:
            return False
        if received <= c.ack_sent:
            c.ts_recent = value
            c.ts_recent_at = now
    c.heard_at = now
    if to != una:
        acks.advance(c, to, echo, now)
    acks.window(c, received, to, window << c.snd_scale)
    if length:
        text.take(c, received, payload, now)
    output(c, now)
    return True


def _checked(c: Block, segment: Segment, now: int) -> None:
    """Steps one to four: sequence number, RST, SYN; then the ACK bit."""
    flags = segment.flags
    expected = c.received + c.peer_done
    seq = expected + diff(segment.seq, (c.irs1 + expected) & MASK)
    if c.state == State.SYN_RECEIVED and flags & SYN and seq == -1:
        if not flags & ACK:
            synchronize(c, now)  # ours was lost
            return
        flags, seq = flags & ~SYN, 0  # both have called, and this is the answer
    length = len(segment.payload) + bool(flags & (SYN | FIN))
    if not flags & RST and not _timely(c, segment, now):
        _answer_stray(c, length, now)
    elif seq > max(c.adv, expected) or (seq + length <= expected and seq < expected):
        if not flags & RST:
            _answer_stray(c, length, now)
            _again(c, now)
    elif flags & RST:
        _reset(c, seq == expected, now)
    elif flags & SYN:
        challenge(c, now)
    elif flags & ACK:
        _accepted(c, segment, seq, now)


def _timely(c: Block, segment: Segment, now: int) -> bool:
    """Protection against wrapped sequence numbers, RFC 7323 §5.3."""
    if not c.stamps:
        return True
    stamp = segment.options.timestamp
    if stamp is None:
        return False
    return diff(stamp[0], c.ts_recent) >= 0 or now - c.ts_recent_at > OUTDATED


def _answer_stray(c: Block, length: int, now: int) -> None:
    """Say what is expected. Where nothing was sent, not for ever: the peer might do the same."""
    if length and c.state != State.SYN_RECEIVED:
        acknowledge(c, now)
    else:
        challenge(c, now)


def challenge(c: Block, now: int) -> None:
    """An ACK for what only a stranger, or a peer that has forgotten, can have sent (RFC 5961)."""
    if c.challenge_at and now - c.challenge_at < c.config.challenge_interval:
        return
    if c.challenges is None or c.challenges.take(now):
        c.challenge_at = now
        acknowledge(c, now)


def _again(c: Block, now: int) -> None:
    if c.state == State.TIME_WAIT:
        c.linger_at = now + c.config.time_wait


def _reset(c: Block, exact: bool, now: int) -> None:
    """RFC 5961 §3.2: only a RST just where it is expected is believed."""
    if not exact:
        challenge(c, now)
    elif c.state == State.SYN_RECEIVED:
        close(c, Error.REFUSED if c.active_open else Error.RESET)
    elif c.state in (State.CLOSING, State.LAST_ACK, State.TIME_WAIT):
        close(c)
    else:
        close(c, Error.RESET)


def _accepted(c: Block, segment: Segment, seq: int, now: int) -> None:
    """The segment lies in the window and has an ACK: steps five to eight."""
    ack = c.una + diff(segment.ack, (c.iss1 + c.una) & MASK)
    if c.state == State.SYN_RECEIVED:
        if not c.una < ack <= c.max:
            reset(c, segment.ack)
            return
        handshake.establish(c, now)
        c.wl1 = c.wl2 = -1
    elif ack > c.max or ack < c.una - c.max_wnd:  # RFC 5961 §5.2
        challenge(c, now)
        return
    c.heard_at = now
    stamp = segment.options.timestamp
    if c.stamps and stamp and seq <= c.ack_sent and diff(stamp[0], c.ts_recent) >= 0:
        c.ts_recent, c.ts_recent_at = stamp[0], now
        c.changed = True
    acks.acknowledge(c, segment, seq, ack, now)
    _told(c, now)
    _listen(c, segment, seq, now)
    _finished(c, now)
    if c.state != State.CLOSED:
        output(c, now)


def _told(c: Block, now: int) -> None:
    """The peer may have acknowledged our FIN."""
    if not c.closing or c.una <= c.queued_end:
        return
    if c.state == State.FIN_WAIT_1:
        c.state = State.FIN_WAIT_2
        wait_for_fin(c, now)
    elif c.state == State.CLOSING:
        time_wait(c, now)
    elif c.state == State.LAST_ACK:
        close(c)


def _listen(c: Block, segment: Segment, seq: int, now: int) -> None:
    """Text and FIN, in the states in which the peer may still speak."""
    payload = segment.payload
    end = seq + len(payload)
    if c.state not in TEXT or c.peer_done:
        if c.peer_done and end + bool(segment.flags & FIN) > seq:
            c.ack_now = True  # once more; in TIME-WAIT the wait begins again
            _again(c, now)
        return
    if payload:
        if c.closed and end > c.received:
            reset(c)  # nobody will read it: RFC 9293 §3.6.1
            close(c)
            return
        text.take(c, seq, payload, now)
    if segment.flags & FIN:
        if end <= c.adv:
            text.finish(c, end)
        if not payload and c.received != c.fin_at:
            c.ack_now = True


def _finished(c: Block, now: int) -> None:
    """The peer's FIN, when everything before it has come."""
    if c.peer_done or c.fin_at != c.received or c.state not in TEXT:
        return
    c.peer_done = c.ack_now = c.changed = True
    if c.state == State.ESTABLISHED:
        c.state = State.CLOSE_WAIT
    elif c.state == State.FIN_WAIT_1:
        c.state = State.CLOSING
    else:
        time_wait(c, now)


def wait_for_fin(c: Block, now: int) -> None:
    """FIN-WAIT-2 must not last for ever when nobody is there to read."""
    c.linger_at = now + c.config.fin_wait_2 if c.closed else c.linger_at


def time_wait(c: Block, now: int) -> None:
    """Both FINs are acknowledged."""
    c.state = State.TIME_WAIT
    c.linger_at = now + c.config.time_wait
    c.retransmit_at = 0
    c.changed = True
