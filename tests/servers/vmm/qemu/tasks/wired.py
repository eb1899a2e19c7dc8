"""wired: the wires of a machine that QEMU runs, for whoever connects to `args.disk` or `args.nic`,
which are paths of sockets; one at a time.
"""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import socket
import time
from typing import NamedTuple

from servers.vmm.qemu.disk import DiskWire
from servers.vmm.qemu.nic import NicWire
from ukernel.abi.interface import Interface, op, u64
from ukernel.abi.network import Ethernet
from ukernel.abi.services import Block
from ukernel.lib.server import Server
from ukernel.lib.stub import by_kernel, connect
from ukernel.lib.upstream import Patience

AGAIN_NS = 5_000_000


class Told(NamedTuple):
    """What the wires have to tell."""

    counts: list[u64]
    deaths: u64  # of the server below
    idle: bool
    ends: list[str]  # why wires were closed, since the last time


class Wired(Interface):
    """Wires to be pulled at."""

    @op(1, idempotent=True)
    def disk(self) -> Told:
        """Reads, writes, flushes, bytes read, bytes written, errors of the disk."""

    @op(2, idempotent=True)
    def nic(self) -> Told:
        """Frames sent, received, dropped."""


class WiredServer(Server, Wired):
    def setup(self) -> None:
        self.wires: dict[str, DiskWire | NicWire] = {}
        self.ends: list[str] = []
        self.patience = Patience(self, AGAIN_NS)
        for name, path in self.args.items():
            self._listen(name, path)

    def _listen(self, name: str, path: str) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        self.watch(listener.fileno(), lambda: self._open(name, listener.accept()[0]))

    def _open(self, name: str, sock: socket.socket) -> None:
        if wire := self.wires.get(name):
            wire.close()
            wire.open(sock)
        elif name == "disk":
            block = connect(Block, "disk", timeout_s=None)
            asked, sectors = by_kernel(block), block.capacity()
            wire = DiskWire(self, sock, name, block, asked, sectors, self.ends.append)
        else:
            card = connect(Ethernet, "switch", timeout_s=None)
            wire = NicWire(self, sock, name, card, by_kernel(card), card.card(), self.ends.append)
        self.wires[name] = wire

    @property
    def wants_retry(self) -> bool:
        return any(wire.upstream.wants_retry for wire in self.wires.values())

    def retry(self) -> None:
        for wire in self.wires.values():
            if wire.upstream.wants_retry:
                wire.upstream.retry()

    def before_waiting(self) -> None:
        self.alarm_ns = self.patience.look(time.monotonic_ns())

    def disk(self) -> Told:
        wire = self.wires["disk"]
        assert isinstance(wire, DiskWire)
        moved = wire.reads, wire.writes, wire.flushes, wire.bytes_read, wire.bytes_written
        return self._what(wire, *moved, wire.errors)

    def nic(self) -> Told:
        wire = self.wires["nic"]
        assert isinstance(wire, NicWire)
        return self._what(wire, wire.sent, wire.received, wire.dropped)

    def _what(self, wire: DiskWire | NicWire, *counts: int) -> Told:
        told = Told([*counts], wire.upstream.deaths, wire.idle, [*self.ends])
        self.ends.clear()
        return told


if __name__ == "__main__":
    WiredServer.run()
