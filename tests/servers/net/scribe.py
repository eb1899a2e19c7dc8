"""scribe: lives that write into a store as fast as they can, until they are killed.

    python -m tests.servers.net.scribe STORE REPORT    (descriptors of shared memory)

For each line on its input it begins a life, says its process id, and says another line once that
life is dead. A life writes into each slot in turn, and reports how far it has got there once that
has been written. A line `open` begins one that opens the store again and again instead, and ends.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from typing import NamedTuple

from servers.net.ring import Ring
from servers.net.store import LARGE, Geometry, Slot, Store

SHAPE = Geometry(3, 512, 256)
SECRET = bytes(range(32))
OPENED = 150  # times
WORDS = struct.Struct("<QQQ")  # serial, first valid position in the send ring, and the last
MOST = 600  # bytes of a record; less than LARGE
MARK = SHAPE.connections  # the word in which it is said that a life has opened the store
assert MOST < LARGE


class Entry(NamedTuple):
    """What a record holds: its number, and what is valid in the send ring."""

    serial: int
    start: int
    end: int

    def pack(self) -> bytes:
        """With as many bytes as its number says, all of which depend on it."""
        size = MOST - self.serial * 37 % (MOST - WORDS.size)
        return WORDS.pack(*self).ljust(size, bytes([self.serial % 251 + 1]))

    @classmethod
    def of(cls, data: bytes) -> Entry:
        return cls(*WORDS.unpack_from(data)) if data else cls(0, 0, 0)

    def next(self) -> Entry:
        """What was acknowledged is free, and some is queued; what is free with this one is filled
        with the one after it."""
        start = min(self.end, self.start + self.serial % 97)
        room = SHAPE.send - (self.end - self.start)
        return Entry(self.serial + 1, start, self.end + min(room, 1 + self.serial % 61))


def stream(at: int, length: int) -> bytes:
    """The bytes of the stream at these positions."""
    return bytes((p * 7 + p // 256) % 256 for p in range(at, at + length))


def step(slot: Slot) -> int:
    """One change of a connection; its number."""
    old = Entry.of(slot.record.read())
    new = old.next()
    slot.send.put(old.end, stream(old.end, new.end - old.end))
    slot.record.write(new.pack())
    return new.serial


def valid(ring: Ring, entry: Entry) -> bytes:
    """What the ring holds of the stream."""
    found = bytearray(entry.end - entry.start)
    ring.get(entry.start, len(found), memoryview(found))
    return bytes(found)


def _shared(fd: int, size: int) -> memoryview:
    return memoryview(mmap.mmap(fd, size))


def _live(how: str, memory: memoryview, report: memoryview) -> None:
    store = Store(memory, SHAPE, SECRET)
    for _ in range(OPENED if how == "open" else 0):
        store = Store(memory, SHAPE, SECRET)
    report[MARK] += 1
    while how != "open":
        for number, slot in enumerate(store.slots):
            report[number] = step(slot)


def main() -> None:
    memory = _shared(int(sys.argv[1]), SHAPE.total)
    report = _shared(int(sys.argv[2]), mmap.PAGESIZE).cast("Q")
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _live(line.strip(), memory, report)
            os._exit(0)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("dead", flush=True)


if __name__ == "__main__":
    main()
