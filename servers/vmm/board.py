"""board: what there is below a guest's memory, at the addresses of QEMU's machine `virt`.

    0x0010_0000  finisher           0x1000_0000  UART                 IRQ 10
    0x0200_0000  CLINT              0x1000_1000  8 virtio-mmio slots  IRQ 1 to 8
    0x0C00_0000  PLIC               0x8000_0000  memory (not ours)

An access of anything else reads zeros and changes nothing; it is counted with its address. Nothing
that the guest does raises. The guest's clock stands still while it is paused, and goes on where it
was after a restore.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from servers.vmm import finisher
from servers.vmm.clint import NS_PER_TICK, Clint
from servers.vmm.plic import Plic
from servers.vmm.uart import REGISTERS, Uart
from ukernel.abi.virtio import MAGIC, VENDOR, VERSION, Reg
from ukernel.abi.wire import Malformed, pack, unpack

FINISHER, FINISHER_BYTES = 0x0010_0000, 0x1000
CLINT, CLINT_BYTES = 0x0200_0000, 0x1_0000
PLIC, PLIC_BYTES = 0x0C00_0000, 0x60_0000
UART, UART_IRQ = 0x1000_0000, 10
VIRTIO, SLOT_BYTES, SLOTS, VIRTIO_IRQ = 0x1000_1000, 0x1000, 8, 1
VIRTIO_END = VIRTIO + SLOTS * SLOT_BYTES
RAM = 0x8000_0000

REMEMBERED = 32  # wild accesses
# Of a slot without a device: the device ID is 0.
_EMPTY_SLOT: dict[int, int] = {Reg.MAGIC: MAGIC, Reg.VERSION: VERSION, Reg.VENDOR_ID: VENDOR}


class Slot(Protocol):
    """A virtio device in the guest's address space (`servers.vmm.window`)."""

    def load(self, offset: int, size: int) -> int: ...
    def store(self, offset: int, size: int, value: int) -> None: ...
    def turn(self) -> bool: ...
    def reset(self) -> None: ...
    def save(self) -> bytes: ...
    def restore(self, data: bytes) -> None: ...


class Wild(NamedTuple):
    """An access of nothing."""

    address: int
    size: int
    store: bool


class BadBoard(Exception):
    """These bytes are not the state of such a board."""


class Board:
    """The bus of one hart. `sink` takes what the UART shows; `clock` counts nanoseconds.

    A device is made with the line of its slot, and then plugged in.
    """

    def __init__(
        self, sink: Callable[[bytes], None], clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.lines = 0
        self.halted = ""
        self.wild: deque[Wild] = deque(maxlen=REMEMBERED)
        self.wild_times = 0
        self.accesses = 0  # by the guest, of all that is here
        self._sink = sink
        self._clock = clock
        self._slots: list[Slot | None] = [None] * SLOTS
        self._paused = False
        self.reset()

    # --- for the monitor ------------------------------------------------------------------------

    def line(self, number: int) -> Callable[[bool], None]:
        """The interrupt line of slot 0 to 7, which is level-triggered."""
        return lambda high: self._set_level(VIRTIO_IRQ + number, high)

    def plug(self, number: int, device: Slot) -> None:
        """Put a device into slot 0 to 7."""
        self._slots[number] = device

    def reset(self) -> None:
        """As after power-on; the clock begins with 0."""
        self.lines, self.halted = 0, ""
        self.clint, self.plic, self.uart = Clint(), Plic(), Uart(self._sink)
        self._lines_of_plic = 0
        self._set_clock(0)
        for device in self._devices():
            device.reset()

    def feed(self, data: bytes) -> int:
        """Somebody types at the UART: how many bytes were taken."""
        taken = self.uart.feed(data)
        self._uart_level()
        return taken

    def work(self) -> bool:
        """Give each device that could not finish its turn; whether work is left."""
        return True in [device.turn() for device in self._devices()]

    def pause(self) -> None:
        """The guest's clock stands still."""
        if not self._paused:
            self._stood_ns, self._paused = self.now_ns(), True

    def resume(self) -> None:
        """The guest's clock goes on where it stood."""
        if self._paused:
            self._paused = False
            self._set_clock(self._stood_ns)

    def now_ns(self) -> int:
        """The guest's clock: nanoseconds since it was reset, without those that it was paused."""
        return self._stood_ns if self._paused else self._clock() - self._began_ns

    def save(self) -> bytes:
        """All of it, with its devices."""
        parts = self.clint.save(), self.plic.save(), self.uart.save()
        devices = [b"" if device is None else device.save() for device in self._slots]
        return pack([self.now_ns(), self.halted, self.wild_times, *parts, devices])

    def restore(self, state: bytes) -> None:
        """Be what was saved, paused. Raises BadBoard, and whatever a device raises."""
        try:
            ns, halted, wild, clint, plic, uart, devices = unpack(state)
            if [bool(kept) for kept in devices] != [slot is not None for slot in self._slots]:
                raise BadBoard("its devices are others, or in other slots")
            self.clint.restore(clint)
            self.plic.restore(plic)
            self.uart.restore(uart)
            self._stood_ns, self.halted, self.wild_times = int(ns), str(halted), int(wild)
        except (Malformed, struct.error, TypeError, ValueError) as error:
            raise BadBoard(str(error)) from error
        self._paused = True
        for slot, kept in zip(self._slots, devices, strict=True):
            if slot is not None:
                slot.restore(kept)
        self._after_plic()
        self.poll()

    # --- for the processor (engine.Bus) ---------------------------------------------------------

    def time(self) -> int:
        return self.now_ns() // NS_PER_TICK

    def poll(self) -> int | None:
        due = self.clint.due(self.time())
        self.lines = due.lines | self._lines_of_plic
        return None if due.ticks is None else due.ticks * NS_PER_TICK

    def load(self, address: int, size: int) -> int:
        self.accesses += 1
        if VIRTIO <= address < VIRTIO_END:
            return self._load_virtio(address - VIRTIO, size)
        if CLINT <= address < CLINT + CLINT_BYTES and size >= 4:
            return self.clint.load(address - CLINT, size, self.time())
        if PLIC <= address < PLIC + PLIC_BYTES and size == 4 and not address & 3:
            value = self.plic.load(address - PLIC)
            self._after_plic()
            return value
        if UART <= address < UART + REGISTERS and size == 1:
            value = self.uart.load(address - UART)
            self._uart_level()
            return value
        if not FINISHER <= address < FINISHER + FINISHER_BYTES:
            self._astray(address, size, False)
        return 0

    def store(self, address: int, size: int, value: int) -> None:
        self.accesses += 1
        if VIRTIO <= address < VIRTIO_END:
            self._store_virtio(address - VIRTIO, size, value)
        elif CLINT <= address < CLINT + CLINT_BYTES and size >= 4:
            self.clint.store(address - CLINT, size, value)
            self.poll()
        elif PLIC <= address < PLIC + PLIC_BYTES and size == 4 and not address & 3:
            self.plic.store(address - PLIC, value)
            self._after_plic()
        elif UART <= address < UART + REGISTERS and size == 1:
            self.uart.store(address - UART, value)
            self._uart_level()
        elif FINISHER <= address < FINISHER + FINISHER_BYTES:
            self.halted = finisher.ended(value)
        else:
            self._astray(address, size, True)

    # --- the devices ----------------------------------------------------------------------------

    def _load_virtio(self, at: int, size: int) -> int:
        number, offset = divmod(at, SLOT_BYTES)
        slot = self._slots[number]
        if slot is not None:
            return slot.load(offset, size)
        return _EMPTY_SLOT.get(offset, 0) if size == 4 else 0

    def _store_virtio(self, at: int, size: int, value: int) -> None:
        number, offset = divmod(at, SLOT_BYTES)
        slot = self._slots[number]
        if slot is not None:
            slot.store(offset, size, value)

    def _devices(self) -> Iterator[Slot]:
        return (slot for slot in self._slots if slot is not None)

    def _set_level(self, source: int, high: bool) -> None:
        self.plic.set_level(source, high)
        self._after_plic()

    def _uart_level(self) -> None:
        self._set_level(UART_IRQ, self.uart.high())

    def _after_plic(self) -> None:
        self.lines &= ~self._lines_of_plic
        self._lines_of_plic = self.plic.lines()
        self.lines |= self._lines_of_plic

    def _astray(self, address: int, size: int, store: bool) -> None:
        self.wild_times += 1
        self.wild.append(Wild(address, size, store))

    def _set_clock(self, ns: int) -> None:
        self._stood_ns, self._began_ns = ns, self._clock() - ns
