"""card: the driver of a network card and the card itself in one process, with no kernel between.

Calls are made and answered by hand: `Asked` is the way that they come in, and has what comes of
them. A turn of the driver's loop is what it is in a system, except that it never waits.
"""

from __future__ import annotations

import os
import time
from collections import deque
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from hwsim.inbox import Inbox
from hwsim.iommu import Iommu
from servers.nic import Nic
from tests.hwsim.harness import PAGE, Wire
from ukernel.abi.errors import Answer, CallError, Protocol
from ukernel.abi.interface import Interface, Lent, Operation
from ukernel.abi.network import Ethernet
from ukernel.abi.virtio import NET_HEADER_BYTES
from ukernel.lib.virtio.cable import nothing
from ukernel.lib.virtio.net import Net
from ukernel.lib.virtio.offload import CAME
from ukernel.lib.virtio.queue import Views
from ukernel.lib.way import Caller, Current

MAC = bytes.fromhex("02aabbccdd01")
PLAIN = bytes(NET_HEADER_BYTES)
OPERATIONS = {operation.name: operation for operation in Ethernet.ops.values()}


class Line:
    """A cable of which the test holds the other end."""

    def __init__(self) -> None:
        self.arrived = nothing
        self.inbox = Inbox()
        self.sent: list[tuple[bytes, bytes]] = []  # header and frame
        self._wanted = False

    def accept(self, features: int) -> None:
        self.inbox.accepted = features

    def listen(self, wanted: bool) -> None:
        self._wanted = wanted

    def send(self, header: bytes, parts: Views) -> None:
        self.sent.append((header, b"".join(parts)))

    def flush(self) -> None:
        """They are here at once."""

    def receive(self, into: Views) -> int:
        return self.inbox.take(into)

    def drops(self) -> int:
        return self.inbox.dropped

    def bring(self, *frames: bytes) -> None:
        """Frames come from the other end."""
        for frame in frames:
            self.inbox.put(CAME + frame)
        if self._wanted:
            self.arrived()


class Asked:
    """A call, and what has come of it."""

    def __init__(self, client: int) -> None:
        self.client = client
        self.closed = False
        self.outcomes: list[Any] = []

    def reply(self, operation: Operation, number: int, value: Any) -> None:
        self.outcomes.append(value)

    def refuse(self, number: int, error: Answer | CallError) -> None:
        self.outcomes.append(error)

    @property
    def outcome(self) -> Any:
        """The one outcome; None as long as there is none."""
        assert len(self.outcomes) < 2
        return self.outcomes[0] if self.outcomes else None


class Device(Wire):
    """The card as its driver has it. While `deaf`, nobody hears the doorbell."""

    name = "net0"

    def __init__(self, net: Net) -> None:
        super().__init__(net)
        self.interrupt = os.eventfd(0, os.EFD_NONBLOCK)
        self.deaf = False
        self._windows: dict[bytes, int] = {}

    def ring_doorbell(self) -> None:
        self.rings += 1
        if not self.deaf:
            self.hardware.doorbell()
            while self.hardware.backlog:
                self.hardware.doorbell()

    def share(self, token: bytes, view: memoryview) -> None:
        """Memory that the device may be sent to."""
        self._windows[token] = self._next_iova
        self.domain.map(self._next_iova, len(view), True, view)
        self._next_iova += len(view) + PAGE

    def take_back(self, token: bytes) -> None:
        """Its owner wants it for himself."""
        self.domain.unmap(self._windows[token])

    def address(self, lent: Lent, *, write: bool = False) -> int:
        return self._windows[lent.token] + lent.offset


class NicHere(Nic):
    """The driver, with what the kernel would give it."""

    def __init__(self, connection: Any, lent: dict[bytes, memoryview], card: Device) -> None:
        super().__init__(connection)
        self.lent = lent
        self.card_here = card

    def device(self, name: str = "") -> Any:
        return self.card_here

    def memory(self, lent: Lent, *, write: bool = False) -> memoryview:
        view = self.lent[lent.token]
        if lent.offset + lent.length > len(view):
            raise Protocol("more than there is")
        return view[lent.offset : lent.offset + lent.length]


class Room(NamedTuple):
    """Memory of a client."""

    token: bytes
    view: memoryview

    def lend(self, offset: int, length: int) -> Lent:
        return Lent(self.token, offset, length)


class Rig:
    """A card with its driver."""

    def __init__(self, mtu: int = 1500, offload: bool = True, window: int = 64) -> None:
        self.line = Line()
        self.domain = Iommu("net0")
        self.lost = False  # interrupts are
        self.raised = 0  # those that were not
        self.net = Net("net0", self.domain, self._interrupt, self.line, MAC, mtu, offload)
        self.lent: dict[bytes, memoryview] = {}
        self.window = window
        self.made: list[NicHere] = []
        self.start()

    def _interrupt(self) -> None:
        if not self.lost:
            self.raised += 1
            os.eventfd_write(self.dev.interrupt, 1)

    def start(self) -> None:
        """A life of the driver. Of the one before nothing is left but what the device knows."""
        self.domain.reset()
        self.domain.assign("nic")
        self.dev = Device(self.net)
        self.nic = NicHere(_connection(self.window), self.lent, self.dev)
        self.made.append(self.nic)
        self.nic.setup()
        for token, view in self.lent.items():
            self.dev.share(token, view)

    def room(self, size: int) -> Room:
        """Memory of a client that it can lend."""
        view = memoryview(bytearray(-(-size // PAGE) * PAGE))
        room = Room(len(self.lent).to_bytes(16, "little"), view)
        self.lent[room.token] = view
        self.dev.share(room.token, view)
        return room

    def ask(self, name: str, *args: Any, client: int = 1) -> Asked:
        """Begin a call."""
        asked, operation = Asked(client), OPERATIONS[name]
        current = Current(cast(Any, asked), operation, 0, Caller(0, client, 0))
        self.nic.serve_direct(current, cast(Interface, self.nic), args)
        return asked

    def turn(self) -> None:
        """Let the driver handle what is here."""
        for _ in range(4):
            self.nic._loop.turn(time.monotonic_ns())

    def look(self) -> None:
        """It is time for the driver to look by itself."""
        assert self.nic.alarm_ns
        self.nic.alarm_ns = time.monotonic_ns()
        self.turn()

    def close(self) -> None:
        for nic in self.made:
            os.close(nic.card_here.interrupt)
            os.close(nic.connection.fd)
            nic._loop._epoll.close()


def _connection(window: int) -> Any:
    """What the driver needs to know of the kernel."""
    info = SimpleNamespace(args={}, state="stateless", window=window, devices=["net0"])
    return SimpleNamespace(
        info=info, recorder=None, stirred=False, inbox=deque(), finished=deque(), slot="nic",
        fd=os.eventfd(0), stir=lambda: None, poll_notice=lambda: None,
    )  # fmt: skip
