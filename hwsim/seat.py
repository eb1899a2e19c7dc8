"""seat: a device's place on the bus: its registers for one epoch, its IOMMU, lines and defects."""

from __future__ import annotations

from hwsim.faults import Defects
from hwsim.hardware import Hardware
from hwsim.iommu import Iommu
from ukernel.abi.services import Access, Registers
from ukernel.lib.bell import ring


class Seat(Registers):
    """What a driver reaches of one device, as long as its badge is exported."""

    device: Hardware  # made with this seat's interrupt line
    defects: Defects

    def __init__(self, index: int, domain: Iommu) -> None:
        self.index = index
        self.domain = domain
        self.doorbell = -1
        self.line = -1

    def load(self, offset: int) -> int:
        return self.device.load(offset)

    def store(self, offset: int, value: int) -> None:
        self.device.store(offset, value)

    def config(self, offset: int, length: int) -> bytes:
        return self.device.config(offset, length)

    def burst(self, accesses: list[Access]) -> list[int]:
        loaded = []
        for offset, store, value in accesses:
            if store:
                self.device.store(offset, value)
            else:
                loaded.append(self.device.load(offset))
        return loaded

    def interrupt(self) -> None:
        if self.line >= 0:
            ring(self.line)
