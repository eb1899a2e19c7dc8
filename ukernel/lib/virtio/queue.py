"""queue: the device side of a split virtqueue (virtio 1.2 §2.7). It believes nothing in the ring.

The driver owns the memory and may rewrite it at any moment. So every field is read exactly once
and then checked, every address goes through the domain, and whatever breaks a rule raises
QueueFault (or DmaFault), upon which the transport stops the device until it is reset.

Who tells whom when, and why no wake-up is lost: ukernel.lib.virtqueue, whose other side this is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ukernel.abi import virtio
from ukernel.abi.virtio import (
    AVAIL_RING,
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    DESCRIPTOR,
    INDEX_MASK,
    RING_FLAGS,
    RING_IDX,
    USED_RING,
    passes,
)
from ukernel.lib.bell import fence
from ukernel.lib.virtio.dma import DmaFault, Domain

MAX_CHAIN_BYTES = 4 << 20  # in one request
BATCH_BYTES = 4 << 20  # in one batch, after which other devices get their turn


# What stands for a buffer that the device may not touch. Never touched either, so it costs nothing.
NOWHERE = memoryview(bytearray(MAX_CHAIN_BYTES))

Views = list[memoryview]


class QueueFault(Exception):
    """The driver broke a rule of the ring; the text says which."""


class Chain(NamedTuple):
    """One request: the buffers that the device reads, then those that it writes.

    With `refused`, which a queue gives only to a device that asked for it, some are `missing`.
    """

    head: int
    readable: Views
    writable: Views
    length: int
    refused: DmaFault | None = None


class QueueAddresses(NamedTuple):
    """What the driver wrote into the queue's registers."""

    size: int
    desc: int
    avail: int
    used: int


class Position(NamedTuple):
    """How far a queue has got, as the indices of the rings count."""

    seen: int  # chains taken
    used: int  # chains given back
    interrupt_at: int  # `used` when the driver was last interrupted


class DeviceQueue:
    """A live queue. Indices of the device's own stay here, never in the driver's memory."""

    def __init__(
        self, domain: Domain, where: QueueAddresses, event_idx: bool = False, lenient: bool = False
    ) -> None:
        """Raises QueueFault when a part of the queue is misaligned, DmaFault when not mapped.

        `lenient`: a chain with a buffer that is not mapped is a chain, which says so.
        """
        self.domain = domain
        self.where = where
        self.size = where.size
        self._event_idx = event_idx
        self._lenient = lenient
        self._used_event = virtio.used_event_at(self.size)
        self._avail_event = virtio.avail_event_at(self.size)
        self._seen = 0  # chains taken, as avail.idx counts them
        self._used = 0  # chains given back, as used.idx counts them
        self._interrupt_at = 0  # `_used` when the driver was last interrupted
        self._attach()

    def pending(self) -> int:
        """How many chains the driver has made available and nobody has taken."""
        if self.generation != self.domain.generation:
            self._attach()
        waiting = (self._avail[RING_IDX] - self._seen) & INDEX_MASK
        if waiting > self.size:
            raise QueueFault(f"avail.idx claims {waiting} chains in a queue of {self.size}")
        return waiting

    def batch(self) -> Iterator[Chain]:
        """What is available or becomes so meanwhile: at most the queue's size, some MiB in all."""
        budget = BATCH_BYTES
        for _ in range(self.size):
            if budget <= 0 or not self.pending():
                return
            chain = self.take()
            yield chain
            budget -= chain.length

    def listen(self) -> bool:
        """Ring for the next chain; False if there is one already: take it first."""
        if self.pending():
            return False
        if self._event_idx:
            self._used_ring[self._avail_event] = self._seen
            fence()  # between publishing that and looking at avail.idx
        return not self.pending()

    def take(self) -> Chain:
        """The next chain; only when `pending`."""
        head = self._avail[AVAIL_RING + self._seen % self.size]
        self._seen = (self._seen + 1) & INDEX_MASK
        return self._walk(head)

    def put_back(self) -> None:
        """The chain that was taken last is not needed yet: the next `take` looks at it anew."""
        self._seen = (self._seen - 1) & INDEX_MASK

    def again(self, head: int) -> Chain:
        """A chain that was taken before and not given back, as it is now."""
        if self.generation != self.domain.generation:
            self._attach()
        return self._walk(head)

    @property
    def position(self) -> Position:
        """Where to `go_on` from, with the same memory and another device."""
        return Position(self._seen, self._used, self._interrupt_at)

    def go_on(self, position: Position) -> None:
        """Be where another device of the same driver was. What it had taken is taken."""
        self._seen, self._used, self._interrupt_at = position

    def give(self, chain: Chain, written: int) -> None:
        """Return a chain; `written` bytes of its writable part, from its start, are valid (§2.7.8).

        The element is stored before the index that publishes it. x86 keeps stores in order, and a
        cast view stores 16 bits at once, so the driver never sees a torn or early index.
        """
        at = USED_RING + 2 * (self._used % self.size)
        self._used_elements[at] = chain.head
        self._used_elements[at + 1] = written
        self._used = (self._used + 1) & INDEX_MASK
        self._used_ring[RING_IDX] = self._used

    def wants_interrupt(self) -> bool:
        """Whether chains were given back since the last call, and the driver cares (§2.7.7)."""
        old, self._interrupt_at = self._interrupt_at, self._used
        if old == self._used:
            return False
        fence()  # between publishing used.idx and looking at what the driver wants
        if self._event_idx:
            return passes(self._avail[self._used_event], old, self._used)
        return not self._avail[RING_FLAGS] & virtio.AVAIL_F_NO_INTERRUPT

    def _attach(self) -> None:
        """Look the three parts up; again after an unmapping, since the old views bypass it."""
        where, size = self.where, self.where.size
        self._desc = self._part(where.desc, virtio.desc_bytes(size), virtio.DESC_ALIGN, False)
        avail = self._part(where.avail, virtio.avail_bytes(size), virtio.AVAIL_ALIGN, False)
        used = self._part(where.used, virtio.used_bytes(size), virtio.USED_ALIGN, True)
        self._avail = avail.cast("H")
        self._used_ring = used.cast("H")
        self._used_elements = used[: 4 + 8 * size].cast("I")
        self.generation = self.domain.generation

    def _part(self, iova: int, length: int, align: int, write: bool) -> memoryview:
        if iova % align:
            raise QueueFault(f"queue part at {iova:#x} is not aligned to {align}")
        return self.domain.view(iova, length, write)

    def _walk(self, head: int) -> Chain:
        """Follow a chain. It ends: no chain is longer than the queue (§2.7.5.1)."""
        readable: Views = []
        writable: Views = []
        refused: DmaFault | None = None
        index, total, view, size = head, 0, self.domain.view, self.size
        for _ in range(size):
            if index >= size:
                raise QueueFault(f"descriptor {index} in a queue of {size}")
            iova, length, flags, following = _unpack(self._desc, index * DESCRIPTOR.size)
            total += length
            if flags & DESC_F_INDIRECT or not length or total > MAX_CHAIN_BYTES:
                raise _bad_descriptor(index, length, flags, total)
            into = writable if flags & DESC_F_WRITE else readable
            if writable and into is readable:
                raise QueueFault(f"descriptor {index} is readable after a writable one (§2.7.4.2)")
            try:
                into.append(view(iova, length, into is writable))
            except DmaFault as fault:
                if not self._lenient:
                    raise
                refused = refused or fault.again()
                into.append(NOWHERE[:length])
            if not flags & DESC_F_NEXT:
                return Chain(head, readable, writable, total, refused)
            index = following
        raise QueueFault(f"the chain at {head} loops or is longer than the queue")


_unpack = DESCRIPTOR.unpack_from


def _bad_descriptor(index: int, length: int, flags: int, total: int) -> QueueFault:
    if flags & DESC_F_INDIRECT:
        return QueueFault(f"descriptor {index} is indirect, which was not offered")
    if not length:
        return QueueFault(f"descriptor {index} has no length")
    return QueueFault(
        f"descriptor {index} brings its chain to {total} bytes, at most {MAX_CHAIN_BYTES}"
    )


def missing(views: Views) -> bool:
    """Whether one of these, or what it was cut from, is a buffer that the device may not touch."""
    return any(view.obj is NOWHERE.obj for view in views)


def split(views: Views, at: int) -> tuple[Views, Views]:
    """`views` as if cut after `at` bytes: a driver may frame a request as it likes (§2.7.4)."""
    before: Views = []
    for number, view in enumerate(views):
        if at < len(view):
            if at > 0:
                return [*before, view[:at]], [view[at:], *views[number + 1 :]]
            return before, views[number:]
        before.append(view)
        at -= len(view)
    return before, []


def scatter(data: bytes | memoryview, into: Views) -> int:
    """Fill `into` from its start with `data`; how many bytes fitted."""
    done = 0
    for view in into:
        part = data[done : done + len(view)]
        view[: len(part)] = part
        done += len(part)
    return done
