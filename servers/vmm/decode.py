"""decode: the few things that traps and registers of devices need to know of an instruction.

Of RV64GC, what loads and stores. Pure.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

CSR_TIME = 0xC01

LOAD, LOAD_FP, STORE, STORE_FP, AMO, SYSTEM = 0x03, 0x07, 0x23, 0x27, 0x2F, 0x73
LOAD_RESERVED = 0b00010  # funct5 of an AMO
CSRRS, CSRRC = 2, 3
SP = 2


class Access(NamedTuple):
    """A load or store: `base` + `offset` is its address."""

    base: int  # number of a register
    offset: int
    size: int  # bytes
    store: bool  # an atomic operation counts as one
    register: int  # what is loaded or stored
    plain: bool = True  # between memory and an integer register, in one go
    signed: bool = False


def length(instruction: int) -> int:
    """Bytes of it: 2 or 4."""
    return 4 if instruction & 3 == 3 else 2


@lru_cache(1024)
def access(instruction: int) -> Access | None:
    """What a load or store does; None of any other instruction."""
    return _short(instruction) if length(instruction) == 2 else _long(instruction)


def reads_time(instruction: int) -> int | None:
    """The register that `rdtime` puts the time into; None if it is something else."""
    only_reads = instruction >> 12 & 7 in (CSRRS, CSRRC) and not instruction >> 15 & 31
    if instruction & 0x7F == SYSTEM and only_reads and instruction >> 20 == CSR_TIME:
        return instruction >> 7 & 31
    return None


def _long(word: int) -> Access | None:
    operation, width = word & 0x7F, word >> 12 & 7
    base, size = word >> 15 & 31, 1 << (width & 3)
    near, far = word >> 7 & 31, word >> 20 & 31
    if operation in (LOAD, LOAD_FP):
        signed = width < 4
        return Access(base, _signed(word >> 20), size, False, near, operation == LOAD, signed)
    if operation in (STORE, STORE_FP):
        offset = _signed(word >> 25 << 5 | near)
        return Access(base, offset, size, True, far, operation == STORE)
    if operation == AMO:
        return Access(base, 0, size, word >> 27 != LOAD_RESERVED, near, plain=False)
    return None


def _short(half: int) -> Access | None:
    """Quadrants 0 and 2 of the compressed ones: words (2, 6) and double words (1, 3, 5, 7), of
    which 1 and 5 are floating."""
    quadrant, kind = half & 3, half >> 13 & 7
    if quadrant not in (0, 2) or kind in (0, 4):
        return None
    store, word, plain = kind > 4, kind & 3 == 2, kind & 3 != 1
    size = 4 if word else 8
    if quadrant == 0:
        base, register = 8 + (half >> 7 & 7), 8 + (half >> 2 & 7)
        return Access(base, _near(half, word), size, store, register, plain, not store)
    register = half >> 2 & 31 if store else half >> 7 & 31
    return Access(SP, _on_stack(half, word, store), size, store, register, plain, not store)


def _near(half: int, word: bool) -> int:
    offset = (half >> 10 & 7) << 3
    if word:
        return offset | (half >> 6 & 1) << 2 | (half >> 5 & 1) << 6
    return offset | (half >> 5 & 3) << 6


def _on_stack(half: int, word: bool, store: bool) -> int:
    bits = half >> 7 & 63 if store else (half >> 12 & 1) << 5 | half >> 2 & 31
    return bits & 0x3C | (bits & 3) << 6 if word else bits & 0x38 | (bits & 7) << 6


def _signed(immediate: int) -> int:
    """Of 12 bits."""
    return immediate - 0x1000 if immediate & 0x800 else immediate
