"""dma: what a device reaches of its driver's memory, and what it remembers of refusals.

A device knows addresses only. Its `Domain` turns them into memory, or refuses and notes who was
wrong: the IOMMU of the simulated machine is one, the memory of a guest is another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

REMEMBERED_FAULTS = 32


class Fault(NamedTuple):
    """One rule broken by a driver, as the log keeps it."""

    device: str
    driver: str
    why: str


class FaultLog:
    """Faults of one device: how many there were, and the last few of them.

    `report` is called with each fault as it happens; it must not raise.
    """

    def __init__(self, device: str, report: Callable[[Fault], None] | None = None) -> None:
        self.device = device
        self.driver = ""
        self.total = 0
        self.recent: deque[Fault] = deque(maxlen=REMEMBERED_FAULTS)
        self.report = report

    def record(self, why: str) -> None:
        fault = Fault(self.device, self.driver, why)
        self.total += 1
        self.recent.append(fault)
        if self.report is not None:
            self.report(fault)


class DmaFault(Exception):
    """A device was told to touch memory outside its domain. Already in the log when raised."""

    def __init__(self, device: str, iova: int, length: int, why: str) -> None:
        super().__init__(f"DMA of {length} bytes at {iova:#x}: {why}")
        self.device, self.iova, self.length, self.why = device, iova, length, why

    def again(self) -> DmaFault:
        """The same, without the memory that the traceback of this one holds on to."""
        return DmaFault(self.device, self.iova, self.length, self.why)


class Domain(Protocol):
    """What one device reaches."""

    @property
    def faults(self) -> FaultLog:
        """What its drivers did wrong."""

    @property
    def generation(self) -> int:
        """Changes whenever memory goes away: who keeps a view asks for it anew then."""

    def view(self, iova: int, length: int, write: bool) -> memoryview:
        """The memory behind `length` bytes at `iova`. Raises DmaFault, having recorded it."""
