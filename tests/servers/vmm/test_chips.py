"""The small devices of the board, each by itself."""

from __future__ import annotations

import struct

import pytest

from servers.vmm import elf, finisher
from servers.vmm.clint import MSIP, MTIME, MTIMECMP, Clint
from servers.vmm.elf import BadElf
from servers.vmm.plic import CLAIM, CONTEXT, ENABLE, PENDING, SOURCES, Plic
from servers.vmm.traps import Line
from servers.vmm.uart import IER, IIR_FCR, IIR_INPUT, IIR_NONE, IIR_ROOM, LCR, LSR, SCR, Uart
from tests.servers.vmm.board import GUESTS

# --- CLINT ------------------------------------------------------------------------------------


def test_the_timer() -> None:
    clint = Clint()
    assert clint.due(5) == (0, None)
    clint.store(MTIMECMP, 8, 100)
    assert clint.due(60) == (0, 40)
    assert clint.due(100) == (Line.MTI, None)
    clint.store(MTIMECMP + 4, 4, 1)
    assert clint.load(MTIMECMP, 8, 0) == (1 << 32) + 100
    assert clint.load(MTIMECMP + 4, 4, 0) == 1
    assert clint.due(100) == (0, 1 << 32)
    assert clint.load(MTIME, 8, 1 << 33) == 1 << 33
    assert clint.load(MTIME + 4, 4, 1 << 33) == 2


def test_the_software_interrupt() -> None:
    clint = Clint()
    clint.store(MSIP, 4, 3)
    assert clint.load(MSIP, 4, 0) == 1
    assert clint.due(0).lines == Line.MSI
    again = Clint()
    again.restore(clint.save())
    assert again.due(0).lines == Line.MSI


# --- PLIC -------------------------------------------------------------------------------------

CLAIM_M, CLAIM_S = CONTEXT + CLAIM, CONTEXT + 0x1000 + CLAIM


@pytest.fixture
def plic() -> Plic:
    found = Plic()
    for source, priority in ((1, 1), (2, 5), (10, 5), (40, 3)):
        found.store(4 * source, priority)
    found.store(ENABLE, 0xFFFF_FFFF)
    found.store(ENABLE + 4, 0xFFFF_FFFF)
    return found


def test_the_highest_priority_is_claimed_first(plic: Plic) -> None:
    for source in (1, 10, 2, 40):
        plic.set_level(source, True)
    assert plic.lines() == Line.MEI
    assert [plic.load(CLAIM_M) for _ in range(5)] == [2, 10, 40, 1, 0]
    assert plic.lines() == 0


def test_a_level_is_claimed_again_after_completion(plic: Plic) -> None:
    plic.set_level(2, True)
    assert plic.load(CLAIM_M) == 2
    plic.set_level(2, True)
    assert plic.load(CLAIM_M) == 0
    plic.store(CLAIM_M, 2)
    assert plic.lines() == Line.MEI
    assert plic.load(CLAIM_M) == 2
    plic.set_level(2, False)
    plic.store(CLAIM_M, 2)
    assert plic.lines() == 0


def test_threshold_enables_and_contexts(plic: Plic) -> None:
    plic.set_level(40, True)
    assert plic.load(PENDING + 4) == 1 << 8
    plic.store(CONTEXT, 3)
    assert plic.lines() == 0
    plic.store(ENABLE + 0x80 + 4, 1 << 8)
    assert plic.lines() == Line.SEI
    assert plic.load(CLAIM_S) == 40
    plic.store(CLAIM_S, 40)
    plic.store(4 * 40, 0)  # priority 0: never
    assert plic.lines() == 0


def test_a_plic_bears_everything(plic: Plic) -> None:
    for offset in range(0, 0x60_0000, 0x3FC):
        plic.store(offset & ~3, 0xFFFF_FFFF)
        plic.load(offset & ~3)
    for source in (0, SOURCES, 0xFFFF_FFFF):
        plic.store(CLAIM_M, source)
    assert not plic.enabled[0] & 1


def test_a_plic_comes_back(plic: Plic) -> None:
    plic.set_level(2, True)
    plic.set_level(10, True)
    plic.load(CLAIM_M)
    again = Plic()
    again.restore(plic.save())
    assert again.save() == plic.save()
    assert again.load(CLAIM_M) == 10


# --- UART -------------------------------------------------------------------------------------


def test_the_uart_shows_and_reads() -> None:
    shown = bytearray()
    uart = Uart(shown.extend)
    uart.store(0, ord("h"))
    assert (bytes(shown), uart.load(LSR)) == (b"h", 0x60)
    assert uart.feed(b"ab") == 2
    assert (uart.load(LSR), uart.load(0), uart.load(0), uart.load(LSR)) == (0x61, 97, 98, 0x60)
    uart.store(LCR, 0x80)
    uart.store(0, 7)  # the divisor is not shown
    assert (uart.load(0), bytes(shown)) == (7, b"h")
    uart.store(SCR, 0x5A)
    assert uart.load(SCR) == 0x5A
    again = Uart(shown.extend)
    again.restore(uart.save())
    assert again.load(0) == 7


def test_the_uart_interrupts() -> None:
    uart = Uart(lambda _: None)
    assert (uart.high(), uart.load(IIR_FCR)) == (False, IIR_NONE)
    uart.store(IER, 3)
    assert (uart.high(), uart.load(IIR_FCR), uart.high()) == (True, IIR_ROOM, False)
    uart.feed(b"x")
    assert (uart.high(), uart.load(IIR_FCR)) == (True, IIR_INPUT)
    uart.load(0)
    assert not uart.high()


# --- the finisher, and programs ---------------------------------------------------------------


def test_what_the_guest_wants_at_its_end() -> None:
    ends = [finisher.ended(value) for value in (0x5555, 0x7777, 0x3_3333, 0, 0x1234)]
    assert ends == ["pass", "reset", "fail 3", "", ""]


HELLO = (GUESTS / "hello.elf").read_bytes()


def test_a_program_is_loaded() -> None:
    memory = memoryview(bytearray(b"\xff" * (1 << 16)))
    assert elf.load(HELLO, memory, 0x8000_0000) == 0x8000_0000
    assert bytes(memory[8:12]) == b"UKCF"


def changed(at: int, form: str, value: int) -> bytes:
    data = bytearray(HELLO)
    struct.pack_into(form, data, at, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not an ELF"),
        (HELLO[:40], "not an ELF"),
        (changed(18, "<H", 62), "RISC-V"),
        (changed(16, "<H", 3), "static"),
        (changed(32, "<Q", 1 << 40), "headers"),
        (changed(24, "<Q", 0x1000), "begins"),
        (changed(64 + 8, "<Q", 1 << 40), "outside the file"),
        (changed(64 + 24, "<Q", 0x1000), "do not fit"),
        (changed(64 + 40, "<Q", 1 << 40), "do not fit"),
    ],
)
def test_what_is_no_program(data: bytes, why: str) -> None:
    with pytest.raises(BadElf, match=why):
        elf.load(data, memoryview(bytearray(1 << 16)), 0x8000_0000)
