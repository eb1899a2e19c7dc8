"""record: a connection as bytes, so that another life goes on with it. Pure.

Everything that the peer was told, or that cannot be found out again, is in the record: sequence
numbers, windows, options, what came out of order (SACK is never taken back), FINs, the error.
What the peer holds of ours, and the timers, are found out anew.
"""

from __future__ import annotations

import struct

from servers.net.tcp import congestion, handshake
from servers.net.tcp.block import ISLANDS, Block, Error, State, close, settle
from servers.net.tcp.output import arm, output, synchronize

FIELDS = (
    *("state", "iss1", "irs1", "snd_scale", "rcv_scale", "peer_mss", "ts_offset", "ts_recent"),
    *("ts_recent_at", "una", "max", "queued_end", "snd_edge", "wl1", "wl2", "max_wnd"),
    *("received", "consumed_to", "adv", "ack_sent", "fin_at", "rcv_mss", "ssthresh", "srtt_us"),
    *("rttvar", "rto", "since", "retransmits", "lives", "linger_at"),
)
FLAGS = ("active_open", "closing", "closed", "stamps", "sack_ok", "scaled", "peer_done")
_LAYOUT = struct.Struct("<BIIBBHIIqqqqqqqIqqqqqIIIIIqIIqHBB" + "II" * ISLANDS)
RECORD_BYTES = _LAYOUT.size
_LARGE = (1 << 32) - 1


def pack(c: Block) -> bytes:
    """RECORD_BYTES of it."""
    flags = (
        c.active_open
        | c.closing << 1
        | c.closed << 2
        | c.stamps << 3
        | c.sack_ok << 4
        | c.scaled << 5
        | c.peer_done << 6
    )
    received = c.received
    islands = [edge - received for island in c.islands for edge in island]
    islands += (0,) * (2 * ISLANDS - len(islands))
    return _LAYOUT.pack(
        *(c.state, c.iss1, c.irs1, c.snd_scale, c.rcv_scale, c.peer_mss, c.ts_offset),
        *(c.ts_recent, c.ts_recent_at, c.una, c.max, c.queued_end, c.snd_edge, c.wl1, c.wl2),
        *(c.max_wnd, received, c.consumed_to, c.adv, c.ack_sent, c.fin_at, c.rcv_mss),
        *(min(c.ssthresh, _LARGE), min(c.srtt_us, _LARGE), min(c.rttvar, _LARGE), c.rto, c.since),
        *(c.retransmits & _LARGE, c.lives, c.linger_at, flags, c.error or 0, len(c.islands)),
        *islands,
    )


def unpack(c: Block, data: bytes) -> None:
    """Put what `pack` took back into a block that is new."""
    values = _LAYOUT.unpack(data)
    for name, value in zip(FIELDS, values, strict=False):
        setattr(c, name, value)
    flags, error, count, *edges = values[len(FIELDS) :]
    for bit, name in enumerate(FLAGS):
        setattr(c, name, bool(flags >> bit & 1))
    c.state = State(c.state)
    c.error = Error(error) if error else None
    edges = [edge + c.received for edge in edges[: 2 * count]]
    c.islands = list(zip(edges[::2], edges[1::2], strict=True))


def revive(c: Block, data: bytes, now: int) -> None:
    """Go on: tell the peer where we are, and send again what it may not have got, at once."""
    unpack(c, data)
    c.lives += 1
    c.changed = True
    if c.state == State.CLOSED:
        close(c, c.error)
        return
    c.heard_at = now
    c.since = now  # for as long as we were dead, nobody can have been heard
    handshake.sizes(c)
    c.cwnd = congestion.INITIAL * c.mss
    again(c, now)


def again(c: Block, now: int) -> None:
    """Send again what is under way, and where we are. This is no sign of congestion."""
    c.backoff = c.probes = c.retransmit_at = 0
    if c.state in (State.SYN_SENT, State.SYN_RECEIVED):
        synchronize(c, now)
        arm(c, now)
    elif c.state >= State.ESTABLISHED:
        if c.max > c.una:
            congestion.all_lost(c)
        c.ack_now = True
        output(c, now)
    settle(c)
