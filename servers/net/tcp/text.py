"""text: what arrives of the peer's stream, in order or not (RFC 9293 §3.10.7.4, seventh step on).

Bytes go straight to their place in the receive ring. Pieces out of order are remembered, at most
ISLANDS of them, and never given up again, since the peer has been told of them.
"""

from __future__ import annotations

from servers.net.tcp.block import ISLANDS, Block
from servers.net.tcp.output import acknowledge


def take(c: Block, at: int, data: memoryview, now: int) -> None:
    """Keep the part of `data`, which begins at position `at`, that is new and within the window."""
    end = at + len(data)
    limit = c.adv if c.fin_at < 0 else min(c.adv, c.fin_at)
    start = max(at, c.received)
    stop = min(end, limit)
    if start >= stop:
        acknowledge(c, now)  # nothing of it is new, or nothing fits
        return
    if start > at or stop < end:
        data = data[start - at : stop - at]
    if start > c.received:
        if _remember(c, start, stop):
            c.receive.put(start, data)
        acknowledge(c, now)  # at once, RFC 5681 §4.2
        return
    c.receive.put(start, data)
    _in_order(c, stop, now)
    if stop < end:
        c.ack_now = True


def _in_order(c: Block, end: int, now: int) -> None:
    """Everything before `end` is there. An ACK is due for every second full segment."""
    length = end - c.received
    c.received = end
    c.changed = True
    if length > c.rcv_mss:
        c.rcv_mss = min(length, c.config.mss)
    if c.islands:
        _absorb(c)
        c.ack_now = True
        return
    c.ack_pending += length
    # Full segments may be shorter than our MSS by their options, and not all of them be full.
    if c.ack_pending >= 2 * (c.rcv_mss - 40):
        c.ack_now = True
    elif not c.ack_at:
        c.ack_at = now + c.config.delayed_ack


def _absorb(c: Block) -> None:
    """Islands that the stream has reached are part of it."""
    for start, end in sorted(c.islands):
        if start <= c.received:
            c.received = max(c.received, end)
            c.islands.remove((start, end))


def _remember(c: Block, start: int, end: int) -> bool:
    """An island, joined with those that it touches, to be told of first (RFC 2018 §4); False
    when there are too many."""
    apart = [island for island in c.islands if island[1] < start or island[0] > end]
    if len(apart) >= ISLANDS:
        return False
    for left, right in c.islands:
        if right >= start and left <= end:
            start, end = min(start, left), max(end, right)
    c.islands = [(start, end), *apart]
    c.changed = True
    return True


def finish(c: Block, at: int) -> None:
    """A FIN stands at `at`. The first one counts, and only where nothing lies beyond it."""
    if c.fin_at < 0 and at >= c.received and all(end <= at for _, end in c.islands):
        c.fin_at = at
        c.changed = True
