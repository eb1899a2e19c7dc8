"""machine: memory, processor, board and devices of one guest, and nothing of when it runs.

Memory is replaced only while the machine is `idle`: what a device has begun goes on in there. Then
memory comes first, the processor second, since it looks at it, and the devices last, which begin
again what was in flight. The monitor must live whatever the guest does: what can be wrong with a
program or with a state is BadMachine.
"""

from __future__ import annotations

from collections.abc import Callable
from socket import inet_aton
from typing import Any, Protocol, TypeVar

from servers.vmm import elf, engine
from servers.vmm.blk import VmBlk
from servers.vmm.board import RAM, BadBoard, Board
from servers.vmm.guest_memory import GuestMemory, Ram
from servers.vmm.net import VmNet
from servers.vmm.settings import Settings
from servers.vmm.window import Window
from ukernel.abi import wire
from ukernel.abi.network import Ethernet
from ukernel.abi.services import Block
from ukernel.abi.virtio import Status
from ukernel.lib.stub import by_kernel, connect
from ukernel.lib.upstream import Loop, Upstream
from ukernel.lib.virtio import state as device_state
from ukernel.lib.virtio.console import Console
from ukernel.lib.virtio.dma import Fault
from ukernel.lib.virtio.rng import Rng
from ukernel.lib.virtio.transport import VirtioMmio

try:
    from servers.vmm.unicorn_engine import UnicornEngine

    MISSING = ""
except ImportError as error:
    MISSING = str(error)

D = TypeVar("D", bound=VirtioMmio)
Interrupt = Callable[[], None]
CONFIG, CONFIG_END, CONFIG_MAGIC = 8, 12, b"UKCF"  # where guests/start.S has its configuration
CONSOLE, DISK, NIC, RANDOM = range(4)  # slots
SAID = 4  # faults of each device


class BadMachine(Exception):
    """This program, or this state, is none for this machine; the text says why."""


class Host(Loop, Protocol):
    """What a machine needs of its monitor."""

    @property
    def connection(self) -> Any: ...
    def say(self, text: str) -> None: ...


class Machine:
    """As after power-on, without a program. `sink` takes what is shown. Raises BadMachine when its
    engine cannot be had."""

    def __init__(
        self, host: Host, settings: Settings, sink: Callable[[bytes], None], plugged: bool
    ) -> None:
        self._host = host
        self._settings = settings
        self.ram = Ram(host.region("ram", settings.memory), RAM)
        self._blank = True  # its memory is all zeros
        self.board = Board(sink)
        self.windows: list[Window] = []
        self.console: Console = self._plug(
            CONSOLE, "console", lambda memory, irq: Console("console", memory, irq, sink)
        )
        self.disk = self._disk(host, settings.disk)
        self.nic = self._nic(host, settings.nic, plugged)
        self._plug(RANDOM, "rng", lambda memory, irq: Rng("rng", memory, irq))
        self.engine = _engine(self.ram.view, self.board)

    # --- programs and states --------------------------------------------------------------------

    def boot(self) -> None:
        """Begin with the program, as after power-on. Raises BadMachine."""
        self.board.reset()
        view = self.ram.view
        if not self._blank:
            view[:] = bytes(len(view))
        self._blank = False
        try:
            program = self._settings.program.read_bytes()
            entry = elf.load(program, view, RAM)
        except (OSError, elf.BadElf) as error:
            raise BadMachine(f"{self._settings.image}: {error}") from None
        if self._settings.ip and bytes(view[CONFIG:CONFIG_END]) == CONFIG_MAGIC:
            view[CONFIG_END : CONFIG_END + 4] = inet_aton(self._settings.ip)
        self.engine.reset(entry, elf.extent(program, RAM))

    def save(self) -> bytes:
        """All but the memory."""
        return wire.pack([self._settings.engine, self.engine.save(), self.board.save()])

    def restore(self, state: bytes) -> None:
        """Be what was saved, paused, with the memory as it was then, which is here already. Raises
        BadMachine, and then it is nothing that could run."""
        self._blank = False
        try:
            name, processor, board = wire.unpack(state)
            if name != self._settings.engine:
                raise BadMachine(f"it ran on {name}, and this is {self._settings.engine}")
            self.engine.load(processor)
            self.board.restore(board)
        except (wire.Malformed, TypeError, ValueError) as error:
            self.board.reset()
            raise BadMachine(f"this is no state of a machine: {error}") from None
        except (engine.BadState, BadBoard, device_state.BadState) as error:
            self.board.reset()
            raise BadMachine(str(error)) from None

    # --- devices --------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nobody reads or writes its memory."""
        return all(window.idle for window in self.windows)

    @property
    def wrongs(self) -> dict[str, int]:
        """How often the guest did wrong: on the bus, where nothing is; where no memory is; and with
        each device."""
        devices = {w.device.name: w.device.faults.total for w in self.windows}
        return {"bus": self.board.wild_times, "memory": self.engine.strays, **devices}

    def plug(self, plugged: bool) -> None:
        """Whether frames for it are to come here."""
        if self.nic is not None:
            self.nic.plug(plugged)

    def feed(self, data: bytes) -> int:
        """Somebody types: how many bytes were taken."""
        if self.console.status & Status.DRIVER_OK:
            return self.console.feed(data)
        return self.board.feed(data)

    def upstreams(self) -> list[Upstream]:
        """The servers behind its devices."""
        return [device.upstream for device in (self.disk, self.nic) if device is not None]

    def _disk(self, host: Host, name: str) -> VmBlk | None:
        if not name:
            return None
        block = connect(Block, name, timeout_s=None)
        asked, sectors = by_kernel(block), block.capacity()

        def make(memory: GuestMemory, interrupt: Interrupt) -> VmBlk:
            return VmBlk("disk", memory, interrupt, host, block, asked, sectors)

        return self._plug(DISK, "disk", make)

    def _nic(self, host: Host, name: str, plugged: bool) -> VmNet | None:
        if not name:
            return None
        ethernet = connect(Ethernet, name, timeout_s=None)
        asked, card = by_kernel(ethernet), ethernet.card()

        def make(memory: GuestMemory, interrupt: Interrupt) -> VmNet:
            return VmNet("nic", memory, interrupt, host, ethernet, asked, card, plugged)

        return self._plug(NIC, "nic", make)

    def _told(self, fault: Fault) -> None:
        """A device has refused something: the first few are said, and all are counted."""
        if self.wrongs[fault.device] <= SAID:
            self._host.say(f"{fault.device}: {fault.why}")

    def _plug(self, number: int, name: str, make: Callable[[GuestMemory, Interrupt], D]) -> D:
        window = Window(self.board.line(number))
        memory = GuestMemory(name, self.ram, self._host.connection.slot, self._told)
        device = window.device = make(memory, window.interrupt)
        self.windows.append(window)
        self.board.plug(number, window)
        return device


def _engine(memory: memoryview, board: Board) -> engine.Engine:
    if MISSING:
        raise BadMachine(f"the engine unicorn is an extra, pip install ukernel[vm]: {MISSING}")
    return UnicornEngine(memory, board)
