"""hardware: what the bus knows of a device, whatever the device is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ukernel.lib.virtio.dma import FaultLog


class Hardware(Protocol):
    """A device on the bus. Nothing here raises, whatever the driver sends.

    When the driver changes: `reset`, then `assign` of its IOMMU domain; then nothing of the former
    driver's is touched again. While `backlog` is true, call `doorbell` whenever the others had
    their turn.
    """

    name: str
    interrupt: Callable[[], None]
    backlog: bool

    @property
    def faults(self) -> FaultLog:
        """What its drivers did wrong."""

    def load(self, offset: int) -> int:
        """The 32-bit register at `offset`; 0 where there is none."""

    def store(self, offset: int, value: int) -> None:
        """Set the 32-bit register at `offset`; ignored where there is none."""

    def config(self, offset: int, length: int) -> bytes:
        """Bytes of the configuration space; fewer where it ends."""

    def notify(self, index: int) -> None:
        """Do a bounded amount of the work in queue `index`."""

    def doorbell(self) -> None:
        """As `notify`, for every queue."""

    def reset(self) -> None:
        """Quiesce: as after power-on, except that data in the device stays."""
