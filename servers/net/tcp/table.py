"""table: all TCP connections of a host. Pure: segments, calls and the time come in, the segments
to be sent are taken out.

    table = Table(address, config, secret, slots, limits)
    table.arrived(source, destination, segment, now)      a segment that was parsed and verified
    table.tick(now); table.deadline                       what is due; when that is next, 0: never
    table.listen(port, address, backlog, holder=0) -> Listener
                                                          raises PortInUse, NoRoom
    table.unlisten(listener, now)
    table.accepted(listener) -> Entry | None              the next that is established
    table.connect(remote, remote_port, now, local_port=0, holder=0) -> Entry
                                                          raises BadPeer, PortInUse, NoRoom
    table.touched(entry, now)                             after any call of `entry.connection`
    table.release(entry, now)                             nobody holds the socket any more
    table.unreachable(quad, now, seq)                     ICMP says so of a segment of ours
    table.link_restored(now)                              frames may have been lost
    table.restore(stored, past, now) -> list[Entry]       after a death; `listen` comes first
    table.take_dirty() -> list[Entry]                     whose `connection.pack()` must be stored,
        with `released` and with `listener is not None` (`Stored.waiting`)
    table.take_past() -> list[(number, record)]           TIME-WAIT, number < limits.time_waits
    table.take_out() -> list[Sending]                     only after both are stored

An entry of `take_dirty` that has a `listener` waits there to be accepted. Who connected or
accepted an entry holds it until `release`, and with it its slot, even when the connection is over.
What was released goes on until everything queued is acknowledged, and then the table gives its
slot back, as it does with a connection that nobody has accepted. The payload of a `Sending` lies
in the send ring of its entry.

The secret must be that of the earlier lives: handshakes under way go on by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from servers.net.tcp import rtt
from servers.net.tcp.connection import Config, State
from servers.net.tcp.connections import Connections, Sending
from servers.net.tcp.cookies import LIFETIME_US, Cookies
from servers.net.tcp.entries import (
    BadPeer,
    Entry,
    Handshake,
    Listener,
    NoRoom,
    PortInUse,
    Slots,
    Stored,
    TableError,
)
from servers.net.tcp.handshakes import BEYOND, Handshakes
from servers.net.tcp.isn import Isn
from servers.net.tcp.limits import Counters, Limits
from servers.net.tcp.listeners import Listeners
from servers.net.tcp.ports import Ports
from servers.net.tcp.quad import Quad
from servers.net.tcp.segment import ACK, FIN, MASK, RST, SYN, Segment, lt
from servers.net.tcp.timewait import Past, Verdict, acknowledgement, judge, reusable

__all__ = [
    "BadPeer",
    "Counters",
    "Entry",
    "Limits",
    "Listener",
    "NoRoom",
    "PortInUse",
    "Quad",
    "Sending",
    "Slots",
    "Stored",
    "Table",
    "TableError",
]

STANDARD = Limits()


class Table(Connections):
    """The connections of the host that has `address`."""

    def __init__(
        self, address: int, config: Config, secret: bytes, slots: Slots, limits: Limits = STANDARD
    ) -> None:
        super().__init__(config, slots, limits)
        self.listeners = Listeners(limits)
        self._address = address
        self._isn = Isn(secret)
        self._ports = Ports(secret)
        cookies = Cookies(secret, self._isn)
        self._handshakes = Handshakes(
            config, self._isn, cookies, limits, self._nobody, slots.window
        )

    @property
    def half_open(self) -> int:
        """Handshakes that are remembered."""
        return len(self._handshakes)

    # --- segments -------------------------------------------------------------------------------

    def arrived(self, source: int, destination: int, segment: Segment, now: int) -> None:
        """A segment has come from `source`."""
        quad = Quad(destination, segment.destination, source, segment.source)
        entry = self._entries.get(quad)
        if entry is not None:
            entry.connection.arrived(segment, now)
            self.touched(entry, now)
        elif not self._answerable(quad):
            self.counters.foreign += 1
        elif (past := self.time_waits.get(quad)) is not None:
            self._after_the_end(past, segment, now)
        elif (handshake := self._handshakes.get(quad)) is not None:
            if self._handshakes.arrived(handshake, segment, now):
                self._finish(handshake, segment, now)
        else:
            self._uninvited(quad, segment, now)

    def _answerable(self, quad: Quad) -> bool:
        """Both ends are one host each, and not the same (RFC 1122 §3.2.1.3, RFC 9293 §3.9.2.3)."""
        local, local_port, remote, remote_port = quad
        strange = remote >> 24 == 0 or remote >> 28 >= 0xE
        itself = (local, local_port) == (remote, remote_port)
        return local == self._address and bool(remote_port) and not strange and not itself

    def _uninvited(self, quad: Quad, segment: Segment, now: int) -> None:
        """A segment for a listener or for nobody (RFC 9293 §3.10.7.1 and §3.10.7.2)."""
        listener = self.listeners.find(quad)
        flags = segment.flags
        if listener is None or flags & RST or flags & (SYN | ACK) == SYN | ACK:
            self.counters.unknown += 1
            self._nobody.reset(quad, segment, now)
        elif flags & SYN:
            self._begin(listener, quad, segment, now)
        elif flags & ACK:
            self._from_cookie(listener, quad, segment, now)

    def _after_the_end(self, past: Past, segment: Segment, now: int) -> None:
        """A segment of a connection in TIME-WAIT, or the first of the next one."""
        verdict = judge(past, segment)
        if verdict is Verdict.NEW and (listener := self.listeners.find(past.quad)):
            self.counters.time_waits_reused += 1
            self.time_waits.remove(past.quad)
            self._begin(listener, past.quad, segment, now, past.end.send_next)
        elif verdict is not Verdict.OLD:
            if segment.flags & FIN:
                past = self.time_waits.add(past, now)
            self._nobody.challenge(past.quad, acknowledgement(past, now), now)

    # --- connections that peers begin -----------------------------------------------------------

    def _begin(
        self, listener: Listener, quad: Quad, syn: Segment, now: int, last: int = -1
    ) -> None:
        if listener.full:
            self.counters.backlog_overflows += 1
        else:
            self._handshakes.begin(listener, quad, syn, now, last)

    def _finish(self, handshake: Handshake, segment: Segment, now: int) -> None:
        """The third segment of a handshake that we remember."""
        entry = self._room(handshake.listener, handshake.quad)
        if entry is None:
            return
        connection, agreed = entry.connection, handshake.agreed
        syn = segment._replace(seq=agreed.irs, options=agreed.options(handshake.stamp))
        offset = self._isn.timestamp_offset(entry.quad)
        connection.passive(syn, agreed.iss, handshake.sent_at, offset)
        connection.out.clear()  # the SYN-ACK went out long ago
        if handshake.repeats:
            rtt.resent(connection)
            connection.retransmits = handshake.repeats
        self._handshakes.finish(handshake)
        connection.arrived(segment, now)
        self._establish(entry, handshake.listener, now)

    def _from_cookie(self, listener: Listener, quad: Quad, segment: Segment, now: int) -> None:
        """The third segment of a handshake that nobody remembers, if it is one."""
        agreed = self._handshakes.recognise(listener, quad, segment, now)
        entry = self._room(listener, quad) if agreed else None
        if agreed is None or entry is None:
            return
        self.counters.cookies_accepted += 1
        offset = self._isn.timestamp_offset(quad)
        entry.connection.from_cookie(segment, now, agreed.options(0), offset)
        self._establish(entry, listener, now)

    def _room(self, listener: Listener, quad: Quad) -> Entry | None:
        """For a connection. Without it the third segment is ignored: it will come again."""
        if listener.full:
            self.counters.backlog_overflows += 1
            return None
        return self.add(quad, listener.holder)

    def _establish(self, entry: Entry, listener: Listener, now: int) -> None:
        self.counters.established += 1
        entry.listener = listener
        listener.waiting.append(entry)
        self.touched(entry, now)

    # --- sockets --------------------------------------------------------------------------------

    def listen(self, port: int, address: int, backlog: int, holder: int = 0) -> Listener:
        """Take connections at `port` of `address`, or of any if that is 0, for the client `holder`.
        At most `backlog` wait to be accepted. Raises PortInUse, NoRoom."""
        return self.listeners.add(port, address, backlog, holder)

    def unlisten(self, listener: Listener, now: int) -> None:
        """Take no more; what nobody has accepted is broken off."""
        self.listeners.remove(listener)
        self._handshakes.forget(listener)
        for entry in list(listener.waiting):
            entry.connection.abort(now)
            self.touched(entry, now)

    def accepted(self, listener: Listener) -> Entry | None:
        """The next connection that was established there; the caller holds it now."""
        if not listener.waiting:
            return None
        entry = listener.waiting.popleft()
        entry.listener = None
        self._dirty[entry] = None
        return entry

    def connect(
        self, remote: int, remote_port: int, now: int, local_port: int = 0, holder: int = 0
    ) -> Entry:
        """Begin a connection of the client `holder`, from a port of ours that is free unless one
        is named. Raises BadPeer, PortInUse, NoRoom."""
        quad = Quad(self._address, local_port, remote, remote_port)
        if not self._answerable(quad):
            raise BadPeer(f"no connection leads to port {remote_port} of that address")
        quad = self._named(quad, now) if local_port else self._chosen(quad, now)
        entry = self.add(quad, holder)
        if entry is None:
            raise NoRoom("there are as many connections as there may be")
        iss = self._isn.generate(quad, now)
        past = self.time_waits.get(quad)
        if past is not None:
            self.counters.time_waits_reused += 1
            self.time_waits.remove(quad)
            if not lt(past.end.send_next, iss):
                iss = (past.end.send_next + BEYOND) & MASK
        entry.connection.active(iss, now, self._isn.timestamp_offset(quad))
        self.touched(entry, now)
        return entry

    def _named(self, quad: Quad, now: int) -> Quad:
        if self._free(quad) or self._reusable(quad, now):
            return quad
        raise PortInUse(f"port {quad.local_port} is in use")

    def _chosen(self, quad: Quad, now: int) -> Quad:
        """With a port that nobody has; if need be, one that the peer will take again already."""

        def choose(suits: Callable[[Quad], bool]) -> int:
            def free(port: int) -> bool:
                return not self.listeners.has(port) and suits(quad._replace(local_port=port))

            return self._ports.choose(quad, free, now)

        port = choose(self._free) or choose(lambda quad: self._reusable(quad, now))
        if not port:
            raise PortInUse("every port is in use")
        return quad._replace(local_port=port)

    def _free(self, quad: Quad) -> bool:
        taken = quad in self._entries or self._handshakes.get(quad) or self.time_waits.get(quad)
        return not taken

    def _reusable(self, quad: Quad, now: int) -> bool:
        past = self.time_waits.get(quad)
        return past is not None and reusable(past, self._config.time_wait, now)

    # --- time and the world ---------------------------------------------------------------------

    @property
    def deadline(self) -> int:
        """When `tick` has something to do; 0: never."""
        found = (super().deadline, self._handshakes.deadline)
        return min((each for each in found if each), default=0)

    def tick(self, now: int) -> None:
        """Do what is due."""
        super().tick(now)
        self._handshakes.tick(now)

    def unreachable(self, quad: Quad, now: int, seq: int | None = None) -> None:
        """ICMP says that a segment of ours, with sequence number `seq`, did not get there. It
        ends only an attempt to connect (RFC 5927 §4.1, §5.2)."""
        entry = self._entries.get(quad)
        if entry is None or entry.connection.state is not State.SYN_SENT:
            return
        if seq is None or (seq + 1) & MASK == entry.connection.iss1:
            entry.connection.unreachable(now)
            self.touched(entry, now)

    def link_restored(self, now: int) -> None:
        """Send again whatever may have been lost."""
        for entry in self.entries:
            entry.connection.link_restored(now)
            self.touched(entry, now)
        self._handshakes.repeat(now)

    def restore(
        self, stored: Iterable[Stored], past: Iterable[tuple[int, Past]], now: int
    ) -> list[Entry]:
        """Go on with what an earlier life has left; an entry for each of `stored`, in its order.
        Some may be over. The listeners are there already."""
        self.time_waits.restore(iter(past), now)
        for listener in self.listeners:
            listener.cookies_until = now + LIFETIME_US
        return [self.revive(each, self.listeners.find(each.quad), now) for each in stored]
