"""stores: where the log of a journal is kept: nowhere, in a region that the next life gets back.

A region: one word says which half holds the log, 0: none yet. Killed between any two instructions,
it holds the log before or after. Zeros follow the log, apart from what was being written.

    0        8       middle  end
    1 or 2   half 1  half 2
"""

from __future__ import annotations

from servers.kv.log import ALIGN
from ukernel.abi.services import NoSpace

SELECTOR_SIZE = 8  # bytes, so that both halves are aligned
WORD = 4  # bytes; the commit word of a record is its length, which comes first in it


class NoStore:
    """Keeps nothing: what the next life has is an empty table."""

    def load(self) -> bytes:
        return b""

    def cut(self, size: int) -> None:
        pass

    def append(self, at: int, record: bytes) -> None:
        pass

    def replace(self, log: bytes) -> None:
        pass


class RegionStore:
    """Keeps a log in shared memory of `region_size` bytes, which outlives the process."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._words = memory.cast("I")
        self._half_size = (len(memory) - SELECTOR_SIZE) // 2 // ALIGN * ALIGN

    def load(self) -> bytes:
        used = self._words[0]
        return bytes(self._half(used)) if used else b""

    def cut(self, size: int) -> None:
        rest = bytes(self._half(self._words[0])[size:])
        if rest.strip(b"\0"):
            self._store(self._at(self._words[0], size), bytes(len(rest)))

    def append(self, at: int, record: bytes) -> None:
        if at + len(record) > self._half_size:
            raise NoSpace(f"{at + len(record)} bytes of journal, {self._half_size} of memory")
        start = self._at(self._words[0], at)
        self._store(start + WORD, record[WORD:])
        self._publish(start, int.from_bytes(record[:WORD], "little"))

    def replace(self, log: bytes) -> None:
        if len(log) > self._half_size:
            raise NoSpace(f"{len(log)} bytes of journal, {self._half_size} of memory")
        other = 2 if self._words[0] == 1 else 1
        self._store(self._at(other, 0), log.ljust(self._half_size, b"\0"))
        self._publish(0, other)

    def _half(self, number: int) -> memoryview:
        start = self._at(number, 0)
        return self._memory[start : start + self._half_size]

    def _at(self, half: int, offset: int) -> int:
        return SELECTOR_SIZE + (half - 1) * self._half_size + offset

    # Only these change the memory, so that a test can die in the middle of them.

    def _store(self, at: int, data: bytes) -> None:
        self._memory[at : at + len(data)] = data

    def _publish(self, at: int, word: int) -> None:
        """One store instruction: it happens or not."""
        self._words[at // WORD] = word


def region_size(log_size: int) -> int:
    """Bytes of memory for logs of up to `log_size`."""
    return SELECTOR_SIZE + 2 * (-(-log_size // ALIGN) * ALIGN)
