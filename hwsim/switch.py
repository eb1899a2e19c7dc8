"""switch: what joins the network cards of one machine: a wire between two, or a learning switch.

A long segment, or a checksum that is not complete, goes through as it is when the receiver's driver
takes it; else it is cut and completed when that receiver gets it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hwsim.inbox import NUMBER, ONE, Inbox
from ukernel.abi.virtio import NET_HEADER_BYTES
from ukernel.lib.virtio.cable import nothing
from ukernel.lib.virtio.queue import Views

MOST_ADDRESSES = 1024  # that a switch remembers; then it forgets the oldest
DESTINATION = slice(NET_HEADER_BYTES, NET_HEADER_BYTES + 6)
SOURCE = slice(NET_HEADER_BYTES + 6, NET_HEADER_BYTES + 12)
GROUP = 1  # in the first byte of an address: not of one card


class Port:
    """Where a card is plugged in: a cable."""

    def __init__(self, switch: Switch) -> None:
        self.arrived: Callable[[], None] = nothing
        self.inbox = Inbox()
        self._switch = switch
        self._listened = False

    def accept(self, features: int) -> None:
        self.inbox.accepted = features

    def listen(self, wanted: bool) -> None:
        self._listened = wanted

    def send(self, header: bytes, parts: Views) -> None:
        self._switch.carry(self, b"".join((header[:NUMBER], ONE, *parts)))

    def flush(self) -> None:
        self._switch.tell()

    def receive(self, into: Views) -> int:
        return self.inbox.take(into)

    def drops(self) -> int:
        return self.inbox.dropped

    def tell(self) -> None:
        """Frames may have been put here."""
        if self._listened and self.inbox:
            self.arrived()


class Switch:
    """Frames for an address that was seen go where it was seen, all others everywhere."""

    def __init__(self) -> None:
        self._ports: list[Port] = []
        self._stirred: dict[Port, None] = {}  # where something was put since they were told
        self._seen: dict[bytes, Port] = {}

    def port(self) -> Port:
        """One more of them."""
        self._ports.append(Port(self))
        return self._ports[-1]

    def carry(self, source: Port, frame: bytes) -> None:
        """A frame, behind its header, to whom it is for."""
        for port in self._ways(source, frame):
            port.inbox.put(frame)
            self._stirred[port] = None

    def tell(self) -> None:
        """Let them take what was put there."""
        stirred, self._stirred = self._stirred, {}
        for port in stirred:
            port.tell()

    def _ways(self, source: Port, frame: bytes) -> Iterable[Port]:
        self._learn(source, frame[SOURCE])
        known = self._seen.get(frame[DESTINATION])
        if known is not None:
            return [known] if known is not source else []
        return [port for port in self._ports if port is not source]

    def _learn(self, source: Port, address: bytes) -> None:
        if address[0] & GROUP or self._seen.get(address) is source:
            return
        self._seen.pop(address, None)
        self._seen[address] = source
        if len(self._seen) > MOST_ADDRESSES:
            del self._seen[next(iter(self._seen))]


class Wire(Switch):
    """A cable with two ends: what goes in at one comes out at the other, whatever its address."""

    def _ways(self, source: Port, frame: bytes) -> Iterable[Port]:
        return [port for port in self._ports if port is not source]
