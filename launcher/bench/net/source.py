"""source: the bulk server of the bench as a task of ours: as many bytes as a client asks for.

What it sends is a window of zeros that never changes. A connection costs two numbers.
"""

from __future__ import annotations

from launcher.bench.net import ends
from ukernel.abi.errors import Answer, Protocol
from ukernel.abi.network import READABLE, SEND, Address, Network, Stream
from ukernel.lib.server import Server
from ukernel.lib.sockets import Port, Watch, Window
from ukernel.lib.stub import connect, release

BACKLOG = 8


class Delivery:
    """One connection: `at` is how much of it has been taken, `end` is known when it was asked."""

    def __init__(self, stream: Stream, request: Window, zeros: Window) -> None:
        self.stream, self.request, self.zeros = stream, request, zeros
        self.asked = b""
        self.at = self.end = 0
        self.over = False

    def told(self, events: int) -> None:
        if events & READABLE and len(self.asked) < ends.WANTED_BYTES:
            self._read()
        if len(self.asked) == ends.WANTED_BYTES and not self.over:
            self._send()

    def _read(self) -> None:
        start, missing = len(self.asked), ends.WANTED_BYTES - len(self.asked)
        count = self.stream.recv(start, self.request.lend(0, missing))
        self.asked += self.request.view[:count]
        self.end = int.from_bytes(self.asked, "big")
        self.over = count == 0

    def _send(self) -> None:
        """As much as there is room for; WRITABLE is told when there is room again."""
        while self.at < self.end:
            count = min(self.end - self.at, self.zeros.length)
            taken = self.stream.send(self.at, self.zeros.show(0, count)) - self.at
            self.at += taken
            if taken < count:
                return
        self.stream.shutdown(SEND)
        self.over = True


class Source(Server):
    def setup(self) -> None:
        net = connect(Network, "net", timeout_s=None)
        self.request = Window(self.region("request", 4096), 0, ends.WANTED_BYTES)
        self.zeros = Window(self.region("zeros", ends.PIECE), 0, ends.PIECE)
        self.deliveries: dict[int, Delivery] = {}
        self.sockets = Watch(self, net)
        self.port = Port(self.sockets, Address("0.0.0.0", ends.BULK), BACKLOG, self.come)

    def come(self, stream: Stream, tag: int) -> None:
        self.deliveries[tag] = Delivery(stream, self.request, self.zeros)
        self.sockets.tell(tag, lambda events: self.told(tag, events))
        self.port.more()

    def told(self, tag: int, events: int) -> None:
        delivery = self.deliveries[tag]
        try:
            delivery.told(events)
        except (Answer, Protocol):  # the client has broken it off
            delivery.over = True
        if delivery.over:
            self.sockets.forget(tag)
            release(self.deliveries.pop(tag).stream)


if __name__ == "__main__":
    Source.run()
