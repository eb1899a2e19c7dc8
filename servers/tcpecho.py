"""tcpecho: sends back what it receives, over TCP and over UDP (RFC 862). An application.

A connection costs one number: bytes stay with the network until they were taken back by it, since
it keeps what lies behind the position that `recv` asks for. args: {port: 7, connections: 256,
net: net}.
"""

from __future__ import annotations

from ukernel.abi.errors import Answer, Overload, Protocol
from ukernel.abi.network import (
    READABLE,
    SEND,
    WRITABLE,
    Address,
    Datagram,
    Datagrams,
    Network,
    Stream,
)
from ukernel.lib.server import Server
from ukernel.lib.sockets import DIED, Port, Watch, Window
from ukernel.lib.stub import UnderWay, begin, connect, release

ECHO = 7
PIECE = 64 * 1024  # bytes; also the most that a datagram can have
BACKLOG = 64


class Conversation:
    """One connection: everything before `at` has come, and is on its way back."""

    def __init__(self, stream: Stream, window: Window) -> None:
        self.stream = stream
        self.window = window  # that of all: nothing stays in it
        self.at = 0
        self.over = False
        self._readable, self._writable = False, True

    def told(self, events: int) -> None:
        self._readable |= bool(events & READABLE)
        self._writable |= bool(events & WRITABLE)
        if self._readable and self._writable:
            self._send_back()

    def _send_back(self) -> None:
        count = self.stream.recv(self.at, self.window.lend(0, PIECE))
        if count == 0:
            self.stream.shutdown(SEND)
            self.over = True
            return
        end = self.stream.send(self.at, self.window.show(0, count))
        self._writable = end == self.at + count
        self._readable = not self._writable  # what was not taken is still there
        self.at = end


class TcpEcho(Server):
    def setup(self) -> None:
        self.net = connect(Network, str(self.args.get("net", "net")), timeout_s=None)
        self.at = Address("0.0.0.0", int(self.args.get("port", ECHO)))
        self.most = int(self.args.get("connections", 256))
        memory = self.region("pieces", 2 * PIECE)
        self.window, self.datagram = Window(memory, 0, PIECE), Window(memory, PIECE, PIECE)
        self.conversations: dict[int, Conversation] = {}
        self.sockets = Watch(self, self.net)
        self.port = Port(self.sockets, self.at, BACKLOG, self.come)
        self.datagrams = self.net.bind(self.at, 0)
        self.receive_datagram()

    # --- TCP ------------------------------------------------------------------------------------

    def come(self, stream: Stream, tag: int) -> None:
        self.conversations[tag] = Conversation(stream, self.window)
        self.sockets.tell(tag, lambda events: self.told(tag, events))
        self.more()

    def told(self, tag: int, events: int) -> None:
        conversation = self.conversations[tag]
        try:
            conversation.told(events)
        except (Answer, Protocol, Overload):  # the other end, or net, has broken it off
            conversation.over = True
        if conversation.over:
            self.sockets.forget(tag)
            release(self.conversations.pop(tag).stream)
            self.more()

    def more(self) -> None:
        if len(self.conversations) < self.most:
            self.port.more()

    # --- UDP ------------------------------------------------------------------------------------

    def receive_datagram(self) -> None:
        """A call under way, and no `ready`: datagrams that nobody has taken die with `net`."""
        call = begin(self.datagrams.recvfrom, self.datagram.lend(0, PIECE))
        self.when(call, self.datagram_came)

    def datagram_came(self, call: UnderWay[Datagram]) -> None:
        try:
            source, length = call.result()
            if source.port != self.at.port:  # two echo servers would never end
                self.datagrams.sendto(source, self.datagram.show(0, length))
        except (Answer, Overload, *DIED):
            pass  # nobody has promised that a datagram arrives
        except Protocol:  # this life of net does not know the socket
            self.datagrams = self.bound_again()
        self.receive_datagram()

    def bound_again(self) -> Datagrams:
        release(self.datagrams)
        return self.net.bind(self.at, 0)


if __name__ == "__main__":
    TcpEcho.run()
