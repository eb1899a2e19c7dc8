"""listeners: who takes connections at which port and address. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from servers.net.tcp.entries import Listener, NoRoom, PortInUse
from servers.net.tcp.limits import Limits
from servers.net.tcp.quad import Quad

ANY = 0  # address


class Listeners:
    """At each port one for each address, and one for any; who names the address goes first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._at: dict[tuple[int, int], Listener] = {}
        self._ports: dict[int, int] = {}  # how many at each

    def __len__(self) -> int:
        return len(self._at)

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._at.values())

    def add(self, port: int, address: int, backlog: int, holder: int = 0) -> Listener:
        """Raises PortInUse, NoRoom."""
        if (port, address) in self._at:
            raise PortInUse(f"somebody listens at port {port} already")
        if len(self._at) >= self._limits.listeners:
            raise NoRoom(f"there are {len(self._at)} listeners already")
        listener = Listener(port, address, max(1, min(backlog, self._limits.backlog)), holder)
        self._at[port, address] = listener
        self._ports[port] = self._ports.get(port, 0) + 1
        return listener

    def remove(self, listener: Listener) -> None:
        del self._at[listener.port, listener.address]
        self._ports[listener.port] -= 1
        if not self._ports[listener.port]:
            del self._ports[listener.port]

    def find(self, quad: Quad) -> Listener | None:
        """Who takes a connection that comes to the local end of `quad`."""
        port = quad.local_port
        return self._at.get((port, quad.local)) or self._at.get((port, ANY))

    def has(self, port: int) -> bool:
        return port in self._ports
