"""virtqueue: the driver side of virtio 1.2: bringing a device up (§3.1), and its queues (§2.7).

    features = negotiate(device, BLK_F_FLUSH | F_EVENT_IDX)
    queue: Virtqueue[Request] = Virtqueue(device, index=0, size=64, features=features)
    start(device)
    queue.submit([Segment(iova, length, device_writes=True)], request)
    queue.kick()
    for request, written in queue.completed(): ...

The ring is the truth, the interrupt a hint. A driver does not trust its device either: what the
device writes is checked against what the driver remembers, never read back as a pointer.

No wake-up is lost. Each side publishes its index, and then looks whether the other wants to be told
of it; before it sleeps, each side publishes that it wants to be told, and then looks at the other's
index once more. Between the store and the look there is a fence, so of the two stores one comes
first, and the other side's look, which is after its own store, sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from ukernel.abi import virtio
from ukernel.abi.services import Access
from ukernel.abi.virtio import (
    AVAIL_F_NO_INTERRUPT,
    AVAIL_RING,
    DESC_F_NEXT,
    DESC_F_WRITE,
    DESCRIPTOR,
    INDEX_MASK,
    RING_FLAGS,
    RING_IDX,
    USED_RING,
    Reg,
    Status,
    passes,
)
from ukernel.lib.bell import fence


class DmaRegion(Protocol):
    """Memory that both the driver and its device reach; page-aligned."""

    @property
    def view(self) -> memoryview:
        """Its bytes, here."""

    @property
    def iova(self) -> int:
        """Its address, there."""


DRIVER = Status.ACKNOWLEDGE | Status.DRIVER  # what a driver that is getting ready shows


class Device(Protocol):
    """What a driver needs of its device."""

    def load(self, offset: int) -> int:
        """The 32-bit register at `offset`."""

    def burst(self, accesses: Sequence[Access]) -> list[int]:
        """Loads and stores in their order, in one message; the values of the loads."""

    def store(self, offset: int, value: int) -> None:
        """Set the 32-bit register at `offset`."""

    def config(self, offset: int, length: int) -> bytes:
        """Bytes of the device's configuration space."""

    def dma(self, size: int) -> DmaRegion:
        """Zeroed memory of at least `size` bytes."""

    def ring_doorbell(self) -> None:
        """Tell the device to look at its queues."""


class DeviceError(Exception):
    """The device is not what the driver drives, or breaks the rules; the text says how."""


class QueueFull(Exception):
    """The chain needs more descriptors than are free: take completions, then submit again."""


class Segment(NamedTuple):
    """One buffer of a request. Those that the device writes come last (§2.7.4.2)."""

    iova: int
    length: int
    device_writes: bool


def _load(reg: Reg) -> Access:
    return Access(reg, False, 0)


def _store(reg: Reg, value: int) -> Access:
    return Access(reg, True, value)


def negotiate(device: Device, wanted: int) -> int:
    """Reset the device and agree on what it offers of `wanted`; the features agreed (§3.1.1).

    VERSION_1 is always among them. Leaves the device at FEATURES_OK: set up the queues, then
    `start`. Raises DeviceError when this is no virtio 1.x device or it refuses.
    """
    agreed = _offered(device) & (wanted | virtio.F_VERSION_1)
    if not agreed & virtio.F_VERSION_1:
        raise _give_up(device, "the device does not offer VERSION_1")
    if not _accept(device, agreed) & Status.FEATURES_OK:
        raise _give_up(device, f"the device refuses the features {agreed:#x}")
    return agreed


def start(device: Device) -> None:
    """Let the device work on its queues (§3.1.1, step 8)."""
    up = DRIVER | Status.FEATURES_OK | Status.DRIVER_OK
    _check_status(*device.burst([_store(Reg.STATUS, up), _load(Reg.STATUS)]))


def check(device: Device) -> None:
    """Raises DeviceError unless the device is up. For an interrupt that brought no completion."""
    _check_status(device.load(Reg.STATUS))


def _check_status(status: int) -> None:
    if status & Status.NEEDS_RESET:
        raise DeviceError("the device reports an error and must be reset")
    if not status & Status.DRIVER_OK:
        raise DeviceError(f"the device is not running: status {status:#x}")


def _offered(device: Device) -> int:
    """Reset, say that there is a driver, and read what the device can do (steps 1 to 4)."""
    magic, version, status, low, high = device.burst(
        [
            _load(Reg.MAGIC),
            _load(Reg.VERSION),
            _store(Reg.STATUS, 0),
            _load(Reg.STATUS),
            _store(Reg.STATUS, Status.ACKNOWLEDGE),
            _store(Reg.STATUS, DRIVER),
            _store(Reg.DEVICE_FEATURES_SEL, 0),
            _load(Reg.DEVICE_FEATURES),
            _store(Reg.DEVICE_FEATURES_SEL, 1),
            _load(Reg.DEVICE_FEATURES),
        ]
    )
    if magic != virtio.MAGIC:
        raise DeviceError(f"no virtio device: magic {magic:#x}")
    if version != virtio.VERSION:
        raise DeviceError(f"virtio-mmio version {version}, this driver speaks {virtio.VERSION}")
    if status:
        raise DeviceError(f"the device does not reset: status {status:#x}")
    return low | high << 32


def _accept(device: Device, features: int) -> int:
    """Tell the device which features there will be; its status then (steps 5 and 6)."""
    (status,) = device.burst(
        [
            _store(Reg.DRIVER_FEATURES_SEL, 0),
            _store(Reg.DRIVER_FEATURES, features & 0xFFFF_FFFF),
            _store(Reg.DRIVER_FEATURES_SEL, 1),
            _store(Reg.DRIVER_FEATURES, features >> 32),
            _store(Reg.STATUS, DRIVER | Status.FEATURES_OK),
            _load(Reg.STATUS),
        ]
    )
    return status


def _give_up(device: Device, why: str) -> DeviceError:
    device.store(Reg.STATUS, DRIVER | Status.FAILED)
    return DeviceError(why)


Cookie = TypeVar("Cookie")
FAR = 1 << 15  # further than a queue is long: no index gets there before the next `listen`


class _Pending(NamedTuple, Generic[Cookie]):
    """A chain in the device's hands."""

    cookie: Cookie
    descriptors: list[int]
    room: int  # bytes that the device may write
    submitted: int  # ticks before it was


class Virtqueue(Generic[Cookie]):
    """One queue of a device, between `negotiate` and `start`. Chains complete in any order."""

    def __init__(self, device: Device, index: int, size: int, features: int = 0) -> None:
        """Raises DeviceError when the device has no such queue; a smaller one is made smaller.

        `features` is what `negotiate` has agreed.
        """
        self.device = device
        self.index = index
        self.size = _size_of(device, index, size)
        layout = virtio.queue_layout(self.size)
        self._region = device.dma(layout.total)
        view = self._region.view
        self._desc = view[: layout.avail]
        # Cast views store and load 16 and 32 bits at once: no index is ever seen half written.
        avail_end = layout.avail + virtio.avail_bytes(self.size)
        self._avail = view[layout.avail : avail_end].cast("H")
        used_end = layout.used + virtio.used_bytes(self.size)
        self._used_idx = view[layout.used : used_end].cast("H")
        self._used = view[layout.used : layout.used + 4 + 8 * self.size].cast("I")
        self._event_idx = bool(features & virtio.F_EVENT_IDX)
        self._used_event = virtio.used_event_at(self.size)
        self._avail_event = virtio.avail_event_at(self.size)
        self._free = list(range(self.size))
        self._pending: list[_Pending[Cookie] | None] = [None] * self.size
        self._added = 0  # as avail.idx
        self._kicked = 0  # `_added` when the device was last thought of
        self._seen = 0  # as used.idx
        self._quiet = False  # awake, and looks at the ring by itself
        self._ticks = 0
        self._hand_over(layout)

    @property
    def in_flight(self) -> int:
        """Chains submitted and not yet completed."""
        return (self._added - self._seen) & INDEX_MASK

    @property
    def room(self) -> int:
        """Segments that can still be submitted."""
        return len(self._free)

    def submit(self, chain: Sequence[Segment], cookie: Cookie) -> None:
        """Make a request available; `completed` gives the cookie back. Raises QueueFull.

        The device may start at once, but is told only by `kick`.
        """
        count = len(chain)
        if not 0 < count <= self.size:
            raise ValueError(f"a chain of {count} segments in a queue of {self.size}")
        if count > len(self._free):
            raise QueueFull(f"{count} descriptors wanted, {len(self._free)} free")
        taken = self._free[-count:]
        del self._free[-count:]
        room = self._describe(chain, taken)
        self._pending[taken[0]] = _Pending(cookie, taken, room, self._ticks)
        self._avail[AVAIL_RING + self._added % self.size] = taken[0]
        # The index is stored last: x86 keeps stores in order, so who sees it sees the chain.
        self._added = (self._added + 1) & INDEX_MASK
        self._avail[RING_IDX] = self._added

    def kick(self) -> None:
        """Ring the doorbell, once for all that was submitted, unless the device looks anyway."""
        old, self._kicked = self._kicked, self._added
        if old == self._added:
            return
        if self._event_idx:
            fence()  # between publishing avail.idx and looking at avail_event
            if not passes(self._used_idx[self._avail_event], old, self._added):
                return
        self.device.ring_doorbell()

    def quiet(self) -> None:
        """No interrupt is needed: the driver is awake and ends with `listen`, before it sleeps."""
        if not self._quiet:
            self._quiet = True
            self._want((self._seen + FAR) & INDEX_MASK, AVAIL_F_NO_INTERRUPT)

    def listen(self) -> bool:
        """Interrupt for the next completion; False if there is one already: take it first."""
        self._quiet = False
        self._want(self._seen, 0)
        fence()  # between publishing that and looking at used.idx
        return self._used_idx[RING_IDX] == self._seen

    def _want(self, event: int, flags: int) -> None:
        if self._event_idx:
            self._avail[self._used_event] = event
        else:
            self._avail[RING_FLAGS] = flags

    def tick(self) -> int:
        """Time has gone on; how many ticks the oldest chain in flight has seen, 0 without one.

        Whoever ticks decides how long one is: a driver that did not run has not waited either.
        """
        self._ticks += 1
        return max((self._ticks - p.submitted for p in self._pending if p is not None), default=0)

    def completed(self) -> Iterator[tuple[Cookie, int]]:
        """Cookie and bytes written of each finished chain, until the device's index is reached.

        Then the device interrupts for the next one, unless the driver is `quiet`. May be left
        early and called again. Raises DeviceError when the device wrote nonsense.
        """
        while True:
            while self._seen != (idx := self._used_idx[RING_IDX]):
                if (idx - self._seen) & INDEX_MASK > self.in_flight:
                    raise DeviceError(f"used.idx {idx} with {self.in_flight} chains in flight")
                yield self._reclaim()
            if self._quiet or self.listen():
                return

    def _reclaim(self) -> tuple[Cookie, int]:
        at = USED_RING + 2 * (self._seen % self.size)
        head, written = self._used[at], self._used[at + 1]
        done = self._pending[head] if head < self.size else None
        if done is None:
            raise DeviceError(f"the device completed chain {head}, which it does not have")
        if written > done.room:
            raise DeviceError(f"the device wrote {written} bytes into a chain with {done.room}")
        self._pending[head] = None
        self._free += done.descriptors
        self._seen = (self._seen + 1) & INDEX_MASK
        return done.cookie, written

    def _describe(self, chain: Sequence[Segment], taken: list[int]) -> int:
        """Fill descriptors; how many bytes the device may write."""
        room = 0
        pack, desc, last = DESCRIPTOR.pack_into, self._desc, len(chain) - 1
        for number, (iova, length, device_writes) in enumerate(chain):
            flags = DESC_F_NEXT if number < last else 0
            following = taken[number + 1] if number < last else 0
            if device_writes:
                flags |= DESC_F_WRITE
                room += length
            pack(desc, DESCRIPTOR.size * taken[number], iova, length, flags, following)
        return room

    def _hand_over(self, layout: virtio.QueueLayout) -> None:
        """Tell the device where the queue is (§4.2.3.2)."""
        iova, accesses = self._region.iova, [_store(Reg.QUEUE_NUM, self.size)]
        for low, address in (
            (Reg.QUEUE_DESC_LOW, iova),
            (Reg.QUEUE_DRIVER_LOW, iova + layout.avail),
            (Reg.QUEUE_DEVICE_LOW, iova + layout.used),
        ):
            accesses.append(_store(low, address & 0xFFFF_FFFF))
            accesses.append(_store(Reg(low + 4), address >> 32))
        accesses += [_store(Reg.QUEUE_READY, 1), _load(Reg.QUEUE_READY)]
        if self.device.burst(accesses) != [1]:
            raise DeviceError(f"the device refuses queue {self.index} of {self.size}")


def _size_of(device: Device, index: int, wanted: int) -> int:
    """Select the queue; its size, at most `wanted` (§4.2.3.2, steps 1 to 3)."""
    if not virtio.valid_queue_size(wanted):
        raise ValueError(f"{wanted} is no queue size: a power of two up to {virtio.MAX_QUEUE_SIZE}")
    in_use, largest = device.burst(
        [_store(Reg.QUEUE_SEL, index), _load(Reg.QUEUE_READY), _load(Reg.QUEUE_NUM_MAX)]
    )
    if in_use:
        raise DeviceError(f"queue {index} is in use already")
    if not largest:
        raise DeviceError(f"the device has no queue {index}")
    return min(wanted, 1 << (largest.bit_length() - 1))
