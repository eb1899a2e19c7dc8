"""disk: the block driver (virtio 1.2 §5.2). A restart resets the device and takes the same path.

Several requests are in flight: a method puts its request into the ring, the device is told once
for all that came together, and the reply comes when the ring says so. Data goes between the device
and the lent memory; the driver never touches it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from ukernel.abi import virtio
from ukernel.abi.interface import Lent
from ukernel.abi.services import SECTOR, Block, DeviceFailed, OutOfRange, ReadOnly
from ukernel.abi.virtio import BlkConfig, BlkStatus, BlkType
from ukernel.lib import virtqueue
from ukernel.lib.driver import Driver
from ukernel.lib.virtqueue import Segment, Virtqueue
from ukernel.lib.way import Pending

T = TypeVar("T", int, None)

QUEUE = 256  # three descriptors of each request of the largest window, and some
SLOT = 64  # bytes of DMA memory for a request's header, discard range and status
DISCARD_AT, STATUS_AT = 16, 32
WANTED = virtio.F_EVENT_IDX | virtio.BLK_F_FLUSH | virtio.BLK_F_RO | virtio.BLK_F_DISCARD


class Request(NamedTuple):
    """What the driver remembers of a request that the device has."""

    slot: int
    kind: BlkType
    first: int
    loan: Lent | None
    pending: Pending[Any]
    result: Any


class Disk(Driver, Block):
    def setup(self) -> None:
        self.dev = self.device()
        self.features = virtqueue.negotiate(self.dev, WANTED)
        config = self.dev.config(0, virtio.BLK_CONFIG_BYTES)
        self.sectors = BlkConfig.unpack(config).capacity
        self.queue: Virtqueue[Request] = Virtqueue(self.dev, virtio.BLK_QUEUE, QUEUE, self.features)
        self.control = self.dev.dma(SLOT * self.queue.size)
        self.slots = list(range(self.queue.size))
        self.frames = [self._frame(slot) for slot in self.slots]
        self.bring_up(self.dev, self.queue)

    def _frame(self, slot: int) -> tuple[Segment, Segment]:
        """Where the header and the status of a request are."""
        base = self.control.iova + slot * SLOT
        header = Segment(base, virtio.BLK_HEADER.size, False)
        return header, Segment(base + STATUS_AT, 1, True)

    def capacity(self) -> int:
        return self.sectors

    def read(self, first: int, into: Lent) -> int:
        self._check(first, into.length)
        data = Segment(self.dev.address(into, write=True), into.length, True)
        return self._submit(BlkType.IN, first, data, into.length, into).later

    def write(self, first: int, data: Lent) -> int:
        self._check(first, data.length)
        if self.features & virtio.BLK_F_RO:
            raise ReadOnly("this disk cannot be written")
        segment = Segment(self.dev.address(data), data.length, False)
        return self._submit(BlkType.OUT, first, segment, data.length, data).later

    def flush(self) -> None:
        return self._submit(BlkType.FLUSH, 0, None, None).later

    def discard(self, first: int, count: int) -> None:
        self._check(first, count * SECTOR)
        if not self.features & virtio.BLK_F_DISCARD:
            return None  # a hint that this device does not take
        slot = self.slots[-1] * SLOT
        virtio.BLK_DISCARD_SEGMENT.pack_into(self.control.view, slot + DISCARD_AT, first, count, 0)
        size = virtio.BLK_DISCARD_SEGMENT.size
        what = Segment(self.control.iova + slot + DISCARD_AT, size, False)
        return self._submit(BlkType.DISCARD, 0, what, None).later

    def _check(self, first: int, length: int) -> None:
        if length % SECTOR or length == 0:
            raise OutOfRange(f"{length} bytes are not a number of sectors of {SECTOR}")
        if first + length // SECTOR > self.sectors:
            raise OutOfRange(f"sector {first} and {length} bytes: the disk has {self.sectors}")

    def _submit(
        self, kind: BlkType, first: int, data: Segment | None, result: T, loan: Lent | None = None
    ) -> Pending[T]:
        """Header, data, status (§5.2.6); `take` answers it."""
        slot = self.slots.pop()
        virtio.BLK_HEADER.pack_into(self.control.view, slot * SLOT, kind, 0, first)
        header, status = self.frames[slot]
        pending: Pending[T] = self.pending()
        chain = (header, status) if data is None else (header, data, status)
        self.queue.submit(chain, Request(slot, kind, first, loan, pending, result))
        self.look_soon()
        return pending

    def take(self) -> int:
        """Answer all that is done."""
        done = 0
        for request, _ in self.queue.completed():
            done += 1
            status = self.control.view[request.slot * SLOT + STATUS_AT]
            self.slots.append(request.slot)
            if status == BlkStatus.OK:
                request.pending.answer(request.result)
            else:
                self._failed(request, status)
        return done

    def _failed(self, request: Request, status: int) -> None:
        """The medium failed, or the client's memory: it may have been taken back meanwhile."""
        if request.loan is not None:
            self.dev.doubt(request.loan.token)
        what = f"{request.kind.name} at sector {request.first}"
        request.pending.fail(DeviceFailed(f"{what}: status {status}"))


if __name__ == "__main__":
    Disk.run()
