"""hosts: tables of connections for tests, with the memory, the wire and the store they lack."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from servers.net.ring import Ring
from servers.net.tcp.connection import Config, Outgoing
from servers.net.tcp.entries import Entry, Stored
from servers.net.tcp.limits import Limits
from servers.net.tcp.quad import Quad
from servers.net.tcp.segment import MASK, SYN, Options, Segment, pack_header, pack_options, parse
from servers.net.tcp.table import Sending, Table
from servers.net.tcp.timewait import Past, unpack

SERVER, CLIENT = 0x0A000001, 0x0A000002
SECRET = bytes(range(32))
RING = 8192
SECOND = 1_000_000
START = 1_000 * SECOND
NOTHING = memoryview(b"")


class Pool:
    """Slots; gives back are checked."""

    def __init__(self, count: int, ring: int = RING) -> None:
        self.window = ring
        self.held: dict[object, tuple[Ring, Ring]] = {}
        self._free = list(range(count))
        self._ring = ring

    def take(self, holder: int) -> tuple[Ring, Ring, object] | None:
        if not self._free:
            return None
        handle = self._free.pop()
        rings = Ring(memoryview(bytearray(self._ring))), Ring(memoryview(bytearray(self._ring)))
        self.held[handle] = rings
        return *rings, handle

    def give_back(self, handle: object) -> None:
        del self.held[handle]
        assert isinstance(handle, int)
        self._free.append(handle)


class Host:
    """A table and what surrounds it. `store` has what a death would leave."""

    def __init__(
        self,
        address: int = SERVER,
        slots: int = 16,
        limits: Limits = Limits(),  # noqa: B008  immutable
        config: Config = Config(),  # noqa: B008
        secret: bytes = SECRET,
        ring: int = RING,
    ) -> None:
        self.address = address
        self.now = START
        self.pool = Pool(slots, ring)
        self.past: dict[int, bytes] = {}
        self._stored: dict[Entry, Stored] = {}
        self._make: Callable[[], Table] = lambda: Table(address, config, secret, self.pool, limits)
        self.table = self._make()

    def commit(self) -> list[Sending]:
        """Store what is dirty, and take what is to be sent."""
        for entry in self.table.take_dirty():
            rings = self.pool.held[entry.handle]
            data, waiting = entry.connection.pack(), entry.listener is not None
            self._stored[entry] = Stored(
                entry.quad, *rings, entry.handle, data, entry.released, waiting, entry.user
            )
        self.past.update(self.table.take_past())
        return self.table.take_out()

    def die(self, listening: Iterable[tuple[int, int]] = ()) -> list[Entry]:
        """Another life, which listens at these ports with these backlogs."""
        stored = [each for entry, each in self._stored.items() if not entry.gone]
        found = [(number, unpack(record)) for number, record in self.past.items()]
        past: list[tuple[int, Past]] = [(number, each) for number, each in found if each]
        self._stored = {}
        self.table = self._make()
        for port, backlog in listening:
            self.table.listen(port, 0, backlog)
        return self.table.restore(stored, past, self.now)

    def write(self, entry: Entry, data: bytes) -> None:
        """Queue bytes to be sent."""
        end = entry.connection.queued_end
        entry.connection.send.put(end, data)
        entry.connection.queued(end + len(data), self.now)
        self.table.touched(entry, self.now)

    def read(self, entry: Entry) -> bytes:
        """Everything that has come and was not read."""
        start, end = entry.connection.consumed_to, entry.connection.received
        data = bytearray(end - start)
        entry.connection.receive.get(start, end - start, memoryview(data))
        entry.connection.consumed(end, self.now)
        self.table.touched(entry, self.now)
        return bytes(data)

    def get(self, source: int, segment: Segment) -> list[Segment]:
        """A segment comes; what is sent then."""
        self.table.arrived(source, self.address, segment, self.now)
        return [on_wire(each) for each in self.commit()]

    def wait(self, until: int) -> list[Segment]:
        """Time passes, and what is due is done."""
        found = []
        while 0 < self.table.deadline <= until:
            self.now = max(self.now, self.table.deadline)
            self.table.tick(self.now)
            found += [on_wire(each) for each in self.commit()]
        self.now = until
        return found


def on_wire(sending: Sending) -> Segment:
    """As the peer will get it."""
    quad, out, entry = sending
    payload = bytearray(out.length)
    if out.length:
        assert entry is not None
        entry.connection.send.get(out.at, out.length, memoryview(payload))
    return parse(memoryview(header(quad, out) + payload))


def header(quad: Quad, out: Outgoing) -> bytes:
    _, local_port, _, remote_port = quad
    return pack_header(
        local_port, remote_port, out.seq, out.ack, out.flags, out.window, out.options
    )


def pump(*hosts: Host) -> None:
    """Carry segments until nobody sends any more."""
    at = {host.address: host for host in hosts}
    busy = True
    while busy:
        busy = False
        for host in hosts:
            for sending in host.commit():
                busy = True
                segment = on_wire(sending)
                to = at[sending.quad.remote]
                to.table.arrived(host.address, to.address, segment, to.now)


def segment(
    flags: int,
    seq: int = 0,
    ack: int = 0,
    payload: bytes = b"",
    options: Options = Options(),  # noqa: B008
    source: int = 40_000,
    destination: int = 80,
) -> Segment:
    return Segment(
        source, destination, seq & MASK, ack & MASK, flags, 1000, options, memoryview(payload)
    )


def syn(source: int = 40_000, seq: int = 100, options: Options | None = None) -> Segment:
    """A SYN with what Linux offers."""
    offered = Options(1460, 7, True, (5000, 0)) if options is None else options
    return segment(SYN, seq, options=offered, source=source)


def stamps(value: int, echo: int) -> Options:
    return Options(timestamp=(value, echo))


def packed(options: Options) -> bytes:
    return pack_options(
        options.mss, options.scale, options.sack_permitted, options.timestamp, options.sack
    )
