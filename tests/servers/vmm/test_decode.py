"""What traps and registers of devices need to know of instructions."""

from __future__ import annotations

import pytest

from servers.vmm import atomics
from servers.vmm.decode import Access, access, length, reads_time

LOADS_AND_STORES = {  # as GNU as writes them
    0x00C52583: Access(10, 12, 4, False, 11, signed=True),  # lw a1, 12(a0)
    0xFF853583: Access(10, -8, 8, False, 11, signed=True),  # ld a1, -8(a0)
    0x00154583: Access(10, 1, 1, False, 11),  # lbu a1, 1(a0)
    0x00051583: Access(10, 0, 2, False, 11, signed=True),  # lh a1, 0(a0)
    0x00056583: Access(10, 0, 4, False, 11),  # lwu a1, 0(a0)
    0xFEB50FA3: Access(10, -1, 1, True, 11),  # sb a1, -1(a0)
    0x00B53823: Access(10, 16, 8, True, 11),  # sd a1, 16(a0)
    0x00053507: Access(10, 0, 8, False, 10, plain=False, signed=True),  # fld fa0, 0(a0)
    0x00A53427: Access(10, 8, 8, True, 10, plain=False),  # fsd fa0, 8(a0)
    0x00B5262F: Access(10, 0, 4, True, 12, plain=False),  # amoadd.w a2, a1, (a0)
    0x100525AF: Access(10, 0, 4, False, 11, plain=False),  # lr.w a1, (a0)
    0x414C: Access(10, 4, 4, False, 11, signed=True),  # c.lw a1, 4(a0)
    0x5D6C: Access(10, 124, 4, False, 11, signed=True),  # c.lw a1, 124(a0)
    0x650C: Access(10, 8, 8, False, 11, signed=True),  # c.ld a1, 8(a0)
    0xC14C: Access(10, 4, 4, True, 11),  # c.sw a1, 4(a0)
    0xE50C: Access(10, 8, 8, True, 11),  # c.sd a1, 8(a0)
    0x50FE: Access(2, 252, 4, False, 1, signed=True),  # c.lwsp ra, 252(sp)
    0x60A2: Access(2, 8, 8, False, 1, signed=True),  # c.ldsp ra, 8(sp)
    0xDF86: Access(2, 252, 4, True, 1),  # c.swsp ra, 252(sp)
    0xE406: Access(2, 8, 8, True, 1),  # c.sdsp ra, 8(sp)
}


@pytest.mark.parametrize("code", LOADS_AND_STORES, ids=hex)
def test_loads_and_stores(code: int) -> None:
    assert access(code) == LOADS_AND_STORES[code]


@pytest.mark.parametrize("code", [0, 0x13, 0x10500073, 0x30200073, 0x8082, 0x0001, 0xFFFFFFFF])
def test_what_is_neither(code: int) -> None:
    assert access(code) is None


def test_lengths() -> None:
    assert [length(code) for code in (0x13, 0x8082, 0, 0xFFFFFFFF)] == [4, 2, 2, 4]


def test_rdtime() -> None:
    assert reads_time(0xC0102573) == 10
    assert reads_time(0xC0102073) == 0
    assert reads_time(0xC0002573) is None  # rdcycle
    assert reads_time(0xC0151573) is None  # csrrw a0, time, a0


AMO_D = (0x00B5352F).to_bytes(4, "little")  # amoadd.d a0, a1, (a0)
NOP = bytes.fromhex("13000000")


def test_atomic_instructions_are_found() -> None:
    assert atomics.found(memoryview(NOP * 8 + AMO_D + bytes(8192)))
    assert atomics.found(memoryview(bytes.fromhex("0100") + AMO_D + bytes(8192)))
    far = bytearray(1 << 20)
    far[0x90000:0x90004] = AMO_D
    assert atomics.found(memoryview(far))


def test_other_bytes_are_not_taken_for_them() -> None:
    assert not atomics.found(memoryview(bytearray(1 << 16)))
    inside = NOP[:2] + AMO_D + NOP[2:]  # the second half of one, the first of another
    assert not atomics.found(memoryview(NOP + inside + bytes(4096)))
    reserved = (0x00B5352F | 9 << 27).to_bytes(4, "little")
    assert not atomics.found(memoryview(reserved + bytes(4096)))
