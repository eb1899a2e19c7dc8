"""iommu: a device reaches the memory that the kernel mapped for it, and not one byte more.

One `Iommu` is the domain of one device. Every refused access is counted and remembered with the
name of the driver that owned the device at that moment.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable
from mmap import mmap
from typing import NamedTuple

from ukernel.lib.virtio.dma import DmaFault, Fault, FaultLog

ADDRESS_SPACE = 1 << 64

Memory = memoryview | bytearray | mmap


class Mapping(NamedTuple):
    start: int
    end: int
    writable: bool
    memory: memoryview


NOTHING = Mapping(0, 0, False, memoryview(b""))


class Iommu:
    """The IOMMU domain of one device (a `ukernel.lib.virtio.dma.Domain`).

    `generation` changes whenever a mapping goes away: who keeps a view asks for it anew then.
    """

    def __init__(self, device: str, report: Callable[[Fault], None] | None = None) -> None:
        self.device = device
        self.faults = FaultLog(device, report)
        self.generation = 0
        self._maps: list[Mapping] = []  # by start, never overlapping
        # Requests and buffers come from few regions: mostly from the same two by turns.
        self._last = self._before = NOTHING

    def assign(self, driver: str) -> None:
        """From now on the device, and what it does wrong, belongs to `driver`; no mapping stays."""
        self.reset()
        self.faults.driver = driver

    def map(self, iova: int, length: int, writable: bool, memory: Memory) -> None:
        """Let the device reach `length` bytes of `memory` at `iova`. Raises ValueError if it can't.

        Buffers must lie inside one mapping, even where two mappings adjoin.
        """
        view = memoryview(memory).cast("B")[:length]
        if length <= 0 or len(view) < length or not 0 <= iova <= ADDRESS_SPACE - length:
            raise ValueError(f"{self.device}: cannot map {length} bytes at {iova:#x}")
        if writable and view.readonly:
            raise ValueError(f"{self.device}: read-only memory mapped writable at {iova:#x}")
        if any(m.start < iova + length and iova < m.end for m in self._maps):
            raise ValueError(f"{self.device}: {iova:#x} is mapped already")
        insort(self._maps, Mapping(iova, iova + length, writable, view), key=lambda m: m.start)

    def unmap(self, iova: int) -> None:
        """Take back the mapping that starts at `iova`; nothing when there is none."""
        self._forget([m for m in self._maps if m.start != iova])

    def reset(self) -> None:
        """Take back every mapping."""
        self._forget([])

    def view(self, iova: int, length: int, write: bool) -> memoryview:
        """The memory behind `length` bytes at `iova`. Raises DmaFault, having recorded it."""
        found = self._last
        if not found.start <= iova < found.end:
            found = self._before
            if not found.start <= iova < found.end:
                at = bisect_right(self._maps, iova, key=lambda m: m.start)
                found = self._maps[at - 1] if at else NOTHING
                if iova >= found.end:
                    raise self._refuse(iova, length, "nothing is mapped there")
            self._before, self._last = self._last, found
        if iova + length > found.end:
            raise self._refuse(iova, length, f"the mapping ends at {found.end:#x}")
        if write and not found.writable:
            raise self._refuse(iova, length, "the mapping is read-only")
        offset = iova - found.start
        return found.memory[offset : offset + length]

    def _refuse(self, iova: int, length: int, why: str) -> DmaFault:
        fault = DmaFault(self.device, iova, length, why)
        self.faults.record(str(fault))
        return fault

    def _forget(self, kept: list[Mapping]) -> None:
        self._maps = kept
        self._last = self._before = NOTHING
        self.generation += 1
