"""congestion: how much may be under way (RFC 5681, with the recovery of RFC 6582 and RFC 6675).

The window counts bytes, and grows by the bytes that were acknowledged (RFC 3465 without a limit,
since one ACK may stand for a segment of 64 KiB), and only while it is made use of.
"""

from __future__ import annotations

from servers.net.tcp import rtt, sack
from servers.net.tcp.block import Block, Mode

INITIAL = 10  # segments, RFC 6928


def begin(c: Block) -> None:
    """The handshake is over. One that had to be repeated begins slowly (RFC 5681 §3.1)."""
    c.cwnd = c.mss if c.retransmits else INITIAL * c.mss


def pipe(c: Block) -> int:
    """Bytes that are under way, for all we know (RFC 6675 §4)."""
    under_way = c.max - c.una - c.sacked_bytes
    start = max(c.high_rxt, c.una)
    if c.lost_edge > start:
        under_way -= sack.holes(c, start, c.lost_edge)
    return under_way


def grow(c: Block, count: int, flight: int) -> None:
    """`count` bytes of the `flight` that was under way have been acknowledged."""
    if 2 * flight < c.cwnd:
        return
    if c.cwnd < c.ssthresh:
        c.cwnd += count
        return
    c.credit += count
    if c.credit >= c.cwnd:
        c.credit -= c.cwnd
        c.cwnd += c.mss


def idle(c: Block, now: int) -> None:
    """Nothing is under way. After a while nobody knows what the network bears (RFC 5681 §4.1)."""
    if now - c.sent_at > c.rto:
        c.cwnd = min(c.cwnd, INITIAL * c.mss)


def duplicate(c: Block) -> None:
    """An ACK that acknowledges nothing new, but says that something has arrived."""
    c.dupacks += 1
    if c.mode == Mode.LOSS:
        return
    if not c.sack_ok:
        c.sacked_bytes = max(0, min(c.sacked_bytes + c.mss, c.max - c.una - c.mss))
    detect(c)


def detect(c: Block) -> None:
    """See whether something is lost."""
    lost = sack.lost_before(c) if c.sack_ok else c.una
    if c.mode == Mode.RECOVERY:
        c.lost_edge = max(c.lost_edge, lost)
    elif c.mode == Mode.OPEN and (lost > c.una or _repeated(c)):
        _recover(c, lost)


def _repeated(c: Block) -> bool:
    """Enough duplicates, and not of what was sent again in vain (RFC 6582 §4)."""
    return c.dupacks >= sack.DUPLICATES and c.una > c.recover


def _recover(c: Block, lost: int) -> None:
    c.ssthresh = max((c.max - c.una) // 2, 2 * c.mss)
    c.cwnd = c.ssthresh
    c.credit = 0
    c.mode = Mode.RECOVERY
    c.recover = c.max
    c.high_rxt = c.una
    c.lost_edge = max(lost, min(c.una + c.mss, c.max))
    c.rescue = True


def progress(c: Block, count: int, flight: int) -> None:
    """`una` has moved on by `count` while a loss was being repaired."""
    sack.advance(c)
    if c.una >= c.recover:
        _recovered(c)
    elif c.mode == Mode.LOSS:
        grow(c, count, flight)
    elif not c.sack_ok:  # a partial ACK, RFC 6582 §3.2: the next one is lost as well
        c.sacked_bytes = max(0, min(c.sacked_bytes - count + c.mss, c.max - c.una - c.mss))
        c.high_rxt = c.una
        c.lost_edge = min(c.una + c.mss, c.max)
        c.rescue = True


def _recovered(c: Block) -> None:
    if c.mode == Mode.RECOVERY:
        flight = c.max - c.una
        c.cwnd = c.ssthresh if c.sack_ok else min(c.ssthresh, max(flight, c.mss) + c.mss)
    c.mode = Mode.OPEN
    c.lost_edge = c.high_rxt = c.una
    c.rescue = False
    if not c.sack_ok:
        c.sacked_bytes = 0
    elif c.sacked:
        detect(c)


def timed_out(c: Block) -> None:
    """No acknowledgement came in time. What the peer said to hold counts the first time only, and
    not when that is just what it does not acknowledge: it has thrown it away (RFC 2018 §8)."""
    if c.mode != Mode.LOSS:
        c.ssthresh = max((c.max - c.una) // 2, 2 * c.mss)
    c.cwnd = c.mss
    if c.backoff or (c.sacked and c.sacked[0][0] <= c.una):
        sack.forget(c)
    all_lost(c)


def all_lost(c: Block) -> None:
    """Everything that is under way is to be sent again."""
    c.mode = Mode.LOSS
    c.recover = c.lost_edge = c.max
    c.high_rxt = c.una
    c.dupacks = c.credit = 0
    c.rescue = True
    if not c.sack_ok:
        c.sacked_bytes = 0
    rtt.resent(c)
