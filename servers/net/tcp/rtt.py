"""rtt: how long a round trip takes, and so the retransmission timeout (RFC 6298).

One segment of each flight is timed. What was sent twice is not (Karn); there the timestamps tell,
as they name the copy that has arrived (RFC 7323 §4)."""

from __future__ import annotations

from servers.net.tcp.block import Block
from servers.net.tcp.segment import MASK

GRANULARITY = 1000  # of our timestamps


def acknowledged(c: Block, echo: int, now: int) -> None:
    """`una` has moved on; `echo` is the timestamp that came back, -1 for none."""
    if c.timed_end >= 0:
        if c.una >= c.timed_end:
            sample(c, now - c.timed_at)
            c.timed_end = -1
    elif c.karn and echo >= 0:
        elapsed = (stamp(c, now) - echo) & MASK
        if elapsed * 1000 <= c.config.user_timeout:
            # The copy may have been acknowledged before, by an ACK that was lost: then the time
            # that was waited is in it, and must not make the next wait longer still.
            sample(c, min(max(elapsed * 1000, GRANULARITY), 2 * c.srtt_us or c.rto))
            c.karn = False
    elif c.backoff:
        c.backoff -= 1  # nothing is measured, but something arrives


def sample(c: Block, rtt: int) -> None:
    """A round trip took `rtt` microseconds, which ends the back-off (RFC 6298 §5)."""
    rtt = max(1, rtt)
    if c.srtt_us:
        c.rttvar = (3 * c.rttvar + abs(c.srtt_us - rtt)) >> 2
        c.srtt_us = (7 * c.srtt_us + rtt) >> 3 or 1
    else:
        c.srtt_us = rtt
        c.rttvar = rtt >> 1
    rto = c.srtt_us + max(GRANULARITY, 4 * c.rttvar)
    c.rto = min(max(rto, c.config.rto_min), c.config.rto_max)
    c.backoff = 0


def timeout(c: Block) -> int:
    """How long to wait for an acknowledgement now."""
    return min(c.rto << c.backoff, c.config.rto_max)


def resent(c: Block) -> None:
    """Something was sent again: no measurement under way means anything."""
    c.timed_end = -1
    c.karn = True


def stamp(c: Block, now: int) -> int:
    """Our timestamp: milliseconds from a place that is this connection's own."""
    return (now // 1000 + c.ts_offset) & MASK
