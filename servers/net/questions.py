"""questions: calls that the network answers, or nobody in time: pings and host names. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from servers.net import udp
from servers.net.addresses import dotted
from servers.net.events import EchoReply, Event, Unreachable
from servers.net.host import Host
from servers.net.resolver import Resolver
from ukernel.abi import network
from ukernel.abi.errors import Answer
from ukernel.abi.network import NoBuffers, NoSuchName, TimedOut


class Call(Protocol):
    """A call without an answer."""

    def answer(self, value: object) -> None: ...
    def fail(self, error: Answer) -> None: ...


C = TypeVar("C", bound=Call)


class Ping(NamedTuple, Generic[C]):
    call: C
    host: int
    sent: int  # us
    until: int


class Questions(Generic[C]):
    """What was asked, by what the answer will have in it. `random` gives numbers of 16 bits."""

    def __init__(self, host: Host, resolver: Resolver, random: Callable[[], int]) -> None:
        self._host = host
        self._resolver = resolver
        self._random = random
        self._ident = random()
        self._sequence = 0
        self._pings: dict[tuple[int, int], Ping[C]] = {}
        self._lookups: dict[int, tuple[udp.Socket, C]] = {}  # by our port

    @property
    def deadline(self) -> int:
        """When a ping is given up; 0: none waits."""
        return min((ping.until for ping in self._pings.values()), default=0)

    def ping(self, call: C, address: int, size: int, timeout_us: int, now: int) -> None:
        """Send an echo; `call` gets the nanoseconds until it was back."""
        self._sequence = self._sequence % 0xFFFF + 1
        key = self._ident, self._sequence
        if earlier := self._pings.pop(key, None):
            earlier.call.fail(TimedOut("65,535 later ones have gone out meanwhile"))
        self._pings[key] = Ping(call, address, now, now + timeout_us)
        self._host.ping(address, *key, bytes(n & 255 for n in range(size)), now)

    def resolve(self, call: C, name: str, now: int) -> None:
        """Ask for a name's addresses."""
        try:
            socket = self._host.udp.bind(random=self._random())
        except NoBuffers as error:
            call.fail(error)
            return
        self._lookups[socket.port] = socket, call
        self._resolver.resolve(name, self._random(), socket.port, now)

    def heard(self, event: Event) -> None:
        """What ICMP says of a ping."""
        match event:
            case EchoReply(ident=ident, sequence=sequence, source=source, at=at):
                ping = self._pings.get((ident, sequence))
                if ping is not None and ping.host == source:
                    del self._pings[ident, sequence]
                    ping.call.answer((at - ping.sent) * 1000)
            case Unreachable(quad=(_, ident, host, sequence)):
                if ping := self._pings.pop((ident, sequence), None):
                    ping.call.fail(network.Unreachable(f"no way leads to {dotted(host)}"))

    def came(self, socket: udp.Socket, now: int) -> None:
        """Something has come for a socket of ours."""
        while datagram := socket.take():
            if datagram.source_port == DNS_PORT:
                self._resolver.arrived(datagram.source, socket.port, datagram.data, now)
        socket.take_error()

    def settle(self, now: int) -> None:
        """Answer what has its answer, or will have none."""
        for key in [key for key, ping in self._pings.items() if ping.until <= now]:
            ping = self._pings.pop(key)
            ping.call.fail(TimedOut(f"{dotted(ping.host)} has not answered in time"))
        done = self._resolver.done.copy()
        self._resolver.done.clear()
        for resolved in done:
            socket, call = self._lookups.pop(resolved.port)
            self._host.udp.close(socket)
            if resolved.addresses:
                call.answer(list(resolved.addresses))
            else:
                call.fail(NoSuchName(f"{resolved.name}: {resolved.why}"))


DNS_PORT = 53
