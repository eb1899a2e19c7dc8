"""blk: virtio-blk (virtio 1.2 §5.2) over an image file behind a volatile write cache.

Data moves between the image and the driver's memory without a copy of ours. Whatever the medium
or the request has wrong is the request's status: also data outside the device's domain, which is
mostly memory that a client has lent to the driver and taken back. Only a request without header or
status byte is a fault, since it leaves no room for an answer. A device reset keeps the cache: it is
not a power cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ukernel.abi import virtio
from ukernel.abi.services import SECTOR
from ukernel.abi.virtio import (
    BLK_DISCARD_SEGMENT,
    BLK_HEADER,
    BLK_ID_BYTES,
    BlkConfig,
    BlkStatus,
    BlkType,
    DeviceId,
)
from ukernel.lib.virtio.dma import Domain
from ukernel.lib.virtio.queue import Chain, QueueFault, Views, missing, scatter, split
from ukernel.lib.virtio.transport import VirtioMmio

QUEUE_SIZE = 256
SEG_MAX = QUEUE_SIZE - 2  # header and status have descriptors of their own
MAX_DISCARD_SEGMENTS = 16


class Storage(Protocol):
    """Where sectors are kept. Offsets in bytes, inside `size`; OSError when it fails."""

    size: int
    read_only: bool

    def read(self, offset: int, into: Sequence[memoryview]) -> None: ...
    def write(self, offset: int, data: Sequence[memoryview]) -> None: ...
    def flush(self) -> None: ...
    def discard(self, offset: int, length: int) -> None: ...


class Refused(Exception):
    """This request ends with a status other than OK."""

    def __init__(self, status: BlkStatus) -> None:
        super().__init__(status.name)
        self.status = status


class Blk(VirtioMmio):
    """A disk. Its serial (GET_ID) is its name."""

    device_id = DeviceId.BLOCK
    queue_sizes = (QUEUE_SIZE,)
    has_status = True

    def __init__(
        self, name: str, domain: Domain, interrupt: Callable[[], None], disk: Storage
    ) -> None:
        super().__init__(name, domain, interrupt)
        self.disk = disk
        self.serial = name.encode()[:BLK_ID_BYTES].ljust(BLK_ID_BYTES, b"\0")
        self.features |= virtio.BLK_F_SEG_MAX | virtio.BLK_F_BLK_SIZE | virtio.BLK_F_FLUSH
        self.features |= virtio.BLK_F_RO if disk.read_only else virtio.BLK_F_DISCARD
        self.config_space = BlkConfig(
            capacity=disk.size // SECTOR,
            seg_max=SEG_MAX,
            block_bytes=SECTOR,
            max_discard_sectors=min(disk.size // SECTOR, (1 << 32) - 1),
            max_discard_seg=MAX_DISCARD_SEGMENTS,
            discard_alignment=1,
        ).pack()

    def handle(self, index: int, chain: Chain) -> int:
        """One request (§5.2.6): header, data, status byte, however they are cut into buffers."""
        header, out, into, status = parts(chain)
        outcome: int = BlkStatus.IOERR
        written = 0
        if not chain.refused:
            kind, _, sector = BLK_HEADER.unpack(b"".join(header))
            outcome, written = self._outcome(kind, sector * SECTOR, out, into)
        elif missing(header + status):
            raise chain.refused.again()
        status[0][0] = outcome
        # §2.7.8.2: used.len covers what was written without a gap, so the status byte counts only
        # behind complete data.
        return written + 1 if written == sum(map(len, into)) else written

    def _outcome(self, kind: int, offset: int, out: Views, into: Views) -> tuple[int, int]:
        """Status of the request, and the bytes of `into` that were filled."""
        try:
            return BlkStatus.OK, _HANDLERS.get(kind, Blk._unsupported)(self, offset, out, into)
        except Refused as refusal:
            return refusal.status, 0
        except OSError:
            return BlkStatus.IOERR, 0

    def _in(self, offset: int, _: Views, into: Views) -> int:
        length = self._checked(offset, sum(map(len, into)))
        self.disk.read(offset, into)
        return length

    def _out(self, offset: int, out: Views, _: Views) -> int:
        self._writable()
        self._checked(offset, sum(map(len, out)))
        self.disk.write(offset, out)
        if not self.accepted & virtio.BLK_F_FLUSH:
            self.disk.flush()  # §5.2.6.2: a driver that cannot flush may rely on writes at once
        return 0

    def _flush(self, _: int, __: Views, ___: Views) -> int:
        self.disk.flush()
        return 0

    def _get_id(self, _: int, __: Views, into: Views) -> int:
        target, _rest = split(into, BLK_ID_BYTES)
        return scatter(self.serial, target)

    def _discard(self, _: int, out: Views, __: Views) -> int:
        """Check every segment before the first is discarded."""
        self._writable()
        data = b"".join(out)
        count, odd = divmod(len(data), BLK_DISCARD_SEGMENT.size)
        if odd or not 0 < count <= MAX_DISCARD_SEGMENTS:
            raise Refused(BlkStatus.IOERR)
        segments = list(BLK_DISCARD_SEGMENT.iter_unpack(data))
        for sector, sectors, flags in segments:
            if flags:  # §5.2.6.2: "unmap" belongs to write zeroes, the others are reserved
                raise Refused(BlkStatus.UNSUPP)
            self._checked(sector * SECTOR, sectors * SECTOR)
        for sector, sectors, _flags in segments:
            self.disk.discard(sector * SECTOR, sectors * SECTOR)
        return 0

    def _unsupported(self, _: int, __: Views, ___: Views) -> int:
        raise Refused(BlkStatus.UNSUPP)

    def _writable(self) -> None:
        if self.disk.read_only:
            raise Refused(BlkStatus.IOERR)

    def _checked(self, offset: int, length: int) -> int:
        if length == 0 or length % SECTOR or offset + length > self.disk.size:
            raise Refused(BlkStatus.IOERR)
        return length


def parts(chain: Chain) -> tuple[Views, Views, Views, Views]:
    """Header, data to be read, room for data, status byte."""
    readable, writable = chain.readable, chain.writable
    if readable and writable and len(readable[0]) == BLK_HEADER.size and len(writable[-1]) == 1:
        return readable[:1], readable[1:], writable[:-1], writable[-1:]  # as most drivers cut it
    header, out = split(readable, BLK_HEADER.size)
    into, status = split(writable, sum(map(len, writable)) - 1)
    if not status or sum(map(len, header)) < BLK_HEADER.size:
        raise QueueFault("a block request without a header or a status byte")
    return header, out, into, status


_HANDLERS: dict[int, Callable[[Blk, int, Views, Views], int]] = {
    BlkType.IN: Blk._in,
    BlkType.OUT: Blk._out,
    BlkType.FLUSH: Blk._flush,
    BlkType.GET_ID: Blk._get_id,
    BlkType.DISCARD: Blk._discard,
}
