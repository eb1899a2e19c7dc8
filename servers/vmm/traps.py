"""traps: how a RISC-V hart enters a trap (privileged architecture 1.12 §3.1.6-3.1.16, §4.1). Pure.

Only machine and supervisor mode take traps; there is no hypervisor and no user-level interrupt.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

USER, SUPERVISOR, MACHINE = 0, 1, 3

# mstatus.
SIE, MIE, SPIE, MPIE, SPP = 1 << 1, 1 << 3, 1 << 5, 1 << 7, 1 << 8
MPP_SHIFT, MPP = 11, 3 << 11

INTERRUPT = 1 << 63  # of mcause and scause
VECTORED = 1  # of mtvec and stvec
TIME_ALLOWED = 1 << 1  # of mcounteren and scounteren


class Line(IntFlag):
    """Bits of mip and mie."""

    SSI = 1 << 1
    MSI = 1 << 3
    STI = 1 << 5
    MTI = 1 << 7
    SEI = 1 << 9
    MEI = 1 << 11


class Cause(IntEnum):
    """Synchronous exceptions (table 3.6)."""

    FETCH_MISALIGNED = 0
    FETCH_ACCESS = 1
    ILLEGAL = 2
    BREAKPOINT = 3
    LOAD_MISALIGNED = 4
    LOAD_ACCESS = 5
    STORE_MISALIGNED = 6
    STORE_ACCESS = 7
    ECALL = 8  # and the mode it came from
    FETCH_PAGE = 12
    LOAD_PAGE = 13
    STORE_PAGE = 15


PRIORITY = (11, 3, 7, 9, 1, 5)  # numbers of interrupts, the first wins (§3.1.9)


@dataclass(slots=True)
class Hart:
    """The registers that traps are about."""

    pc: int = 0
    priv: int = MACHINE
    mstatus: int = 0
    mie: int = 0
    mip: int = 0
    mideleg: int = 0
    medeleg: int = 0
    mtvec: int = 0
    stvec: int = 0
    mepc: int = 0
    sepc: int = 0
    mcause: int = 0
    scause: int = 0
    mtval: int = 0
    stval: int = 0
    satp: int = 0
    mcounteren: int = 0
    scounteren: int = 0


def wakes(hart: Hart) -> bool:
    """Whether WFI would not wait: an enabled interrupt is pending, taken or not (§3.3.3)."""
    return bool(hart.mip & hart.mie)


def interrupt(hart: Hart) -> int | None:
    """The number of the interrupt that is to be taken now."""
    pending = hart.mip & hart.mie
    if not pending:
        return None
    machine = hart.priv < MACHINE or bool(hart.mstatus & MIE)
    supervisor = hart.priv < SUPERVISOR or (hart.priv == SUPERVISOR and bool(hart.mstatus & SIE))
    taken = pending & ~hart.mideleg if machine else 0
    if not taken and supervisor:  # those of machine mode come first
        taken = pending & hart.mideleg
    return next((number for number in PRIORITY if taken >> number & 1), None)


def enter(hart: Hart, cause: int, value: int = 0, is_interrupt: bool = False) -> None:
    """Go to the handler: `value` is for mtval or stval."""
    delegated = (hart.mideleg if is_interrupt else hart.medeleg) >> cause & 1
    code = cause | INTERRUPT if is_interrupt else cause
    if delegated and hart.priv <= SUPERVISOR:
        hart.sepc, hart.scause, hart.stval = hart.pc, code, value
        hart.mstatus = _entered(hart.mstatus, SIE, SPIE) & ~SPP | (hart.priv and SPP)
        hart.priv, vector = SUPERVISOR, hart.stvec
    else:
        hart.mepc, hart.mcause, hart.mtval = hart.pc, code, value
        hart.mstatus = _entered(hart.mstatus, MIE, MPIE) & ~MPP | hart.priv << MPP_SHIFT
        hart.priv, vector = MACHINE, hart.mtvec
    hart.pc = vector & ~3
    if is_interrupt and vector & 3 == VECTORED:
        hart.pc += 4 * cause


def _entered(mstatus: int, enable: int, before: int) -> int:
    """Interrupts off, and whether they were on kept."""
    return mstatus & ~(enable | before) | (before if mstatus & enable else 0)
