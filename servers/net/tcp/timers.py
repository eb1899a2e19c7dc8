"""timers: what happens when nothing does (RFC 6298 §5, RFC 9293 §3.8.3, §3.8.4 and §3.8.6.1)."""

from __future__ import annotations

from servers.net.tcp import congestion, rtt
from servers.net.tcp.block import Block, Error, State, close, settle
from servers.net.tcp.output import acknowledge, arm, output, persist, reset, synchronize, transmit

MOST_BACKOFF = 16


def tick(c: Block, now: int) -> None:
    """The deadline has come."""
    if 0 < c.ack_at <= now:
        acknowledge(c, now)
    if 0 < c.retransmit_at <= now:
        c.retransmit_at = 0
        if c.max > c.una:
            _retransmit(c, now)
        else:
            _probe(c, now)
    if 0 < c.linger_at <= now:
        c.linger_at = 0
        _linger(c, now)
    settle(c)


def _retransmit(c: Block, now: int) -> None:
    """No acknowledgement has come in time: send again, and wait twice as long."""
    syn = c.state in (State.SYN_SENT, State.SYN_RECEIVED)
    if now - c.since >= (c.config.syn_timeout if syn else c.config.user_timeout):
        give_up(c)
        return
    if syn:
        c.retransmits += 1
        rtt.resent(c)
        synchronize(c, now)
    else:
        congestion.timed_out(c)
    c.backoff = min(c.backoff + 1, MOST_BACKOFF)
    c.changed = True
    if syn:
        arm(c, now)
    else:
        output(c, now)


def _probe(c: Block, now: int) -> None:
    """The peer's window has been shut for long. A crumb if it takes one; else see whether the
    news that it has opened was lost. As long as the peer answers, this goes on."""
    last = c.since if c.closed else max(c.since, c.heard_at)
    if now - last >= c.config.user_timeout:
        give_up(c)
        return
    room = min(c.snd_edge - c.max, c.queued_end - c.max, c.mss)
    if room > 0:
        transmit(c, c.max, room, False, now)
        c.max += room
        c.since = now
        c.changed = True
        arm(c, now)
        return
    acknowledge(c, now, back=1)
    c.probes += 1
    c.retransmit_at = now + persist(c)


def _linger(c: Block, now: int) -> None:
    if c.state == State.TIME_WAIT or (c.state == State.FIN_WAIT_2 and c.closed):
        close(c)
    elif c.state >= State.ESTABLISHED and c.config.keepalive:
        _keep_alive(c, now)


def _keep_alive(c: Block, now: int) -> None:
    """Ask a peer that has long been silent, a few times (RFC 9293 §3.8.4)."""
    idle = now - c.heard_at
    if c.max > c.una or idle < c.config.keepalive:  # else another timer finds out
        c.unanswered = 0
        c.linger_at = max(now + 1, c.heard_at + c.config.keepalive)
        if c.max > c.una:
            c.linger_at = now + c.config.keepalive
    elif c.unanswered >= c.config.keepalive_probes:
        give_up(c)
    else:
        c.unanswered += 1
        acknowledge(c, now, back=1)
        c.linger_at = now + c.config.keepalive_interval


def give_up(c: Block) -> None:
    """The peer has not answered for too long."""
    if c.state > State.SYN_RECEIVED:
        reset(c)
    close(c, Error.TIMED_OUT)
