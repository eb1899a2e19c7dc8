"""engine: what makes connections outlive the process: commit, then send, then answer.

What happens, a frame, a call, a timer, changes the stack at once, and nothing else. Before the
server waits, `settle` puts what has changed into the store, a persistent region; then the frames
go out, then clients are answered, which may change something again. So peers and clients are only
told of what the next life knows: it begins with `_revive`, as the first one does, and whatever was
lost in between is, to everybody else, a packet that was lost.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from servers.net.addresses import peer
from servers.net.calls import Asked, Calls
from servers.net.datagrams import OpenDatagrams
from servers.net.events import Event
from servers.net.held import Socket
from servers.net.labels import DEAF, RELEASED, WAITS, BoundRecord, Kind, Label, StreamRecord
from servers.net.places import Places
from servers.net.port import Port
from servers.net.questions import Questions
from servers.net.readiness import Readiness
from servers.net.settings import BadSettings, Settings
from servers.net.stack import Stack
from servers.net.store import SECRET_BYTES, Geometry, Record, Slot, Store
from servers.net.streams import OpenListener, OpenStream
from servers.net.tcp.entries import Entry, Listener, Stored
from servers.net.tcp.timewait import RECORD_BYTES, unpack
from ukernel.abi.errors import Revoked
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.interface import Interface
from ukernel.abi.network import Address, Ethernet, Ready
from ukernel.lib.server import Server
from ukernel.lib.stub import by_kernel, connect
from ukernel.lib.upstream import Patience

PATIENCE_S = 1.0  # with a driver that does not get on
RETRY_NS = 200_000_000  # until the driver is asked again for what it has refused, or who it is


class Engine(Server):
    @property
    def now(self) -> int:
        """Microseconds, the same for all lives."""
        return time.monotonic_ns() // 1000

    def setup(self) -> None:
        settings = self._settings()
        shape = Geometry(settings.connections, settings.send_buffer, settings.receive_buffer)
        rings = self.region("sockets", shape.total, persistent=True)
        self.store = Store(rings.view, shape, os.urandom(SECRET_BYTES))
        nic = connect(Ethernet, self._card_name(), timeout_s=None)
        self.port = Port(self, nic, by_kernel(nic), rings, self._frame, self._link_restored)
        self.places = Places(self.store, self.port, settings.per_client)
        self.stack = Stack(
            settings, self.port.card, self.store.secret, self.places, _random(), self._heard
        )
        self.places.withdraw = self.stack.host.withdraw
        self.questions: Questions[Asked[Any]] = Questions(
            self.stack.host, self.stack.resolver, _random
        )
        self.readiness: Readiness[Asked[list[Ready]]] = Readiness()
        self._badges: int = self.store.lives << 32
        self._patience = Patience(self.port, RETRY_NS)
        self._stirred: dict[int, Socket] = {}
        self.calls = Calls(self, self.readiness.send_away)
        self.stack.host.announce()
        if self.store.lives > 1:
            self._let_pass(nic)
        self._revive()
        self.port.start()
        self.settle()

    def _let_pass(self, nic: Ethernet) -> None:
        """Before slots that an earlier life has left are given to others: see `places`. In one
        process the driver has died with us."""
        if (asked := by_kernel(nic, PATIENCE_S)) is not nic:
            self.port.drain(asked, *self.stack.host.take())

    def _settings(self) -> Settings:
        try:
            return Settings.of(self.args)
        except BadSettings as error:
            print(
                f"{self.connection.slot}: {error} ({self.connection.info.origin})", file=sys.stderr
            )
            sys.exit(NO_RESTART)

    def _card_name(self) -> str:
        """Whoever it may call is the driver."""
        known = {"self", *self.connection.info.devices}
        callees = [name for name in self.connection.named if name not in known]
        if len(callees) != 1:
            print(
                f"{self.connection.slot}: it works on one card: name its driver, and nobody else, "
                f"under .calls ({self.connection.info.origin})",
                file=sys.stderr,
            )
            sys.exit(NO_RESTART)
        return callees[0]

    # --- what comes -----------------------------------------------------------------------------

    def _frame(self, frame: memoryview, vouched: bool) -> None:
        self.stack.arrived(frame, vouched, self.now)

    def _link_restored(self) -> None:
        self.stack.link_restored(self.now)

    def _heard(self, event: Event) -> None:
        self.questions.heard(event)

    def alarmed(self) -> None:
        self.stack.tick(self.now)

    def before_waiting(self) -> None:
        self.settle()
        self.alarm_ns = self._due_ns()

    def _due_ns(self) -> int:
        again = self._patience.look(1000 * self.now)
        wanted = (1000 * self.stack.deadline, 1000 * self.questions.deadline, again)
        return min((when for when in wanted if when), default=0)

    # --- what has changed -----------------------------------------------------------------------

    def settle(self) -> None:
        """Commit, send, answer, until nothing changes any more."""
        table, now = self.stack.table, self.now
        while True:
            self.stack.hear(now)
            dirty = table.take_dirty()
            for entry in dirty:
                self._commit(entry)
            for place, record in table.take_past():
                self.store.write_past(place, record)
            self.places.commit()
            for frame in self.stack.frames(now):
                self.port.send(frame)
            self.calls.keep_promises()
            self._stir_users(dirty, now)
            self.questions.settle(now)
            if self._stirred:
                self._go_on(now)
            elif not self.stack.restless:
                break
        self.readiness.tell()

    def _commit(self, entry: Entry) -> None:
        slot, user = entry.handle, entry.user
        assert isinstance(slot, Slot)
        label, flags, read_to = Label(client=slot.holder), RELEASED if entry.released else 0, 0
        if isinstance(user, OpenStream):
            label, read_to = user.label, user.read_to
            flags |= WAITS * user.fresh | DEAF * user.deaf
        elif entry.listener is not None:
            flags |= WAITS
        record = StreamRecord(label, flags, entry.quad, read_to, entry.connection.pack())
        slot.record.write(record.pack())

    def _stir_users(self, dirty: list[Entry], now: int) -> None:
        """Those whose connections have changed, and those for whom datagrams have come."""
        for entry in dirty:
            user = entry.listener.user if entry.listener is not None else entry.user
            if isinstance(user, Socket):
                self.stir(user)
        changed = self.stack.host.udp.changed
        for socket in list(changed):
            if isinstance(socket.user, Socket):
                self.stir(socket.user)
            else:
                self.questions.came(socket, now)
        changed.clear()

    def _go_on(self, now: int) -> None:
        stirred, self._stirred = self._stirred, {}
        for socket in stirred.values():
            socket.go_on(now)
            if isinstance(socket, OpenStream):
                self.stack.table.touched(socket.entry, now)
            self.readiness.look(socket)

    # --- sockets --------------------------------------------------------------------------------

    def stir(self, socket: Socket) -> None:
        self._stirred[id(socket)] = socket

    def hold(self, socket: Socket, entry: Entry) -> None:
        """Give the socket of a connection a badge, in the store as well."""
        socket.badge = self.next_badge()
        self.export(socket, socket.badge)
        self._commit(entry)

    def accepted(self, port: Listener, label: Label) -> OpenStream | None:
        entry = self.stack.table.accepted(port)
        if entry is None:
            return None
        stream = OpenStream(self, entry, label)
        stream.fresh = True
        entry.user = stream
        self.hold(stream, entry)
        self.stir(stream)
        return stream

    def send_datagram(self, port: int, to: Address, data: bytes) -> None:
        self.stack.host.send_udp(port, *peer(to), data, self.now)

    def next_badge(self) -> int:
        self._badges += 1
        return self._badges

    def open_listener(self, port: Listener, label: Label, record: Record) -> OpenListener:
        opened = OpenListener(self, port, label, record)
        port.user = opened
        self.export(opened, label.badge)
        return opened

    def unheld(self, badge: int) -> None:
        socket = self.objects.pop(badge, None)
        if isinstance(socket, Socket):
            self.readiness.forget(socket)
            self._stirred.pop(id(socket), None)
            for pending in socket.parked():
                self.calls.fail(pending, Revoked("nobody holds this socket any more"))
            self.let_go(socket)

    def let_go(self, socket: Socket) -> None:
        now = self.now
        match socket:
            case OpenStream(entry=entry, read_to=read_to):
                entry.user = None
                entry.connection.consumed(read_to, now)  # what it was given, it has read
                self.stack.table.release(entry, now)
            case OpenListener(port=port, record=record):
                self.stack.table.unlisten(port, now)
                self.store.give_back_socket(record)
            case OpenDatagrams(socket=bound, record=record):
                self.stack.host.udp.close(bound)
                self.store.give_back_socket(record)

    # --- the next life --------------------------------------------------------------------------

    def _revive(self) -> None:
        """Go on with what is in the store. What no client holds any more is let go."""
        held = set(self.held_badges())
        for record in list(self.store.used_sockets()):
            self._revive_bound(BoundRecord.unpack(record.read()), record, held)
        stored = [self._stored(slot, held) for slot in self.store.used()]
        pasts = enumerate(map(unpack, self.store.pasts(RECORD_BYTES)))
        past = [(place, found) for place, found in pasts if found is not None]
        for entry in self.stack.table.restore(stored, past, self.now):
            found, entry.user = entry.user, None
            if isinstance(found, StreamRecord) and entry.listener is None and not entry.released:
                self._revive_stream(entry, found, found.label.badge in held)

    def _revive_stream(self, entry: Entry, found: StreamRecord, held: bool) -> None:
        entry.user = stream = OpenStream(self, entry, found.label)
        stream.read_to = found.read_to
        stream.deaf = bool(found.flags & DEAF)
        stream.starved = True  # perhaps: nobody knows what its client waits for
        if held:
            self.export(stream, stream.badge)
            self.stir(stream)
        else:
            self.let_go(stream)

    def _revive_bound(self, bound: BoundRecord, record: Record, held: set[int]) -> None:
        label, kind, address, port, backlog = bound
        if label.badge not in held:
            self.store.give_back_socket(record)
        elif kind is Kind.LISTENER:
            listener = self.stack.table.listen(port, address, backlog, label.client)
            self.open_listener(listener, label, record)
        else:
            socket = self.stack.host.udp.bind(port, address)
            self.export(OpenDatagrams(self, socket, label, record), label.badge)

    def _stored(self, slot: Slot, held: set[int]) -> Stored:
        """A connection as it was left. One that was accepted, but whose client has not been told,
        waits to be accepted again: its client repeats the call."""
        found = StreamRecord.unpack(slot.record.read())
        self.places.count(slot, found.label.client)
        waiting = bool(found.flags & WAITS) and found.label.badge not in held
        released = bool(found.flags & RELEASED)
        return Stored(
            found.quad, slot.send, slot.receive, slot, found.data, released, waiting, found
        )

    def restore(self, badge: int) -> Interface | None:
        return self.objects.get(badge)


def _random() -> int:
    return int.from_bytes(os.urandom(2))
