"""blk: virtio-blk (virtio 1.2 §5.2) for a guest, over a disk that is another server's.

The guest's memory is lent with each call, so data goes between it and the real device without
passing here. Many requests are in flight, and end in any order. A death of the server below is a
delay: what it has cut short is asked for again, since reading, writing and flushing may be done
twice. Whatever is refused is the request's status.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from servers.vmm.device import SlowDevice, Ticket
from servers.vmm.guest_memory import GuestMemory, Lendable, Span
from servers.vmm.pieces import cut
from ukernel.abi import virtio
from ukernel.abi.services import SECTOR, Block
from ukernel.abi.virtio import BLK_HEADER, BLK_ID_BYTES, BlkConfig, BlkStatus, BlkType, DeviceId
from ukernel.lib.upstream import Failure, Loop, Upstream
from ukernel.lib.virtio.blk import QUEUE_SIZE, SEG_MAX, parts
from ukernel.lib.virtio.queue import Views, missing, scatter, split

CALLS = 16  # under way at most: not the whole window of the server below
SLOTS = CALLS  # sectors that go by memory of the monitor


@dataclass(eq=False)
class Request:
    """One request that takes its time."""

    ticket: Ticket
    kind: int
    first: int  # sector
    length: int  # bytes of data
    status: memoryview
    left: int = 0  # calls without an outcome
    failed: bool = False
    flushed: bool = True  # or it still has to be


class Call(NamedTuple):
    """A part of a request that is one call: a move of sectors, or a flush, which moves nothing."""

    request: Request
    first: int  # sector
    spans: tuple[Span, ...]  # of the guest's memory: one, or several that hold one sector


class VmBlk(SlowDevice):
    """A disk of `sectors`. Its serial (GET_ID) is its name.

    `block_by_kernel` is the same as `block`, without a channel.
    """

    device_id = DeviceId.BLOCK
    queue_sizes = (QUEUE_SIZE,)

    def __init__(
        self,
        name: str,
        memory: GuestMemory,
        interrupt: Callable[[], None],
        loop: Loop,
        block: Block,
        block_by_kernel: Block,
        sectors: int,
        read_only: bool = False,
    ) -> None:
        self.upstream = Upstream(loop, block_by_kernel.capacity, self._pump, was=sectors)
        self._block = block
        self._sectors = sectors
        self._read_only = read_only
        self._waiting: deque[Call] = deque()
        self._bounce = loop.region(f"{name}.bounce", SLOTS * SECTOR)
        self._slots = list(range(SLOTS))
        super().__init__(name, memory, interrupt)
        self.serial = name.encode()[:BLK_ID_BYTES].ljust(BLK_ID_BYTES, b"\0")
        self.features |= virtio.BLK_F_SEG_MAX | virtio.BLK_F_BLK_SIZE | virtio.BLK_F_FLUSH
        self.features |= virtio.BLK_F_RO if read_only else 0
        self.config_space = BlkConfig(sectors, seg_max=SEG_MAX, block_bytes=SECTOR).pack()

    # --- what the guest asks --------------------------------------------------------------------

    def accept(self, ticket: Ticket) -> None:
        chain = ticket.chain
        header, out, into, status = parts(chain)
        kind, sector = -1, 0
        if not chain.refused:
            kind, _, sector = BLK_HEADER.unpack(b"".join(header))
        elif missing(header + status):
            raise chain.refused.again()
        room = sum(map(len, into))
        request = Request(ticket, kind, sector, room, status[0])
        match kind:
            case BlkType.IN:
                self._data(request, into)
            case BlkType.OUT if not self._read_only:
                request.flushed = bool(self.accepted & virtio.BLK_F_FLUSH)  # §5.2.6.2
                self._data(request, out)
            case BlkType.FLUSH:
                self._begin(request, [Call(request, 0, ())])
            case BlkType.GET_ID:
                self._end(request, BlkStatus.OK, scatter(self.serial, split(into, BLK_ID_BYTES)[0]))
            case BlkType.OUT | -1:
                self._end(request, BlkStatus.IOERR)
            case _:
                self._end(request, BlkStatus.UNSUPP)

    def _data(self, request: Request, data: Views) -> None:
        length = sum(map(len, data))
        sectors, odd = divmod(length, SECTOR)
        if odd or not sectors or request.first + sectors > self._sectors:
            self._end(request, BlkStatus.IOERR)
        else:
            pieces = cut(self.ram.spans(data))
            first = request.first
            self._begin(request, [Call(request, first + at, spans) for at, spans in pieces])

    def _begin(self, request: Request, calls: list[Call]) -> None:
        request.left = len(calls)
        if self._waiting and not self.counts(self._waiting[0].request.ticket):
            self._waiting = deque(c for c in self._waiting if self.counts(c.request.ticket))
        self._waiting.extend(calls)
        self._pump()

    def _end(self, request: Request, status: BlkStatus, written: int = 0) -> None:
        """§2.7.8.2: used.len covers what was written without a gap, so the status byte counts only
        behind complete data."""
        if self.counts(request.ticket):
            request.status[0] = status
            self.finish(request.ticket, written + 1 if written == request.length else written)

    def reset(self) -> None:
        self._waiting.clear()
        super().reset()

    # --- what the server below is asked ---------------------------------------------------------

    def _pump(self) -> None:
        """Begin what waits, as far as there is room."""
        while self._waiting and self.upstream.up and self.under_way < CALLS:
            call = self._waiting.popleft()
            if self.counts(call.request.ticket) and not self._call(call):
                self._waiting.appendleft(call)

    def _call(self, call: Call) -> bool:
        """Whether it could be begun."""

        def done(end: int | Failure | None) -> None:
            self._ended(call, end)

        match call.spans:
            case ():
                begun = self.upstream.begin(done, self._block.flush)
            case (span,):
                begun = self._move(call, self.ram.region, span, done)
            case _:
                begun = self._detour(call)
        self.under_way += begun
        return begun

    def _detour(self, call: Call) -> bool:
        """A sector that is in several places of the guest's memory."""
        slot = self._slots.pop()
        span, views = Span(slot * SECTOR, SECTOR), self.ram.views(call.spans)
        view = self._bounce.view[span.offset : span.offset + SECTOR]

        def done(end: int | Failure) -> None:
            came = call.request.kind == BlkType.IN and not isinstance(end, Failure)
            if came and self.counts(call.request.ticket):
                scatter(view, views)
            self._slots.append(slot)
            self._ended(call, end)

        if call.request.kind == BlkType.OUT:
            view[:] = b"".join(views)
        begun = self._move(call, self._bounce, span, done)
        if not begun:
            self._slots.append(slot)
        return begun

    def _move(
        self, call: Call, region: Lendable, span: Span, done: Callable[[int | Failure], None]
    ) -> bool:
        block, begin = self._block, self.upstream.begin
        if call.request.kind == BlkType.IN:
            return begin(done, block.read, call.first, region.lend(*span))
        return begin(done, block.write, call.first, region.show(*span))

    def _ended(self, call: Call, end: int | Failure | None) -> None:
        """A call is at its end: with its last one, a request is."""
        self.under_way -= 1
        request = call.request
        if end is Failure.CUT:
            self._waiting.append(call)
        else:
            request.left -= 1
            request.failed |= end is Failure.REFUSED
            if not request.left:
                self._done(request)
        self._pump()

    def _done(self, request: Request) -> None:
        if request.failed:
            self._end(request, BlkStatus.IOERR)
        elif request.flushed:
            self._end(request, BlkStatus.OK, request.length if request.kind == BlkType.IN else 0)
        else:
            request.flushed = True
            self._begin(request, [Call(request, 0, ())])
