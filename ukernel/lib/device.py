"""device: a driver's side of a device: registers, DMA memory, doorbell and interrupt line.

A register access traps, as it does in a virtual machine: it is a call to the machine. Only the
two hot events bypass the kernel: the doorbell and the interrupt are eventfds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from ukernel.abi import wire
from ukernel.abi.errors import CallError, Protocol
from ukernel.abi.interface import Lent
from ukernel.abi.services import Access, Registers
from ukernel.lib.connection import Connection, error_of
from ukernel.lib.memory import map_tag
from ukernel.lib.stub import SYSTEM_CALLS, bind, kernel, stub_class, together


class DmaRegion:
    """Memory that both the driver and the device see: `view` here, `iova` there."""

    def __init__(self, view: memoryview, iova: int) -> None:
        self.view = view
        self.iova = iova


class Window(NamedTuple):
    """A lent region as the device sees it."""

    iova: int
    size: int


WINDOWS = 256  # lent regions whose place a driver remembers


ARENA = 64 * 1024  # bytes of DMA memory asked for at once
ALIGN = 4096  # of a piece of it


class Device:
    """One device, as a life of its driver holds it."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name
        self.connection = connection
        self.token = connection.capability(name)
        self._registers = bind(Registers, connection, self.token)
        self._kernel = kernel(connection, self.token)
        lines = SYSTEM_CALLS["lines"].number  # asked for now, needed when the queues are there
        self._asked = connection.post(self.token, lines, wire.pack([]), system=True)
        self._lent: dict[tuple[bytes, bool], Window] = {}
        self._doubted: set[bytes] = set()
        self._arena: DmaRegion | None = None
        self._used = 0

    @cached_property
    def _lines(self) -> list[int]:
        (reply,) = self.connection.collect_all([self._asked])
        if reply.status:
            raise error_of(reply)
        return self.connection.descriptors(wire.unpack(reply.body))

    @property
    def doorbell(self) -> int:
        """The eventfd that tells the device to look at its queues."""
        return self._lines[0]

    @property
    def interrupt(self) -> int:
        """The eventfd that the device raises."""
        return self._lines[1]

    def load(self, offset: int) -> int:
        """A 32-bit register; sees every `store` before it."""
        return self._registers.load(offset)

    def store(self, offset: int, value: int) -> None:
        """Set a 32-bit register; posted, so this does not wait."""
        self._registers.store(offset, value)

    def burst(self, accesses: Sequence[Access]) -> list[int]:
        """Loads and stores in their order, in one message; the values of the loads."""
        return self._registers.burst(list(accesses))

    def config(self, offset: int, length: int) -> bytes:
        """Bytes of the configuration space."""
        return self._registers.config(offset, length)

    def ring_doorbell(self) -> None:
        """Tell the device to look at its queues."""
        os.eventfd_write(self.doorbell, 1)

    def dma(self, size: int) -> DmaRegion:
        """Fresh zeroed memory, mapped for the device; small pieces share a region."""
        if self._arena is None or self._used + size > len(self._arena.view):
            self._arena, self._used = self._new_arena(max(size, ARENA)), 0
        at, self._used = self._used, self._used + -(-size // ALIGN) * ALIGN
        return DmaRegion(self._arena.view[at : at + size], self._arena.iova + at)

    def _new_arena(self, size: int) -> DmaRegion:
        token = kernel(self.connection).region(f"{self.name}.dma", size, False)
        tag, iova = together(
            self.connection, (token, "map", ()), (self.token, "dma_map", (token, True))
        )
        return DmaRegion(map_tag(self.connection, tag, writable=True), iova)

    def address(self, lent: Lent, *, write: bool = False) -> int:
        """Where the device sees lent memory; mapped at the first use of the loan.

        Raises Protocol when the loan does not cover what it says, before the device finds out,
        and Denied when it is to be written and was lent for reading.
        """
        if lent.token in self._doubted:
            self._confirm(lent.token)
        window = self._lent.get((lent.token, write)) or self._map(lent.token, write)
        if lent.offset + lent.length > window.size:
            raise Protocol(f"lent {lent.length} bytes at {lent.offset} of {window.size}")
        return window.iova + lent.offset

    def doubt(self, token: bytes) -> None:
        """The device has failed with this loan: it may have been taken back. Ask before its next
        use; not now, when a driver answers others."""
        if (token, True) in self._lent or (token, False) in self._lent:
            self._doubted.add(token)

    def _confirm(self, token: bytes) -> None:
        """Raises what the kernel says of a loan that is no more, and forgets where it was."""
        self._doubted.discard(token)
        try:
            kernel(self.connection, token).describe()
        except CallError:
            self._forget(token)
            raise

    def _forget(self, token: bytes) -> None:
        self._doubted.discard(token)
        self._lent.pop((token, True), None)
        self._lent.pop((token, False), None)

    def _map(self, token: bytes, write: bool) -> Window:
        found, iova = together(
            self.connection, (token, "describe", ()), (self.token, "dma_map", (token, write))
        )
        if len(self._lent) >= WINDOWS:
            self._lent.pop(next(iter(self._lent)))  # mapped anew if it comes again
        window = self._lent[token, write] = Window(iova, found.size)
        return window


stub_class(Registers)  # made once, before a zygote forks, rather than in every driver
