"""window: the registers of a virtio device in a guest's address space, and its interrupt line.

The line is level-triggered, as on a PLIC: high as long as InterruptStatus is not 0 (virtio 1.2
§4.2.2). Nothing here raises, whatever the guest does.
"""

from __future__ import annotations

from collections.abc import Callable

from servers.vmm.device import SlowDevice
from ukernel.abi.virtio import Reg
from ukernel.lib.virtio.transport import VirtioMmio

BYTES = 0x1000


class Window:
    """The place of one `device`, which is made with `interrupt` and then put here."""

    device: VirtioMmio

    def __init__(self, line: Callable[[bool], None]) -> None:
        self._line = line
        self._high = False

    def load(self, offset: int, size: int) -> int:
        """`size` bytes as a number. Registers are 32 bits wide, and nothing else can be read."""
        if offset >= Reg.CONFIG:
            return int.from_bytes(self.device.config(offset - Reg.CONFIG, size), "little")
        return self.device.load(offset) if size == 4 else 0

    def store(self, offset: int, size: int, value: int) -> None:
        if size == 4:
            self.device.store(offset, value)
            self.interrupt()

    def interrupt(self) -> None:
        """The device may have changed its mind about the line."""
        if self._high != (self.device.load(Reg.INTERRUPT_STATUS) != 0):
            self._drive()

    def _drive(self) -> None:
        self._high = self.device.load(Reg.INTERRUPT_STATUS) != 0
        self._line(self._high)

    @property
    def idle(self) -> bool:
        """Nobody reads or writes the guest's memory for this device: it may be replaced."""
        return self.device.idle if isinstance(self.device, SlowDevice) else True

    def turn(self) -> bool:
        """Work on, after the others had their turn; whether work is left."""
        if self.device.backlog:
            self.device.doorbell()
        return self.device.backlog

    def reset(self) -> None:
        """As after power-on."""
        self.device.reset()
        self._drive()

    def save(self) -> bytes:
        return self.device.save()

    def restore(self, data: bytes) -> None:
        """Go on from what was saved. Raises BadState (ukernel.lib.virtio.state)."""
        try:
            self.device.restore(data)
            self.device.doorbell()  # the guest may have rung while nobody was there
        finally:
            self._drive()
