"""elf: a static RISC-V 64 program from its ELF file into a guest's memory. Pure."""

from __future__ import annotations

import struct

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM = struct.Struct("<IIQQQQQQ")
IDENT = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian
EXECUTABLE, RISCV, LOADED = 2, 243, 1


class BadElf(Exception):
    """Not a program that can be loaded; the text says why."""


def load(data: bytes, memory: memoryview, base: int) -> int:
    """Put the segments of `data` into `memory`, which the guest has at `base`; where it begins."""
    if len(data) < HEADER.size or not data.startswith(IDENT):
        raise BadElf("not an ELF file of 64 bits, little-endian")
    _, kind, machine, _, entry, table, _, _, _, each, count, *_ = HEADER.unpack_from(data)
    if kind != EXECUTABLE or machine != RISCV:
        raise BadElf("not a static program for RISC-V")
    if each != PROGRAM.size or table + each * count > len(data):
        raise BadElf("its program headers lie outside the file")
    for header in _headers(data):
        _segment(header, data, memory, base)
    if not base <= entry < base + len(memory):
        raise BadElf(f"it begins at {entry:#x}, where there is no memory")
    return int(entry)


def extent(data: bytes, base: int) -> int:
    """Bytes of memory from `base` to the end of what `load` puts there."""
    loaded = [(header[4], header[6]) for header in _headers(data) if header[0] == LOADED]
    return max((address + in_memory - base for address, in_memory in loaded), default=0)


def _headers(data: bytes) -> list[tuple[int, ...]]:
    table, each, count = HEADER.unpack_from(data)[5], *HEADER.unpack_from(data)[9:11]
    return [PROGRAM.unpack_from(data, table + each * number) for number in range(count)]


def _segment(header: tuple[int, ...], data: bytes, memory: memoryview, base: int) -> None:
    kind, _, offset, _, address, in_file, in_memory, _ = header
    if kind != LOADED or not in_memory:
        return
    if in_file > in_memory or offset + in_file > len(data):
        raise BadElf("a segment lies outside the file")
    at = address - base
    if at < 0 or at + in_memory > len(memory):
        raise BadElf(f"{in_memory} bytes at {address:#x} do not fit into the guest's memory")
    memory[at : at + in_file] = data[offset : offset + in_file]
    memory[at + in_file : at + in_memory] = bytes(in_memory - in_file)
