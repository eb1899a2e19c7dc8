"""guest_memory: a guest's memory as its devices see it: by guest-physical address, and to be lent.

All of it lies together in one region of the monitor, so a window of it can be lent to the driver
of the real device: what that reads or writes never passes here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ctypes import addressof, c_char
from typing import NamedTuple, Protocol

from ukernel.abi.interface import Lent
from ukernel.lib.virtio.dma import DmaFault, Fault, FaultLog


class Lendable(Protocol):
    """A region, as far as it is needed here."""

    view: memoryview

    def lend(self, offset: int, length: int) -> Lent:
        """A window that the callee may read and write."""

    def show(self, offset: int, length: int) -> Lent:
        """A window that the callee may only read."""


class Span(NamedTuple):
    """A piece of the memory, in bytes from its start."""

    offset: int
    length: int


class Ram:
    """The memory of one guest: the whole of `region`, at the guest-physical address `base`."""

    def __init__(self, region: Lendable, base: int) -> None:
        self.region = region
        self.base = base
        self.view = region.view
        self.size = len(region.view)
        self._start = _address(region.view)

    def spans(self, views: Iterable[memoryview]) -> list[Span]:
        """Where parts of `view` lie; those that adjoin are one."""
        found: list[Span] = []
        for view in views:
            offset = _address(view) - self._start
            if found and sum(found[-1]) == offset:
                offset, before = found.pop()
                found.append(Span(offset, before + len(view)))
            else:
                found.append(Span(offset, len(view)))
        return found

    def views(self, spans: Iterable[Span]) -> list[memoryview]:
        """The bytes of each."""
        return [self.view[offset : offset + length] for offset, length in spans]


class GuestMemory:
    """What one device of the guest reaches: all of its memory, and nothing else (a `Domain`)."""

    generation = 0  # nothing is ever taken away

    def __init__(
        self,
        device: str,
        ram: Ram,
        guest: str = "guest",
        report: Callable[[Fault], None] | None = None,
    ) -> None:
        self.ram = ram
        self.faults = FaultLog(device, report)
        self.faults.driver = guest

    def view(self, iova: int, length: int, write: bool) -> memoryview:
        """The memory at a guest-physical address. Raises DmaFault, having recorded it."""
        offset = iova - self.ram.base
        if offset < 0 or length < 0 or offset + length > self.ram.size:
            end = self.ram.base + self.ram.size
            why = f"the guest has memory from {self.ram.base:#x} to {end:#x}"
            fault = DmaFault(self.faults.device, iova, length, why)
            self.faults.record(str(fault))
            raise fault
        return self.ram.view[offset : offset + length]


def _address(view: memoryview) -> int:
    """Where in this process it lies. Nobody may resize what it is a view of meanwhile."""
    return addressof(c_char.from_buffer(view))
