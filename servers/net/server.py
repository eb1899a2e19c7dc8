"""server: TCP/IP on one card, as an interface: sockets, names, pings, and what there is.

Sockets are objects (held.py); why they outlive this process is the matter of engine.py.
"""

from __future__ import annotations

import os

from servers.net import report
from servers.net.addresses import dotted, number, peer, port_of
from servers.net.calls import Asked
from servers.net.datagrams import OpenDatagrams
from servers.net.engine import Engine
from servers.net.held import Socket
from servers.net.labels import BoundRecord, Kind, Label
from servers.net.store import Record
from servers.net.streams import OpenListener, OpenStream
from servers.net.tcp.table import BadPeer, NoRoom, PortInUse
from ukernel.abi import network
from ukernel.abi.network import (
    Address,
    AddressInUse,
    BadAddress,
    Datagrams,
    InterfaceRow,
    Network,
    NoBuffers,
    Ready,
    SocketRow,
    Stream,
)
from ukernel.lib.way import Pending

LARGEST_PING = 60_000


class NetServer(Engine, Network):
    """See ukernel.abi.network.Network."""

    # --- sockets --------------------------------------------------------------------------------

    def listen(self, at: Address, backlog: int, tag: int) -> network.Listener:
        client, place = self.caller.client, (port_of(at), self._own(at))
        for held in self.objects.values():
            if isinstance(held, OpenListener) and (held.client, held.place) == (client, place):
                held.remember(tag)
                return held
        record = self._record()
        try:
            port = self.stack.table.listen(*place, backlog, client)
        except (PortInUse, NoRoom) as error:
            self.store.give_back_socket(record)
            kind = NoBuffers if isinstance(error, NoRoom) else AddressInUse
            raise kind(f"TCP port {at.port}: {error}") from error
        opened = self.open_listener(port, Label(self.next_badge(), 0, client), record)
        opened.remember(tag)
        return opened

    def connect(self, to: Address, tag: int) -> Stream:
        place, client = peer(to), self.caller.client
        pending: Pending[Stream] = self.calls.park()
        try:
            if self.places.full(client):
                most = self.stack.settings.per_client
                raise NoRoom(f"this client has {most} connections, as many as one may have")
            entry = self.stack.table.connect(*place, self.now, holder=client)
        except (BadPeer, PortInUse, NoRoom) as error:
            kind = BadAddress if isinstance(error, BadPeer) else NoBuffers
            self.calls.fail(pending, kind(str(error)))
            return pending.later
        stream = OpenStream(self, entry, Label(0, tag, client))
        stream.connecting = pending
        entry.user = stream
        self.stir(stream)
        return pending.later

    def bind(self, at: Address, tag: int) -> Datagrams:
        address, random = self._own(at), int.from_bytes(os.urandom(2))
        record = self._record()
        try:
            socket = self.stack.host.udp.bind(at.port, address, random)
        except (AddressInUse, NoBuffers):
            self.store.give_back_socket(record)
            raise
        label = Label(self.next_badge(), tag, self.caller.client)
        record.write(BoundRecord(label, Kind.DATAGRAMS, socket.address, socket.port).pack())
        opened = OpenDatagrams(self, socket, label, record)
        self.export(opened, label.badge)
        return opened

    def _record(self) -> Record:
        """Of one more port. A client may have twice as many as there are left for others."""
        client, bound = self.caller.client, (OpenListener, OpenDatagrams)
        held = sum(isinstance(o, bound) and o.client == client for o in self.objects.values())
        record = self.store.take_socket() if held < 2 * self.store.free_sockets else None
        if record is None:
            raise NoBuffers("so many ports are bound as can be remembered")
        return record

    def _own(self, at: Address) -> int:
        """The address to bind to; 0: any."""
        address = number(at.host)
        if address not in (0, self.stack.settings.address):
            raise BadAddress(
                f"{at.host} is not ours: that is {dotted(self.stack.settings.address)}"
            )
        return address

    # --- questions ------------------------------------------------------------------------------

    def ready(self) -> list[Ready]:
        asked: Asked[list[Ready]] = self.calls.asked()
        self.readiness.ask(self.caller.client, asked)
        return asked.pending.later

    def resolve(self, name: str) -> list[str]:
        try:
            return [dotted(number(name))]
        except BadAddress:
            asked: Asked[list[str]] = self.calls.asked()
            self.questions.resolve(asked, name, self.now)
            return asked.pending.later

    def ping(self, host: str, size: int, timeout_ms: int) -> int:
        if size > LARGEST_PING:
            raise BadAddress(f"{size} bytes: an echo has {LARGEST_PING} at most")
        address = number(host)
        asked: Asked[int] = self.calls.asked()
        self.questions.ping(asked, address, size, timeout_ms * 1000, self.now)
        return asked.pending.later

    def interfaces(self) -> list[InterfaceRow]:
        return [report.interface(self.connection.slot, self.stack, self.port)]

    def sockets(self, start: int) -> list[SocketRow]:
        bound = [held for held in self.objects.values() if isinstance(held, Socket)]
        return report.sockets(self.stack, bound)[start : start + report.PAGE]

    def neighbours(self) -> list[network.Neighbour]:
        return report.neighbours(self.stack.host, self.now)
