"""registers: those of a hart, where the emulator keeps them: 64-bit words in a piece of memory."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from servers.vmm.traps import MACHINE, SUPERVISOR, USER, Hart

WORD = struct.Struct("<Q")
MOST = (1 << 64) - 1
MODES = (USER, SUPERVISOR, MACHINE)
SCHEMES = (0, 8, 9, 10)  # none, Sv39, Sv48, Sv57


class Registers:
    """`words` has the named ones at the offsets of `fields`, x1 and those after it from `x1` on."""

    def __init__(self, words: memoryview, fields: Mapping[str, int]) -> None:
        self.words = words
        self._fields = fields
        self._first = fields["x1"] - WORD.size

    def get(self, name: str) -> int:
        return int(WORD.unpack_from(self.words, self._fields[name])[0])

    def set(self, name: str, value: int) -> None:
        WORD.pack_into(self.words, self._fields[name], value & MOST)

    def x(self, number: int) -> int:
        """An integer register, unsigned."""
        if not number:
            return 0
        return int(WORD.unpack_from(self.words, self._first + WORD.size * number)[0])

    def set_x(self, number: int, value: int) -> None:
        """Negative values get their two's complement."""
        if number:
            WORD.pack_into(self.words, self._first + WORD.size * number, value & MOST)

    def plausible(self) -> bool:
        """Whether the emulator can go on from them: there are such a mode and such paging."""
        return self.get("priv") in MODES and self.get("satp") >> 60 in SCHEMES

    def hart(self) -> Hart:
        """What traps are about."""
        return Hart(*map(self.get, Hart.__slots__))

    def put(self, hart: Hart) -> None:
        for name in Hart.__slots__:
            self.set(name, getattr(hart, name))
