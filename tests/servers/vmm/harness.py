"""harness: a guest's driver, its devices and the server behind them, in one process.

The driver is the real one (ukernel.lib.virtqueue), in memory of the guest. Calls of the monitor
are begun, and end when and how the test says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from servers.vmm.guest_memory import GuestMemory, Ram
from servers.vmm.window import Window
from tests.hwsim.harness import Region
from ukernel.abi.errors import DeadUnknown
from ukernel.abi.interface import Lent
from ukernel.abi.network import Card, Ethernet
from ukernel.abi.services import SECTOR, Access, Block
from ukernel.abi.virtio import Reg
from ukernel.lib.memory import Region as OwnRegion
from ukernel.lib.virtio.transport import VirtioMmio

BASE = 0x8000_0000
RAM = 512 << 10
PAGE = 4096


class Memory:
    """`ukernel.lib.memory.Region` without a kernel; the token is its name."""

    def __init__(self, name: str, size: int) -> None:
        self.token = name.encode()
        self.view = memoryview(bytearray(size))

    def lend(self, offset: int, length: int) -> Lent:
        return Lent(self.token, offset, length)

    show = lend


class Call:
    """`UnderWay`: a call that was begun."""

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name, self.args = name, args
        self.outcome: Any = None
        self.done: Callable[[Any], None] = lambda _: None

    def result(self) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Server:
    """The loop of the monitor, and the server behind: what is begun stands in `calls`, and `asked`
    is what was asked for by the kernel's way."""

    def __init__(self, sectors: int = 64) -> None:
        self.memories: dict[bytes, Memory] = {}
        self.calls: list[Call] = []
        self.asked: list[Call] = []
        self.disk = bytearray(sectors * SECTOR)
        self.unflushed = False
        self.sent: list[bytes] = []
        self.deaf: Exception | None = None  # what beginning a call raises

    def region(self, name: str, size: int, *, persistent: bool = False) -> OwnRegion:
        memory = self.memories.setdefault(name.encode(), Memory(name, size))
        return cast(OwnRegion, memory)

    def when(self, call: Any, done: Callable[[Any], None]) -> None:
        call.done = done
        (self.asked if call.name in ("capacity", "card") else self.calls).append(call)

    def _begun(self, name: str, args: tuple[Any, ...]) -> Any:
        if self.deaf is not None:
            raise self.deaf
        return Call(name, args)

    @property
    def block(self) -> Block:
        return cast(Block, self)

    @property
    def ethernet(self) -> Ethernet:
        return cast(Ethernet, self)

    def capacity(self) -> None: ...
    def read(self) -> None: ...
    def write(self) -> None: ...
    def flush(self) -> None: ...
    def card(self) -> None: ...
    def transmit(self) -> None: ...
    def receive(self) -> None: ...

    def seen(self, lent: Lent) -> memoryview:
        """Lent memory, as the server sees it."""
        return self.memories[lent.token].view[lent.offset : lent.offset + lent.length]

    def named(self, name: str) -> list[Call]:
        return [call for call in self.calls if call.name == name]

    def end(self, call: Call, outcome: Any) -> None:
        """A call has its outcome."""
        self.calls.remove(call)
        call.outcome = outcome
        call.done(call)

    def perform(self, call: Call) -> Any:
        """Do what it asks for; its result."""
        match call.name, call.args:
            case "read", (first, into):
                view = self.seen(into)
                view[:] = self.disk[first * SECTOR :][: len(view)]
                return len(view)
            case "write", (first, data):
                view = self.seen(data)
                self.disk[first * SECTOR : first * SECTOR + len(view)] = view
                self.unflushed = True
                return len(view)
            case "flush", ():
                self.unflushed = False
            case "transmit", (header, payload):
                self.sent.append(bytes(self.seen(header)) + bytes(self.seen(payload)))
        return None

    def do(self, at: int = 0) -> None:
        """Perform the call that is `at` and tell its outcome."""
        call = self.calls[at]
        self.end(call, self.perform(call))

    def do_all(self) -> None:
        while self.calls:
            self.do()

    def die(self, performed: Callable[[], bool] = lambda: False) -> None:
        """All that is under way ends with an error; some of it may have been done."""
        for call in tuple(self.calls):
            if performed():
                self.perform(call)
            self.end(call, DeadUnknown("killed"))

    def revive(self, answer: Any = 64) -> None:
        """The next life answers what the kernel has kept for it."""
        asked, self.asked = self.asked, []
        for call in asked:
            call.outcome = answer
            call.done(call)

    def come(self, frame: bytes) -> None:
        """A frame comes, for the first call that waits."""
        [*_, call] = [call for call in reversed(self.calls) if call.name == "receive"]
        self.seen(call.args[0])[: len(frame)] = frame
        self.end(call, len(frame))


CARD = Card(bytes.fromhex("0200000000aa"), 1500, 0)


class Guest:
    """A guest's memory and the window of one device; the bus of `ukernel.lib.virtqueue`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        region = cast(Memory, server.region("ram", RAM))
        self.ram = Ram(region, BASE)
        self.high = False
        self.edges = 0
        self._free = 0

    def plug(self, make: Callable[[GuestMemory, Callable[[], None]], VirtioMmio]) -> None:
        self.memory = GuestMemory("dev0", self.ram)
        self.window = Window(self._line)
        self.window.device = make(self.memory, self.window.interrupt)

    def _line(self, high: bool) -> None:
        self.high = high
        self.edges += high

    def load(self, offset: int) -> int:
        return self.window.load(offset, 4)

    def store(self, offset: int, value: int) -> None:
        self.window.store(offset, 4, value)

    def config(self, offset: int, length: int) -> bytes:
        return bytes(self.window.load(Reg.CONFIG + offset + at, 1) for at in range(length))

    def burst(self, accesses: Sequence[Access]) -> list[int]:
        loaded = []
        for offset, store, value in accesses:
            if store:
                self.store(offset, value)
            else:
                loaded.append(self.load(offset))
        return loaded

    def dma(self, size: int) -> Region:
        at = self._free
        self._free += -(-size // PAGE) * PAGE
        assert self._free <= RAM
        return Region(self.ram.view[at : at + size], BASE + at)

    def ring_doorbell(self) -> None:
        for index in range(len(self.window.device.queue_sizes)):
            self.store(Reg.QUEUE_NOTIFY, index)
        while self.window.turn():
            pass

    def acknowledge(self) -> None:
        """As an interrupt handler does."""
        self.store(Reg.INTERRUPT_ACK, self.load(Reg.INTERRUPT_STATUS))
