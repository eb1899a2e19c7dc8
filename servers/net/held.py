"""held: a socket as a client holds it: an object behind a badge, whatever its protocol.

A method only takes the call in. What it asks for happens in `go_on`, which runs when everything
that has changed is in the store; and what is changed there is answered in the round after that. So
no client is ever told of anything that the next life would not know.

    call -> go_on: bytes into the ring -> committed -> frames sent, answered
"""

from __future__ import annotations

from typing import Any, Protocol

from servers.net.calls import Calls
from servers.net.labels import Label
from servers.net.tcp.entries import Entry
from servers.net.tcp.entries import Listener as Port
from ukernel.abi.interface import Interface, Lent
from ukernel.abi.network import Address
from ukernel.lib.way import Pending


class Edge(Protocol):
    """What sockets need of the server."""

    calls: Calls

    def stir(self, socket: Socket) -> None:
        """Have its `go_on` run when everything is committed."""

    def memory(self, lent: Lent, *, write: bool = False) -> memoryview: ...
    def hold(self, socket: Socket, entry: Entry) -> None:
        """Give the socket of a connection a badge, in the store as well."""

    def accepted(self, port: Port, label: Label) -> Socket | None:
        """The next connection of a listener, as its client's socket."""

    def send_datagram(self, port: int, to: Address, data: bytes) -> None: ...
    def let_go(self, socket: Socket) -> None: ...


class Socket(Interface):
    """One socket: who holds it, and what it was told of."""

    def __init__(self, net: Edge, label: Label) -> None:
        self.net = net
        self.badge, self.tag, self.client = label
        self.told = 0

    @property
    def label(self) -> Label:
        return Label(self.badge, self.tag, self.client)

    def events(self) -> int:
        """What it is ready for."""
        raise NotImplementedError

    def go_on(self, now: int) -> None:
        """Do what was asked for, as far as it goes."""
        raise NotImplementedError

    def parked(self) -> list[Pending[Any]]:
        """The calls that have no answer yet."""
        raise NotImplementedError
