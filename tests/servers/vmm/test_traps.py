"""How a hart enters a trap."""

from __future__ import annotations

from dataclasses import replace

import pytest

from servers.vmm import traps
from servers.vmm.paging import physical
from servers.vmm.traps import INTERRUPT, MACHINE, MIE, MPIE, SIE, SPIE, SPP, Cause, Hart, Line
from servers.vmm.traps import SUPERVISOR as S
from servers.vmm.traps import USER as U

EVERY = Line.MSI | Line.MTI | Line.MEI | Line.SSI | Line.STI | Line.SEI


def hart(**fields: int) -> Hart:
    return replace(Hart(pc=0x8000_1000, mtvec=0x8000_0100, stvec=0x8000_0200), **fields)


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        ({"mstatus": MIE}, 11),
        ({"mstatus": MIE, "mip": Line.MSI | Line.MTI}, 3),
        ({"mstatus": MIE, "mip": Line.STI}, 5),
        ({"mstatus": MIE, "mip": Line.STI, "mideleg": Line.STI}, None),  # not for this mode
        ({"mstatus": 0}, None),
        ({"mstatus": MIE, "mie": 0}, None),
        ({"priv": S}, 11),  # lower modes cannot switch those of higher ones off
        ({"priv": U, "mip": Line.MTI}, 7),
        ({"priv": S, "mip": Line.STI, "mideleg": Line.STI}, None),
        ({"priv": S, "mip": Line.STI, "mideleg": Line.STI, "mstatus": SIE}, 5),
        ({"priv": U, "mip": Line.STI | Line.SEI, "mideleg": Line.STI | Line.SEI}, 9),
        ({"priv": S, "mip": Line.STI | Line.MTI, "mideleg": Line.STI, "mstatus": SIE}, 7),
    ],
)
def test_which_interrupt_is_taken(fields: dict[str, int], number: int | None) -> None:
    assert traps.interrupt(hart(**{"mip": EVERY, "mie": EVERY, **fields})) == number


def test_an_interrupt_of_machine_mode() -> None:
    at = hart(mstatus=MIE, priv=U)
    traps.enter(at, 7, is_interrupt=True)
    assert (at.pc, at.priv, at.mepc) == (0x8000_0100, MACHINE, 0x8000_1000)
    assert at.mcause == INTERRUPT | 7
    assert at.mstatus == MPIE | U << traps.MPP_SHIFT


def test_an_interrupt_that_is_delegated() -> None:
    at = hart(mstatus=SIE, priv=S, mideleg=Line.STI)
    traps.enter(at, 5, is_interrupt=True)
    assert (at.pc, at.priv, at.sepc) == (0x8000_0200, S, 0x8000_1000)
    assert at.scause == INTERRUPT | 5
    assert at.mstatus == SPIE | SPP


def test_vectors_are_for_interrupts() -> None:
    at = hart(mtvec=0x8000_0101)
    traps.enter(at, 7, is_interrupt=True)
    assert at.pc == 0x8000_0100 + 4 * 7
    at = hart(mtvec=0x8000_0101)
    traps.enter(at, Cause.ILLEGAL, 0x1234)
    assert (at.pc, at.mtval) == (0x8000_0100, 0x1234)


def test_an_exception_of_machine_mode_stays_there() -> None:
    at = hart(medeleg=1 << Cause.ILLEGAL)
    traps.enter(at, Cause.ILLEGAL)
    assert (at.priv, at.mcause) == (MACHINE, Cause.ILLEGAL)
    at = hart(medeleg=1 << Cause.ILLEGAL, priv=U)
    traps.enter(at, Cause.ILLEGAL, 5)
    assert (at.priv, at.scause, at.stval, at.mstatus) == (S, Cause.ILLEGAL, 5, 0)


def test_where_a_virtual_address_leads() -> None:
    tables = {
        0x1000 + 8 * 2: 2 << 10 | 1,  # the next table is page 2
        0x1000 + 8 * 3: 1 << 28 | 0b1111,  # a gigabyte at 0x4000_0000
        0x2000: 3 << 10 | 1,
        0x3000 + 8: 0x99 << 10 | 0b0011,
    }
    satp = 8 << 60 | 1
    entry = lambda at: tables.get(at, 0)  # noqa: E731
    assert physical(satp, (2 << 30) + 0x1234, entry) == 0x99_234
    assert physical(satp, (3 << 30) + 0x1234_5678, entry) == 0x4000_0000 + 0x1234_5678
    assert physical(satp, (2 << 30) + 0x2000, entry) is None
    assert physical(satp, 0, entry) is None
    assert physical(0, 0x1234, entry) == 0x1234
