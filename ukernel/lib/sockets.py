"""sockets: TCP connections for every task: positions are kept, memory is shared, one call watches.

A client. A death of `net` in between shows in nothing but time: calls are repeated by position.

    net = connect(Network, "net")
    memory = SocketMemory(Region(task.connection(), "sockets", 128 * 1024), 64 * 1024)
    stream = TcpStream(net.connect(Address("10.77.0.2", 7), 0), memory.take())
    stream.send_all(b"hello")
    stream.shutdown()
    while piece := stream.recv():
        print(bytes(piece))
    stream.close()

A server of many connections, in a class with the base Server. `come` makes what is to be told.

    def setup(self) -> None:
        self.net = connect(Network, "net", timeout_s=None)  # `ready` waits as long as it takes
        self.memory = SocketMemory(self.region("sockets", 64 * 1024), 64 * 1024)
        self.watch_of_all = Watch(self, self.net)
        self.port = Port(self.watch_of_all, Address("0.0.0.0", 7), 16, self.come)

    def come(self, stream: Stream, tag: int) -> None:
        one = MyConnection(TcpStream(stream, self.memory.take()))
        self.watch_of_all.tell(tag, one.ready)  # one.ready(READABLE | WRITABLE)
        self.port.more()
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from ukernel.abi.errors import DeadNotRun, DeadUnknown, Overload
from ukernel.abi.interface import Lent
from ukernel.abi.network import SEND, Address, Network, NoBuffers, Ready, Stream
from ukernel.lib.memory import Region
from ukernel.lib.server import Server
from ukernel.lib.stub import UnderWay, begin, release

DIED = (DeadNotRun, DeadUnknown)  # with the call: its next life is to be asked
Told = Callable[[int], None]  # is given READABLE and WRITABLE, ORed


class Window(NamedTuple):
    """Bytes `offset` to `offset + length` of a region, to be lent with calls."""

    region: Region
    offset: int
    length: int

    @property
    def view(self) -> memoryview:
        return self.region.view[self.offset : self.offset + self.length]

    def lend(self, start: int, length: int) -> Lent:
        """`length` bytes from `start` of the window, for the callee to write."""
        return self.region.lend(self.offset + start, length)

    def show(self, start: int, length: int) -> Lent:
        """The same, for the callee to read."""
        return self.region.show(self.offset + start, length)


class SocketMemory:
    """A region in windows of `size` bytes, so that many sockets lend one region only: a server
    maps it once, and a channel knows 256 regions at most."""

    def __init__(self, region: Region, size: int) -> None:
        self._free = [Window(region, at, size) for at in range(0, len(region.view), size)]
        self._free = [window for window in self._free if len(window.view) == size][::-1]

    def take(self) -> Window:
        """A window that is nobody's. Raises Overload when there is none."""
        if not self._free:
            raise Overload("every window of the socket memory is in use")
        return self._free.pop()

    def give_back(self, window: Window) -> None:
        self._free.append(window)


class TcpStream:
    """A connection and how far it has got. `window` may be shared with others whose bytes nobody
    needs at the moment: it holds bytes during `send_all`, and what `recv` gave until the next."""

    def __init__(self, stream: Stream, window: Window) -> None:
        self.stream = stream
        self.window = window
        self.sent = 0  # position up to which the connection has taken our bytes
        self.received = 0  # position up to which bytes have come here

    def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send it, waiting for room as often as there is none. Raises the answers of Stream."""
        left = memoryview(data)
        while left:
            count = min(len(left), self.window.length)
            self.window.view[:count] = left[:count]
            left = left[self.send(self.window.show(0, count)) :]

    def send(self, data: Lent) -> int:
        """Have bytes taken where they lie; how many were. When there is no room at all a stream
        without a tag waits, and of one with a tag none are taken."""
        end = self.stream.send(self.sent, data)
        taken, self.sent = end - self.sent, end
        return taken

    def recv(self, most: int = 1 << 32) -> memoryview:
        """What has come, at least one byte, at most `most`; none at the end. Waits for it."""
        into = self.window.lend(0, min(most, self.window.length))
        count = self.stream.recv(self.received, into)
        self.received += count
        return self.window.view[:count]

    def shutdown(self) -> None:
        """Say that no more will be sent."""
        self.stream.shutdown(SEND)

    def close(self) -> None:
        """Let go of the connection; what was taken still goes out."""
        release(self.stream)


class Watch:
    """Knows which of many sockets can be used without waiting, by one call of `ready` under way.

    What it tells is told once, and again after the call that it was told for: keep it until then.
    A stream is writable from its beginning, until it takes less than all of what is sent.
    """

    def __init__(self, server: Server, network: Network) -> None:
        """`network` is to have no deadline."""
        self.server = server
        self.network = network
        self._told: dict[int, Told] = {}
        self._early: dict[int, int] = {}  # of sockets whose own call is not answered yet
        # Tags of an earlier life are never used again, or its connections would come in their place
        self._next_tag = time.monotonic_ns()
        self._ask()

    def tag(self) -> int:
        """A tag for one more socket."""
        self._next_tag += 1
        self._early[self._next_tag] = 0
        return self._next_tag

    def tell(self, tag: int, told: Told) -> None:
        """Call `told` with what the socket of this tag has become."""
        self._told[tag] = told
        if events := self._early.pop(tag, 0):
            told(events)

    def forget(self, tag: int) -> None:
        """This socket is closed."""
        self._told.pop(tag, None)
        self._early.pop(tag, None)

    def _ask(self) -> None:
        self.server.when(begin(self.network.ready), self._answered)

    def _answered(self, call: UnderWay[list[Ready]]) -> None:
        try:
            some = call.result()
        except (*DIED, Overload):
            some = []  # the next life tells everything once more; who has no room yet, later
        for tag, events in some:
            told = self._told.get(tag)
            if told is not None:
                told(events)
            elif tag in self._early:  # it came by a channel, and the socket comes by the kernel
                self._early[tag] |= events
        self._ask()


class Port:
    """A TCP port on which connections are taken one after the other, while they are wanted."""

    def __init__(
        self, watch: Watch, at: Address, backlog: int, come: Callable[[Stream, int], None]
    ) -> None:
        """Listens at once. `come` is given each connection and its tag, and says with `more` that
        the next may come. Raises BadAddress, AddressInUse."""
        self._watch = watch
        self._come = come
        self._listener = watch.network.listen(at, backlog, 0)
        self._waits = False
        self.more()

    def more(self) -> None:
        """Take one more connection, if that is not under way. Also to be called now and then after
        there was no room for one."""
        if not self._waits:
            self._waits = True
            self._accept(self._watch.tag())

    def _accept(self, tag: int) -> None:
        call = begin(self._listener.accept, tag)
        self._watch.server.when(call, lambda done: self._accepted(done, tag))

    def _accepted(self, call: UnderWay[Stream], tag: int) -> None:
        try:
            stream = call.result()
        except DIED:
            self._accept(tag)  # with the same tag the same connection comes
            return
        except (NoBuffers, Overload):
            self._waits = False
            return
        self._waits = False
        self._come(stream, tag)
