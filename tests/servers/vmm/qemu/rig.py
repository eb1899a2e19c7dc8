"""rig: the loop of a monitor, and the server behind a wire, in one process. Calls are begun, and
end when and how the test says; sockets are real.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from servers.vmm.qemu.disk import DiskWire
from servers.vmm.qemu.nic import NicWire
from tests.servers.vmm.harness import CARD, Server
from tests.servers.vmm.qemu.client import HELLO, go
from ukernel.abi.network import Card

SECTORS = 8192
PATIENCE_S = 10.0


class Loop(Server):
    def __init__(self, sectors: int = SECTORS) -> None:
        super().__init__(sectors)
        self.epoll = select.epoll()
        self.watched: dict[int, Callable[[], None]] = {}
        self.closed: list[str] = []
        self.sockets: list[socket.socket] = []
        self.again()

    def again(self) -> None:
        """The two ends of another wire."""
        self.ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(PATIENCE_S)
        self.sockets += self.ours, self.theirs

    def discard(self) -> None: ...

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        self.watched[fd] = ready
        self.epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        del self.watched[fd]
        self.epoll.unregister(fd)

    def turn(self) -> None:
        """Take what has come, until there is nothing more to be done."""
        while ready := self.epoll.poll(0):
            for fd, _ in ready:
                if fd in self.watched:
                    self.watched[fd]()

    def say(self, *data: bytes) -> None:
        self.theirs.sendall(b"".join(data))
        self.turn()

    def hear(self) -> bytes:
        """What has been said to the other end, which must be something."""
        self.turn()
        return self.theirs.recv(1 << 20)

    def disk_wire(self, read_only: bool = False) -> DiskWire:
        """Past its handshake."""
        block = self.block
        wire = DiskWire(self, self.ours, "d", block, block, SECTORS, self.closed.append, read_only)
        self.say(HELLO, go())
        self.hear()
        return wire

    def nic_wire(self, card: Card = CARD, plugged: bool = True) -> NicWire:
        below = self.ethernet
        return NicWire(self, self.ours, "n", below, below, card, self.closed.append, plugged)

    def close(self) -> None:
        for each in self.sockets:
            each.close()
        self.epoll.close()
