"""ring: messages in memory that two processes share, one writing and one reading. No I/O.

    sender.send(code, number, deadline_ns, body) -> how much of the body it had room for
    receiver.receive() -> (code, number, deadline_ns, body), or None

The writer owns `tail`, the reader `head`; both only grow, and count slots. A message longer than
there is room for goes in parts, and so does one that meets the end of the ring. The reader trusts
nothing: it takes a private copy, and looks at no byte twice. What makes no sense raises Garbage.

Only for processors that keep stores in order (x86): who sees the tail sees what lies before it.
"""

from __future__ import annotations

import platform
import struct
from typing import NamedTuple

from ukernel.abi.wire import MAX_BODY

ORDERED = platform.machine() in ("x86_64", "AMD64", "i686")

SLOT = 128  # bytes; two cache lines, so that small messages do not share one
SLOTS = 512  # a power of two
SHIFT, MASK = SLOT.bit_length() - 1, SLOTS - 1
HEAD = struct.Struct("<IHHQQ")  # bytes of this part, code, MORE or 0, number, deadline
HEAD_SIZE = HEAD.size
SMALL = SLOT - HEAD_SIZE  # bytes of a body that fit into one slot
HALF = SLOTS // 2
LONGEST_PART = HALF  # slots: the reader empties one half while the writer fills the other
MORE = 1
RING_BYTES = SLOT * SLOTS

# Words of the first page, a cache line apart: who writes one disturbs no reader of another.
LINE = 8
REQUEST_TAIL, REQUEST_HEAD, REPLY_TAIL, REPLY_HEAD = (n * LINE for n in range(4))
SERVER_SLEEPS, CLIENT_SLEEPS, SERVER_WANTS_ROOM, CLIENT_WANTS_ROOM = (n * LINE for n in range(4, 8))
PAGE = 4096
CHANNEL_BYTES = PAGE + 2 * RING_BYTES

SMALL_SLOT = struct.Struct(f"{HEAD.format}{SMALL}s")  # all of a slot, with what is small

_pack_head = HEAD.pack_into
_pack_slot, _unpack_slot = SMALL_SLOT.pack_into, SMALL_SLOT.unpack_from


class Garbage(Exception):
    """The other end has written what no ring of this kind holds."""


class Rings(NamedTuple):
    """The parts of a channel's memory."""

    words: memoryview  # of 64 bits
    requests: memoryview
    replies: memoryview


def rings(memory: memoryview) -> Rings:
    """Take the memory of a channel apart."""
    middle = PAGE + RING_BYTES
    return Rings(memory[:PAGE].cast("Q"), memory[PAGE:middle], memory[middle:CHANNEL_BYTES])


class Sender:
    """The writing end of a ring."""

    def __init__(self, words: memoryview, data: memoryview, tail_at: int, head_at: int) -> None:
        self._words = words
        self._data = data
        self._tail_at = tail_at
        self._head_at = head_at
        self.tail = 0
        self._head = 0  # as last seen

    def send(self, code: int, number: int, deadline_ns: int, body: bytes, start: int = 0) -> int:
        """Put in what there is room for of `body[start:]`, which is not empty; where it stopped.

        Raises Garbage when the reader says that it has read what was never written.
        """
        size, tail = len(body), self.tail
        if size <= SMALL and tail - self._head < HALF:  # one slot, and there is room: nearly always
            at = (tail & MASK) << SHIFT
            _pack_slot(self._data, at, size, code, 0, number, deadline_ns, body)
            self.tail = self._words[self._tail_at] = tail + 1
            return size
        return self._send_parts(code, number, deadline_ns, body, start)

    def _send_parts(self, code: int, number: int, deadline_ns: int, body: bytes, start: int) -> int:
        size = len(body)
        while start < size:
            tail = self.tail
            room = self._room()
            if not room:
                return start
            index = tail & MASK
            part = min(size - start, (min(room, SLOTS - index, LONGEST_PART) << SHIFT) - HEAD_SIZE)
            end = start + part
            at = index << SHIFT
            _pack_head(self._data, at, part, code, end < size, number, deadline_ns)
            at += HEAD_SIZE
            self._data[at : at + part] = body if part == size else body[start:end]
            # The tail is stored last: who sees it sees the message.
            self.tail = self._words[self._tail_at] = tail + (part + HEAD_SIZE + SLOT - 1 >> SHIFT)
            start = end
        return start

    def _room(self) -> int:
        """Free slots."""
        used = self.tail - self._head
        if used >= HALF:  # else there is enough: the reader's word need not be fetched
            head = self._words[self._head_at]
            if not self._head <= head <= self.tail:
                raise Garbage(f"it has read up to {head} of {self.tail}")
            self._head = head
            used = self.tail - head
        return SLOTS - used

    @property
    def read(self) -> int:
        """How far the reader has come."""
        head: int = self._words[self._head_at]
        return head

    def code_of(self, number: int, end: int | None) -> int:
        """The code of a message that may still be in the ring, by where that ends; 0 when it is
        not to be found. For people: the other end may have written over it."""
        end = self.tail if end is None else end
        for start in range(end - 1, max(-1, end - 1 - LONGEST_PART), -1):
            size, code, _, found, _ = HEAD.unpack_from(self._data, (start & MASK) << SHIFT)
            if found == number and start + (size + HEAD_SIZE + SLOT - 1 >> SHIFT) == end:
                return int(code)
        return 0

    @property
    def stuck(self) -> bool:
        """Whether the reader has come no further since there was no room."""
        return self.read == self._head


class Receiver:
    """The reading end of a ring. `head` is how far it has come."""

    def __init__(self, words: memoryview, data: memoryview, tail_at: int, head_at: int) -> None:
        self._words = words
        self._data = data
        self._tail_at = tail_at
        self._head_at = head_at
        self.head = 0
        self._parts: list[bytes] = []
        self._kept = 0

    @property
    def ready(self) -> bool:
        """Whether something has come."""
        there: bool = self._words[self._tail_at] != self.head
        return there

    def receive(self) -> tuple[int, int, int, bytes] | None:
        """The next whole message; None when there is none (yet): who adds parts without end keeps
        nobody here."""
        head, words = self.head, self._words
        there = words[self._tail_at] - head
        while there:
            index = head & MASK
            at = index << SHIFT
            size, code, more, number, deadline_ns, body = _unpack_slot(self._data, at)
            used = size + HEAD_SIZE + SLOT - 1 >> SHIFT
            if not 0 < used <= there <= SLOTS or index + used > SLOTS or not size:
                raise Garbage(f"{size} bytes in {there} slots, at slot {index} of {SLOTS}")
            if size > SMALL:
                at += HEAD_SIZE
                body = self._data[at : at + size].tobytes()
            elif size < SMALL:
                body = body[:size]
            self.head = head = words[self._head_at] = head + used
            there -= used
            if not more and not self._parts:
                return code, number, deadline_ns, body
            if whole := self._join(body, bool(more)):
                return code, number, deadline_ns, whole
        return None

    def _join(self, part: bytes, more: bool) -> bytes:
        """The whole body once its last part is here."""
        self._parts.append(part)
        self._kept += len(part)
        if self._kept > MAX_BODY:
            raise Garbage(f"a body of more than {MAX_BODY} bytes")
        if more:
            return b""
        whole = b"".join(self._parts)
        self._parts, self._kept = [], 0
        return whole
