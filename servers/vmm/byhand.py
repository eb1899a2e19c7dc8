"""byhand: the instructions that the emulator leaves to us. Pure, but for what the bus does.

These are the loads and stores of the bus, and `rdtime`. Each is done on the registers as they were
before it, in one go, or ends with an exception.
"""

from __future__ import annotations

from typing import NamedTuple

from servers.vmm import decode, paging, traps
from servers.vmm.engine import Bus
from servers.vmm.registers import Registers
from servers.vmm.traps import Cause, Hart

PAGE_MASK = 0xFFF


class Trapped(NamedTuple):
    """The exception that an instruction ends with."""

    cause: int
    pc: int


class ByHand:
    """`memory` is at `base`; below that is the bus."""

    def __init__(self, memory: memoryview, base: int, bus: Bus) -> None:
        self.memory = memory
        self.base = base
        self.bus = bus

    def fetch(self, registers: Registers, pc: int) -> int:
        """The instruction at `pc`, of 2 or 4 bytes; 0 when it cannot be had."""
        satp = registers.get("satp") if registers.get("priv") < traps.MACHINE else 0
        if not satp:
            found = self._number(pc, 4)
            return found & 0xFFFF if decode.length(found) == 2 else found
        found = 0
        for part in (0, 2):  # they may lie in two pages
            at = paging.physical(satp, pc + part, self._entry)
            found |= (0 if at is None else self._number(at, 2)) << 8 * part
            if decode.length(found) == 2:
                break
        return found

    def touch(self, registers: Registers, page: int) -> Trapped | None:
        """The load or store at the pc, which is about the physical `page` of the bus."""
        pc = registers.get("pc")
        code = self.fetch(registers, pc)
        access = decode.access(code)
        if access is None or not access.plain:  # atomic, floating, or a table of pages
            store = access is not None and access.store
            return Trapped(Cause.STORE_ACCESS if store else Cause.LOAD_ACCESS, pc)
        inside = registers.x(access.base) + access.offset & PAGE_MASK
        address, bits = page & ~PAGE_MASK | inside, 8 * access.size
        if access.store:
            value = registers.x(access.register) & (1 << bits) - 1
            self.bus.store(address, access.size, value)
        else:
            value = self.bus.load(address, access.size)
            if access.signed and value >> bits - 1:
                value -= 1 << bits
            registers.set_x(access.register, value)
        registers.set("pc", pc + decode.length(code))
        return None

    def read_time(self, registers: Registers, hart: Hart, code: int) -> bool:
        """Do `rdtime`, if `code` is that and it may; whether it is done."""
        target = decode.reads_time(code)
        if target is None or not _time_allowed(hart):
            return False
        registers.set_x(target, self.bus.time())
        registers.set("pc", hart.pc + 4)
        return True

    def _number(self, address: int, size: int) -> int:
        at = address - self.base
        return int.from_bytes(self.memory[at : at + size], "little") if at >= 0 else 0

    def _entry(self, address: int) -> int:
        return self._number(address, paging.ENTRY_BYTES)


def _time_allowed(hart: Hart) -> bool:
    """§3.1.11 of the privileged architecture."""
    allowed = traps.TIME_ALLOWED
    if hart.priv < traps.MACHINE:
        allowed &= hart.mcounteren
    if hart.priv < traps.SUPERVISOR:
        allowed &= hart.scounteren
    return bool(allowed)
