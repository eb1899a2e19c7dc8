"""snapshots: two copies of a machine by turns, in memory that the next life gets back.

    HEAD      magic, generation, when (ns), bytes of memory, bytes and CRC of the state
    state     at PAGE: processor, board and devices
    memory    at MEMORY, and behind it so much room that an image fits into the region

One that is written has generation 0, and counts from the last store, of its generation; the other
is whole meanwhile. So who is killed at any instruction leaves one that can be used. x86 keeps
stores in order; what a dead process has stored is there whatever the processor.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from servers.vmm.image import overhead

MAGIC = 0x754B_564D_0001  # also says which layout this is
HEAD = struct.Struct("<QQQQQQ")
GENERATION = 1  # a word
PAGE = 4096
STATE_ROOM = 1 << 20
MEMORY = PAGE + STATE_ROOM
STEP = 1 << 20  # bytes that are copied at once


class TooLarge(Exception):
    """There is no room for so much state."""


class Snapshot(NamedTuple):
    """One that is whole."""

    generation: int
    taken_ns: int  # CLOCK_MONOTONIC
    state: bytes
    memory: memoryview


def room(memory: int) -> int:
    """Bytes of a region for snapshots of a machine with so much memory."""
    return MEMORY + memory + overhead(memory)


class Snapshots:
    """In two regions of `room(size)` bytes."""

    def __init__(self, regions: Sequence[memoryview], size: int) -> None:
        self._regions = regions
        self._words = [region[: HEAD.size].cast("Q") for region in regions]
        self._size = size

    def write(self, state: bytes, memory: memoryview, now_ns: int) -> Snapshot:
        """Keep this; the newest one is kept besides. Raises TooLarge."""
        if len(state) > STATE_ROOM:
            raise TooLarge(f"a state of {len(state)} bytes, at most {STATE_ROOM}")
        generations = [words[GENERATION] for words in self._words]
        number, latest = generations.index(min(generations)), max(generations)
        region, words = self._regions[number], self._words[number]
        words[GENERATION] = 0
        for at in range(0, self._size, STEP):  # other threads have their turn between two
            end = min(at + STEP, self._size)
            region[MEMORY + at : MEMORY + end] = memory[at:end]
        region[PAGE : PAGE + len(state)] = state
        HEAD.pack_into(region, 0, MAGIC, 0, now_ns, len(memory), len(state), crc32(state))
        words[GENERATION] = latest + 1
        return Snapshot(latest + 1, now_ns, state, region[MEMORY : MEMORY + self._size])

    def found(self) -> list[Snapshot]:
        """Those that can be used, the newest first."""
        found = [self._read(region) for region in self._regions]
        return sorted((each for each in found if each is not None), reverse=True, key=_generation)

    def _read(self, region: memoryview) -> Snapshot | None:
        magic, generation, taken_ns, memory, length, crc = HEAD.unpack_from(region)
        if magic != MAGIC or not generation or memory != self._size or length > STATE_ROOM:
            return None
        state = bytes(region[PAGE : PAGE + length])
        if crc32(state) != crc:
            return None
        return Snapshot(generation, taken_ns, state, region[MEMORY : MEMORY + self._size])

    def clear(self) -> None:
        """Keep none."""
        for words in self._words:
            words[GENERATION] = 0

    @property
    def spare(self) -> memoryview:
        """Room for something else, while there are none."""
        return self._regions[0][PAGE:]


def _generation(snapshot: Snapshot) -> int:
    return snapshot.generation
