"""window: what we let the peer send (RFC 9293 §3.8.6.2, RFC 7323 §2).

The right edge of the window never goes back, and moves on by no less than a segment or half of
the ring, so that the peer is never tempted to send crumbs.
"""

from __future__ import annotations

from servers.net.tcp.block import LARGEST_WINDOW, Block


def announce(c: Block) -> int:
    """The window for a segment that is about to be sent, as on the wire."""
    size = c.receive.size
    free = c.consumed_to + size
    edge = c.adv
    if free - edge >= min(c.config.mss, size >> 1):
        edge = free
    received = c.received
    scale = c.rcv_scale
    # Rounded up, since rounding down would take back what was promised; but never beyond the ring.
    window = -((received - edge) >> scale)
    if received + (window << scale) > free:
        window -= 1
    if window > LARGEST_WINDOW:
        window = LARGEST_WINDOW
    elif window < 0:
        window = 0
    edge = received + (window << scale)
    if edge > c.adv:
        c.adv = edge
        c.changed = True
    return window


def due(c: Block) -> bool:
    """The user has made so much room that the peer must be told, unless it has enough."""
    size = c.receive.size
    largest = min(size, LARGEST_WINDOW << c.rcv_scale)
    edge = min(c.consumed_to + size, c.received + largest)
    enough = min(2 * c.config.mss, max(1, largest >> 1))
    return edge - c.adv >= enough and c.adv - c.received < (largest + 1) >> 1
