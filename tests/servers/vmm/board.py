"""board: a virtual machine in this process: engine, board and devices, and a monitor to run it."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from servers.vmm import elf
from servers.vmm.board import RAM, Board
from servers.vmm.engine import Exit, Kind
from servers.vmm.guest_memory import GuestMemory, Ram
from servers.vmm.unicorn_engine import UnicornEngine
from servers.vmm.window import Window
from ukernel.abi.interface import Lent
from ukernel.abi.wire import pack, unpack
from ukernel.lib.virtio.blk import Blk
from ukernel.lib.virtio.console import Console
from ukernel.lib.virtio.rng import Rng
from ukernel.lib.virtio.transport import VirtioMmio

GUESTS = Path(elf.__file__).parent / "guests"
SLICE_US = 2000
PATIENCE_S = 20


class Medium:
    """A disk in memory."""

    read_only = False

    def __init__(self, size: int) -> None:
        self.size = size
        self.data = bytearray(size)

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        for view in into:
            view[:] = self.data[offset : offset + len(view)]
            offset += len(view)

    def write(self, offset: int, data: Sequence[memoryview]) -> None:
        for view in data:
            self.data[offset : offset + len(view)] = view
            offset += len(view)

    def flush(self) -> None: ...

    def discard(self, offset: int, length: int) -> None: ...


class Memory:
    """A region that nobody lends."""

    def __init__(self, size: int) -> None:
        self.map = mmap.mmap(-1, size)
        self.view = memoryview(self.map)

    def lend(self, offset: int, length: int) -> Lent:
        raise NotImplementedError

    show = lend


class Machine:
    """What a guest runs on. `image` is the name of a guest or the bytes of a program."""

    def __init__(
        self,
        image: str | bytes,
        console: bool = True,
        disk: Medium | None = None,
        rng: bool = False,
    ) -> None:
        self.shown = bytearray()
        self.exits: list[Exit] = []
        self.memory = Memory(1 << 20)
        self.ram = Ram(self.memory, RAM)
        self.board = Board(self.shown.extend)
        self.devices: list[VirtioMmio] = []
        if console:
            self.plug(lambda at, irq: Console("console", at, irq, self.shown.extend))
        if disk is not None:
            self.plug(lambda at, irq: Blk("disk", at, irq, disk))
        if rng:
            self.plug(lambda at, irq: Rng("rng", at, irq, seed=1))
        self.engine = UnicornEngine(self.memory.view, self.board)
        self.image = image
        self.reset()

    def plug(self, make: Callable[[GuestMemory, Callable[[], None]], VirtioMmio]) -> None:
        number = len(self.devices)
        window = Window(self.board.line(number))
        window.device = make(GuestMemory(f"device {number}", self.ram), window.interrupt)
        self.devices.append(window.device)
        self.board.plug(number, window)

    def reset(self) -> None:
        """As the monitor does it: memory, board and processor anew."""
        self.memory.view[:] = bytes(len(self.memory.view))
        entry = RAM
        if isinstance(self.image, str):
            program = (GUESTS / f"{self.image}.elf").read_bytes()
            entry = elf.load(program, self.memory.view, RAM)
        else:
            self.memory.view[: len(self.image)] = self.image
        self.board.reset()
        self.engine.reset(entry)

    def turn(self, slice_us: int = SLICE_US) -> Exit:
        """One slice, and the sleep that a guest without work has."""
        found = self.engine.run(slice_us)
        self.exits.append(found)
        if found.kind is Kind.WFI:
            due = self.board.poll()
            time.sleep(0.001 if due is None else min(due, 1_000_000) / 1e9)
        return found

    def run(self, until: Callable[[], object] = lambda: False) -> Exit:
        """Run until that is so, or the guest halts or fails; how it ended."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            found = self.turn()
            if until() or found.kind in (Kind.HALT, Kind.FAULT):
                return found
        raise AssertionError(f"no end of it: {self.text[-2000:]}")

    @property
    def text(self) -> str:
        return self.shown.decode()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def faults(self) -> int:
        """What the guest did wrong, by the log of the devices."""
        return sum(device.faults.total for device in self.devices)

    def close(self) -> None:
        self.engine.close()

    def save(self) -> bytes:
        """Everything that the machine is."""
        self.board.pause()
        return pack([self.engine.save(), self.board.save(), bytes(self.memory.view)])

    def restore(self, image: bytes) -> None:
        """Go on from there."""
        processor, board, memory = unpack(image)
        self.memory.view[:] = memory
        self.engine.load(processor)
        self.board.restore(board)
        self.board.resume()
