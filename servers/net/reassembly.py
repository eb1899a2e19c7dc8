"""reassembly: datagrams out of fragments (RFC 791 §3.2, RFC 815). Pure.

Strangers fill this, so it is bounded in datagrams, bytes and time; what came first goes first.
Fragments that overlap are no accident: as RFC 5722 has it for IPv6, such a datagram is refused,
with all that still comes of it. A fragment that came twice is no overlap.
"""

from __future__ import annotations

from bisect import bisect

from servers.net import ipv4
from servers.net.malformed import Malformed

MOST_DATAGRAMS = 64
MOST_BYTES = 1 << 20  # of all together
PATIENCE_US = 30_000_000
PIECE_BYTES = 128  # what keeping a fragment costs besides its payload
_QUOTED = 8  # payload bytes that an ICMP error repeats (RFC 792)

Key = tuple[int, int, int, int]  # source, destination, protocol, identification


class _Datagram:
    """What has come of one."""

    def __init__(self, deadline: int) -> None:
        self.deadline = deadline
        self.starts: list[int] = []  # sorted
        self.pieces: list[bytes] = []  # in the same order
        self.first: ipv4.Packet | None = None
        self.got = 0  # bytes of payload in the pieces
        self.end = 0  # of the last that came in the order of the datagram
        self.length = -1  # of the whole, once its last fragment is here
        self.refused = False

    @property
    def cost(self) -> int:
        return self.got + PIECE_BYTES * len(self.pieces)

    @property
    def whole(self) -> bool:
        return self.got == self.length

    def place(self, start: int, end: int) -> int | None:
        """Where among the pieces this one belongs; None if it is there already. Raises Malformed
        if it overlaps with another."""
        at = bisect(self.starts, start)
        before = self.starts[at - 1] + len(self.pieces[at - 1]) if at else 0
        if at and end <= before:
            return None
        if start < before or (at < len(self.starts) and end > self.starts[at]):
            raise Malformed("fragments that overlap")
        return at

    def bound(self, end: int, last: bool) -> None:
        """Raises Malformed if the fragments do not agree on how long the datagram is."""
        if last and (end < self.end or self.length not in (-1, end)):
            raise Malformed("fragments behind the last one")
        if 0 <= self.length < end:
            raise Malformed("a fragment behind the last one")

    def refuse(self) -> None:
        """Keep nothing but the knowledge."""
        self.starts.clear()
        self.pieces.clear()
        self.first = None
        self.got = 0
        self.refused = True


class Reassembly:
    """All datagrams that are incomplete."""

    def __init__(self) -> None:
        self._datagrams: dict[Key, _Datagram] = {}  # the oldest, whose time ends first, first
        self.bytes = 0  # that they cost
        self.deadline = 0
        self.dropped = 0  # datagrams that were refused, ran out of time or had to make room

    def __len__(self) -> int:
        return len(self._datagrams)

    def add(self, packet: ipv4.Packet, now: int) -> ipv4.Packet | None:
        """The whole datagram, if this was what was missing. Raises Malformed for a fragment that
        cannot be part of any, or not of what has come of this one, which is lost then."""
        start = (packet.cut & ipv4.OFFSET) * 8
        end = start + len(packet.payload)
        more = bool(packet.cut & ipv4.MORE_FRAGMENTS)
        _check(packet, start, end, more)
        key = (packet.source, packet.destination, packet.protocol, packet.ident)
        datagram = self._datagrams.get(key) or self._begin(key, now)
        if datagram.refused:
            return None
        self.bytes -= datagram.cost
        try:
            self._insert(datagram, packet, start, end, more)
        except Malformed:
            datagram.refuse()
            self.dropped += 1
            raise
        finally:
            self.bytes += datagram.cost
        if datagram.whole:
            self._remove(key)
            return _joined(datagram)
        self._make_room()
        return None

    def tick(self, now: int) -> list[ipv4.Packet]:
        """Give up what is too old; the beginnings of those whose beginning had come."""
        firsts = []
        while self.deadline and self.deadline <= now:
            datagram = self._drop_oldest()
            if datagram.first is not None:
                firsts.append(datagram.first)
        return firsts

    def _insert(
        self, datagram: _Datagram, packet: ipv4.Packet, start: int, end: int, more: bool
    ) -> None:
        datagram.bound(end, last=not more)
        at = datagram.place(start, end)
        if at is None:
            return
        datagram.starts.insert(at, start)
        datagram.pieces.insert(at, bytes(packet.payload))
        datagram.got += end - start
        datagram.end = max(datagram.end, end)
        if not more:
            datagram.length = end
        if start == 0:
            datagram.first = packet._replace(payload=memoryview(datagram.pieces[0])[:_QUOTED])

    def _begin(self, key: Key, now: int) -> _Datagram:
        if len(self._datagrams) >= MOST_DATAGRAMS:
            self._drop_oldest()
        datagram = self._datagrams[key] = _Datagram(now + PATIENCE_US)
        self._set_deadline()
        return datagram

    def _make_room(self) -> None:
        while self.bytes > MOST_BYTES:
            self._drop_oldest()

    def _drop_oldest(self) -> _Datagram:
        key = next(iter(self._datagrams))
        datagram = self._remove(key)
        self.dropped += not datagram.refused
        return datagram

    def _remove(self, key: Key) -> _Datagram:
        datagram = self._datagrams.pop(key)
        self.bytes -= datagram.cost
        self._set_deadline()
        return datagram

    def _set_deadline(self) -> None:
        oldest = next(iter(self._datagrams.values()), None)
        self.deadline = oldest.deadline if oldest else 0


def _check(packet: ipv4.Packet, start: int, end: int, more: bool) -> None:
    if end + packet.header_bytes > ipv4.MOST_BYTES:
        raise Malformed("a fragment that ends behind the longest datagram")
    if end == start or (more and end % 8):
        raise Malformed("a fragment of no bytes, or not of eights though more follow")
    if start == 8 and packet.protocol == ipv4.TCP:
        raise Malformed("a TCP header cut in two, to hide its flags (RFC 3128)")


def _joined(datagram: _Datagram) -> ipv4.Packet:
    """With the header of the first fragment. The pieces are all there, and in their order."""
    first = datagram.first
    if first is None:
        raise Malformed("a datagram without a beginning")
    payload = memoryview(b"".join(datagram.pieces))
    return first._replace(cut=first.cut & ipv4.DONT_FRAGMENT, payload=payload)
