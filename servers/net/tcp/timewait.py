"""timewait: connections that are over, but whose segments may still be under way. Pure.

What is left of one is where its sequence numbers ended: enough to acknowledge the peer's FIN once
more (RFC 9293 §3.10.7.4), and to know a new connection from an old segment (RFC 6191). A reset
does not end it early (RFC 1337). The oldest make room for new ones.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple
from zlib import crc32

from servers.net.ring import Bytes
from servers.net.tcp.block import Outgoing, Residue
from servers.net.tcp.quad import Quad
from servers.net.tcp.segment import ACK, FIN, MASK, RST, SYN, Segment, diff, pack_timestamp

MOST = 4096
_LAYOUT = struct.Struct("<IHIHIIH?IIQ")
RECORD_BYTES = _LAYOUT.size + 4
TICKED_US = 1_000_000  # after that the peer's clock of timestamps has certainly moved on


class Past(NamedTuple):
    """A connection in TIME-WAIT."""

    quad: Quad
    end: Residue
    until: int = 0

    def pack(self) -> bytes:
        """RECORD_BYTES that say whether they are whole."""
        data = _LAYOUT.pack(*self.quad, *self.end, self.until)
        return data + crc32(data).to_bytes(4, "little")


def unpack(data: Bytes) -> Past | None:
    """What `Past.pack` made; nothing of anything else."""
    body = bytes(data[: _LAYOUT.size])
    if len(data) != RECORD_BYTES or crc32(body).to_bytes(4, "little") != data[_LAYOUT.size :]:
        return None
    values = _LAYOUT.unpack(body)
    return Past(Quad(*values[:4]), Residue(*values[4:-1]), values[-1])


class Verdict(Enum):
    """What a segment for a connection in TIME-WAIT is."""

    OLD = auto()  # nothing to be done
    AGAIN = auto()  # the peer has not got the last acknowledgement
    NEW = auto()  # a SYN of a connection to come: this one is over


class TimeWait:
    """At most `most` connections in TIME-WAIT, each for `wait` (2 MSL). Every one has a number
    below `most`; `changed` has the records by number that another life would need, and its owner
    takes them out. A record whose time is over means nothing."""

    def __init__(self, wait: int, most: int = MOST) -> None:
        self.changed: dict[int, bytes] = {}
        self.forgotten = 0  # before their time
        self._wait = wait
        self._past: OrderedDict[Quad, tuple[int, Past]] = OrderedDict()  # by `until`
        self._free = list(range(most - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._past)

    def __iter__(self) -> Iterator[Past]:
        return (past for _, past in self._past.values())

    def get(self, quad: Quad) -> Past | None:
        found = self._past.get(quad)
        return found[1] if found else None

    @property
    def deadline(self) -> int:
        """When the first is over; 0 when there is none."""
        return next(iter(self._past.values()))[1].until if self._past else 0

    def add(self, past: Past, now: int) -> Past:
        """It has just come to its end, or must wait once more. Until when, is set here."""
        self.remove(past.quad)
        if not self._free:
            self.forgotten += 1
            self.remove(next(iter(self._past)))
        past = past._replace(until=now + self._wait)
        self._put(self._free.pop(), past)
        return past

    def restore(self, records: Iterator[tuple[int, Past]], now: int) -> None:
        """Those that are not over, from their numbers and records, into an empty table."""
        free = set(self._free)
        valid = [(past.until, number, past) for number, past in records if past.until > now]
        for _, number, past in sorted(valid):
            if number in free and past.quad not in self._past:
                free.remove(number)
                self._past[past.quad] = (number, past)
        self._free = sorted(free, reverse=True)

    def remove(self, quad: Quad) -> None:
        """It is over."""
        found = self._past.pop(quad, None)
        if found:
            self._free.append(found[0])

    def tick(self, now: int) -> None:
        """Let go of what has waited long enough."""
        while 0 < self.deadline <= now:
            self.remove(next(iter(self._past)))

    def _put(self, number: int, past: Past) -> None:
        self._past[past.quad] = (number, past)
        self.changed[number] = past.pack()


def judge(past: Past, segment: Segment) -> Verdict:
    """What a segment means for a connection that is over."""
    if segment.flags & RST:
        return Verdict.OLD
    if segment.flags & SYN:
        begins = not segment.flags & ACK and _begins(past, segment)
        return Verdict.NEW if begins else Verdict.AGAIN
    length = len(segment.payload) + bool(segment.flags & FIN)
    return Verdict.AGAIN if length or segment.seq != past.end.receive_next else Verdict.OLD


def _begins(past: Past, syn: Segment) -> bool:
    """RFC 6191 §2: a SYN that cannot be of the connection that was, since its timestamp is later,
    or, where timestamps do not tell, its sequence number."""
    stamp = syn.options.timestamp
    end = past.end
    if end.timestamps and stamp and stamp[0] != end.recent:
        return diff(stamp[0], end.recent) > 0
    if stamp and not end.timestamps:
        return True
    return diff(syn.seq, end.receive_next) > 0


def reusable(past: Past, wait: int, now: int) -> bool:
    """We may begin a connection of the same quad: the peer will know it by its timestamps."""
    return past.end.timestamps and now - (past.until - wait) > TICKED_US


def acknowledgement(past: Past, now: int) -> Outgoing:
    """Where the connection ended, for a peer that does not know it."""
    end = past.end
    options = b""
    if end.timestamps:
        options = pack_timestamp((now // 1000 + end.offset) & MASK, end.recent)
    return Outgoing(ACK, end.send_next, end.receive_next, end.window, options, 0, 0, 0)
