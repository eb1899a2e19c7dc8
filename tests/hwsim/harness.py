"""harness: a driver and its device in one process, with no kernel between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from hwsim.cache import CachedDisk
from hwsim.image import Image
from hwsim.iommu import Iommu
from ukernel.abi import virtio
from ukernel.abi.services import SECTOR, Access
from ukernel.abi.virtio import BLK_HEADER, BlkStatus, BlkType
from ukernel.lib.virtio.blk import Blk
from ukernel.lib.virtio.transport import VirtioMmio
from ukernel.lib.virtqueue import Segment, Virtqueue, negotiate, start

PAGE = 4096


class Region(NamedTuple):
    view: memoryview
    iova: int


class Line:
    """An interrupt line that counts its edges."""

    def __init__(self) -> None:
        self.raised = 0

    def __call__(self) -> None:
        self.raised += 1


def iommu_of(device: VirtioMmio) -> Iommu:
    """The domain of a device of the simulated machine."""
    assert isinstance(device.domain, Iommu)
    return device.domain


class Wire:
    """`ukernel.lib.virtqueue.Device` by calling the hardware directly."""

    def __init__(self, hardware: VirtioMmio) -> None:
        self.hardware = hardware
        self.domain = iommu_of(hardware)
        self.load = hardware.load
        self.store = hardware.store
        self.config = hardware.config
        self.rings = 0
        self._next_iova = 0x10_0000

    def burst(self, accesses: Sequence[Access]) -> list[int]:
        loaded = []
        for offset, store, value in accesses:
            if store:
                self.store(offset, value)
            else:
                loaded.append(self.load(offset))
        return loaded

    def dma(self, size: int, writable: bool = True) -> Region:
        size = -(-size // PAGE) * PAGE
        region = Region(memoryview(bytearray(size)), self._next_iova)
        self.domain.map(region.iova, size, writable, region.view)
        self._next_iova += size + PAGE  # an unmapped page between any two
        return region

    def ring_doorbell(self) -> None:
        self.rings += 1
        self.hardware.doorbell()


class Request(NamedTuple):
    status: memoryview
    data: memoryview


class BlkDriver:
    """The shortest driver of a disk: slots of header, status and data in one region."""

    def __init__(self, blk: Blk, slots: int = 16, slot_bytes: int = 64 * 1024) -> None:
        self.wire = Wire(blk)
        self.features = negotiate(self.wire, (1 << 32) - 1)
        self.queue: Virtqueue[Request] = Virtqueue(self.wire, virtio.BLK_QUEUE, 64, self.features)
        start(self.wire)
        self.slot_bytes = slot_bytes
        self.heads = self.wire.dma(slots * 32)
        self.memory = self.wire.dma(slots * slot_bytes)

    def submit(
        self,
        kind: int,
        sector: int = 0,
        data: bytes | int = b"",
        slot: int = 0,
        cuts: Sequence[int] = (),
    ) -> Request:
        """`data` is what to write, or how many bytes to read; `cuts` part it into segments."""
        head = self.heads.iova + 32 * slot
        BLK_HEADER.pack_into(self.heads.view, 32 * slot, kind, 0, sector)
        self.heads.view[32 * slot + 16] = 0xEE
        size = data if isinstance(data, int) else len(data)
        at = slot * self.slot_bytes
        view = self.memory.view[at : at + size]
        if not isinstance(data, int):
            view[:] = data
        edges = [0, *sorted(c for c in set(cuts) if 0 < c < size), size]
        middle = [
            Segment(self.memory.iova + at + a, b - a, isinstance(data, int))
            for a, b in pairwise(edges)
            if b > a
        ]
        request = Request(self.heads.view[32 * slot + 16 : 32 * slot + 17], view)
        chain = [Segment(head, 16, False), *middle, Segment(head + 16, 1, True)]
        self.queue.submit(chain, request)
        return request

    def run(
        self, kind: int, sector: int = 0, data: bytes | int = b"", cuts: Sequence[int] = ()
    ) -> tuple[int, int, bytes]:
        """One request alone: its status, used.len, and data."""
        request = self.submit(kind, sector, data, cuts=cuts)
        self.queue.kick()
        [(done, written)] = self.queue.completed()
        assert done is request
        return done.status[0], written, bytes(done.data)

    def write(self, sector: int, data: bytes, cuts: Sequence[int] = ()) -> None:
        assert self.run(BlkType.OUT, sector, data, cuts) == (BlkStatus.OK, 1, data)

    def read(self, sector: int, count: int, cuts: Sequence[int] = ()) -> bytes:
        status, written, data = self.run(BlkType.IN, sector, count * SECTOR, cuts)
        assert (status, written) == (BlkStatus.OK, count * SECTOR + 1)
        return data

    def flush(self) -> None:
        assert self.run(BlkType.FLUSH)[:2] == (BlkStatus.OK, 1)


class Machine:
    """A disk that can be cut from power: `power_cut` forgets all but the image."""

    def __init__(
        self,
        path: Path,
        sectors: int = 64,
        cache: int = 0,
        seed: int | None = None,
        read_only: bool = False,
    ) -> None:
        self.line = Line()
        self.image = Image(path, sectors * SECTOR, read_only)
        self.domain = Iommu("disk0")
        self.domain.assign("disk")
        self.blk = Blk("disk0", self.domain, self.line, CachedDisk(self.image, cache, seed))

    def power_cut(self) -> None:
        self.image.close()


MachineMaker = Callable[..., Machine]
