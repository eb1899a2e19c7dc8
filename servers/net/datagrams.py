"""datagrams: UDP in a client's hands. What nobody has taken when this process dies is lost, as
any datagram may be."""

from __future__ import annotations

from collections import deque
from typing import Any

from servers.net import udp
from servers.net.addresses import dotted
from servers.net.held import Edge, Socket
from servers.net.labels import Label
from servers.net.store import Record
from ukernel.abi.errors import CallError
from ukernel.abi.interface import Lent
from ukernel.abi.network import READABLE, Address, Datagram, Datagrams, TooLong, Unreachable
from ukernel.lib.way import Pending


class OpenDatagrams(Socket, Datagrams):
    """A UDP socket in a client's hands."""

    def __init__(self, net: Edge, socket: udp.Socket, label: Label, record: Record) -> None:
        super().__init__(net, label)
        self.socket = socket
        socket.user = self
        self.record = record
        self._waiting: deque[tuple[Pending[Datagram], Lent]] = deque()

    def sendto(self, to: Address, data: Lent) -> None:
        if data.length > udp.MOST_BYTES:
            raise TooLong(f"{data.length} bytes: a datagram has {udp.MOST_BYTES} at most")
        self.net.send_datagram(self.socket.port, to, bytes(self.net.memory(data)))

    def recvfrom(self, into: Lent) -> Datagram:
        self.told &= ~READABLE
        self.net.memory(into, write=True)
        pending: Pending[Datagram] = self.net.calls.park()
        self._waiting.append((pending, into))
        self.net.stir(self)
        return pending.later

    def local(self) -> Address:
        return Address(dotted(self.socket.address), self.socket.port)

    def events(self) -> int:
        return READABLE if self.socket.queue or self.socket.error else 0

    def go_on(self, now: int) -> None:
        while self._waiting and (self.socket.queue or self.socket.error):
            pending, into = self._waiting.popleft()
            if not pending.wanted:
                self.net.calls.give_up(pending)
                continue
            if self.socket.take_error() is not None:
                self.net.calls.fail(
                    pending, Unreachable("a datagram that was sent before got nowhere")
                )
            elif datagram := self.socket.take():
                self._hand_over(pending, into, datagram)

    def _hand_over(self, pending: Pending[Datagram], into: Lent, datagram: udp.Datagram) -> None:
        length = min(len(datagram.data), into.length)
        try:
            self.net.memory(into, write=True)[:length] = datagram.data[:length]
        except CallError as error:  # the memory was taken back; the datagram is lost with it
            self.net.calls.fail(pending, error)
        else:
            source = Address(dotted(datagram.source), datagram.source_port)
            self.net.calls.answer(pending, Datagram(source, len(datagram.data)))

    def parked(self) -> list[Pending[Any]]:
        return [pending for pending, _ in self._waiting]
