"""clint: the timer and the software interrupt of one hart, as SiFive's. Pure: time comes in.

mtime counts ten million a second, as on QEMU's `virt`; it cannot be set.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from servers.vmm.traps import Line

MSIP, MTIMECMP, MTIME = 0x0, 0x4000, 0xBFF8
NS_PER_TICK = 100
NEVER = (1 << 64) - 1
LOW = 0xFFFF_FFFF

_STATE = struct.Struct("<QB")


class Due(NamedTuple):
    """The lines that are high now, and the ticks until that changes by itself."""

    lines: int
    ticks: int | None


class Clint:
    """The registers. A device reset and a power-on are the same."""

    def __init__(self) -> None:
        self.compare = NEVER
        self.software = False

    def load(self, offset: int, size: int, now: int) -> int:
        """`size` is 4 or 8; elsewhere than at a register there are zeros."""
        for at, value in ((MSIP, int(self.software)), (MTIMECMP, self.compare), (MTIME, now)):
            if at <= offset < at + 8:
                return value >> 8 * (offset - at) & (1 << 8 * size) - 1
        return 0

    def store(self, offset: int, size: int, value: int) -> None:
        if offset == MSIP:
            self.software = bool(value & 1)
        elif offset == MTIMECMP and size == 8:
            self.compare = value
        elif offset == MTIMECMP:
            self.compare = self.compare & ~LOW | value & LOW
        elif offset == MTIMECMP + 4:
            self.compare = self.compare & LOW | (value & LOW) << 32

    def due(self, now: int) -> Due:
        lines = Line.MSI * self.software | Line.MTI * (now >= self.compare)
        waits = now < self.compare < NEVER
        return Due(int(lines), self.compare - now if waits else None)

    def save(self) -> bytes:
        return _STATE.pack(self.compare, self.software)

    def restore(self, state: bytes) -> None:
        """Raises struct.error for anything but what `save` gave."""
        self.compare, software = _STATE.unpack(state)
        self.software = bool(software)
