"""store: what `net` must not forget, in memory that its next life gets back.

A record is kept twice, each copy with its generation. A change is written into the older copy and
counts from the one store that sets its generation, so who is killed at any instruction leaves the
record as it was or as it is to be. x86 keeps stores in order; what a dead process has stored is
there whatever the processor.

The bytes of streams lie in rings, of which the record says what is valid. So bytes are put where
nothing is valid, then the record is changed; what becomes free with one change is filled after it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from servers.net.ring import Ring

MAGIC = 0x754E_6574_0002  # also says which layout this is
HEAD = struct.Struct("<QQQQQ32s")  # magic, lives, connections, send bytes, receive bytes, secret
MAGIC_AT, LIVES_AT = 0, 1  # words, each stored at once
SECRET_BYTES = 32
PAGE = 4096
LENGTH = struct.Struct("<I")
GENERATION = 8  # bytes
SMALL, LARGE = 120, 632  # bytes of a copy of a record, its generation and length included
SOCKETS = 256  # listeners and UDP sockets
PASTS, PAST = 1024, 48  # records of TIME-WAIT, which say themselves whether they are whole
PASTS_AT = PAGE + SOCKETS * 2 * SMALL


class Geometry(NamedTuple):
    """How many connections there may be, and the bytes of the rings of each."""

    connections: int
    send: int
    receive: int

    @property
    def records(self) -> int:
        """Where the records of connections begin."""
        return PASTS_AT + PASTS * PAST

    @property
    def rings(self) -> int:
        """Where the rings begin."""
        return -(-(self.records + self.connections * 2 * LARGE) // PAGE) * PAGE

    @property
    def total(self) -> int:
        """Bytes of the whole region."""
        return self.rings + self.connections * (self.send + self.receive)


class Record:
    """Some bytes, whole at every moment; empty at first."""

    def __init__(self, memory: memoryview, start: int, copy: int) -> None:
        self._copies = [memory[start + n * copy : start + (n + 1) * copy] for n in range(2)]
        self._generations = [view[:GENERATION].cast("Q") for view in self._copies]
        first, second = (words[0] for words in self._generations)
        self._current = int(second > first)
        self._generation = max(first, second)

    def read(self) -> bytes:
        """What it holds."""
        view = self._copies[self._current]
        (length,) = LENGTH.unpack_from(view, GENERATION)
        start = GENERATION + LENGTH.size
        return bytes(view[start : start + length])

    def write(self, data: bytes) -> None:
        """Hold these bytes from now on."""
        other = 1 - self._current
        view = self._copies[other]
        LENGTH.pack_into(view, GENERATION, len(data))
        start = GENERATION + LENGTH.size
        view[start : start + len(data)] = data
        self._generation += 1
        self._generations[other][0] = self._generation
        self._current = other


class Slot:
    """The room of one connection: its record and its rings."""

    def __init__(self, record: Record, send: Ring, receive: Ring) -> None:
        self.record = record
        self.send = send
        self.receive = receive
        self.holder = 0  # the client that it is taken for


class Store:
    """The region, laid out. `secret` is that of its first life; `lives` counts them."""

    def __init__(self, memory: memoryview, geometry: Geometry, fresh_secret: bytes) -> None:
        self._memory = memory
        self.geometry = geometry
        words = memory[: HEAD.size - SECRET_BYTES].cast("Q")
        magic, _, *shape, _ = HEAD.unpack_from(memory)
        if (magic, tuple(shape)) != (MAGIC, geometry):
            self._begin(words, fresh_secret)
        words[LIVES_AT] += 1  # of all this, the only thing that the next life changes
        self.lives: int = words[LIVES_AT]
        self.secret: bytes = HEAD.unpack_from(memory)[-1]
        self.slots = [self._slot(number) for number in range(geometry.connections)]
        self.sockets = [
            Record(memory, PAGE + number * 2 * SMALL, SMALL) for number in range(SOCKETS)
        ]
        self._free = [slot for slot in reversed(self.slots) if not slot.record.read()]
        self._free_sockets = [record for record in reversed(self.sockets) if not record.read()]

    def _begin(self, words: memoryview, secret: bytes) -> None:
        """Nothing is here. It counts from the last store."""
        words[MAGIC_AT] = 0
        memory, rings = self._memory, self.geometry.rings
        memory[:rings] = bytes(rings)
        HEAD.pack_into(memory, 0, 0, 0, *self.geometry, secret)
        words[MAGIC_AT] = MAGIC

    def _slot(self, number: int) -> Slot:
        shape = self.geometry
        record = Record(self._memory, shape.records + number * 2 * LARGE, LARGE)
        at = shape.rings + number * (shape.send + shape.receive)
        middle, end = at + shape.send, at + shape.send + shape.receive
        send = Ring(self._memory[at:middle], at)
        return Slot(record, send, Ring(self._memory[middle:end], middle))

    def used(self) -> Iterator[Slot]:
        """The slots that hold something."""
        return (slot for slot in self.slots if slot.record.read())

    def used_sockets(self) -> Iterator[Record]:
        """The records of listeners and UDP sockets."""
        return (record for record in self.sockets if record.read())

    def take(self) -> Slot | None:
        """A free slot, if there is one; it counts as used once its record is written."""
        return self._free.pop() if self._free else None

    def give_back(self, slot: Slot) -> None:
        """Somebody else may have it; its record was written empty before."""
        self._free.append(slot)

    def write_past(self, number: int, record: bytes) -> None:
        """Remember this in TIME-WAIT, in the place of what had this number."""
        at = PASTS_AT + number * PAST
        self._memory[at : at + len(record)] = record

    def pasts(self, size: int) -> list[bytes]:
        """All that was ever in TIME-WAIT, `size` bytes each, and what was never written."""
        places = range(PASTS_AT, PASTS_AT + PASTS * PAST, PAST)
        return [bytes(self._memory[at : at + size]) for at in places]

    @property
    def free_sockets(self) -> int:
        """How many more listeners and UDP sockets there may be."""
        return len(self._free_sockets)

    def take_socket(self) -> Record | None:
        """A free record of a listener or UDP socket, if there is one."""
        return self._free_sockets.pop() if self._free_sockets else None

    def give_back_socket(self, record: Record) -> None:
        """It is closed."""
        record.write(b"")
        self._free_sockets.append(record)
