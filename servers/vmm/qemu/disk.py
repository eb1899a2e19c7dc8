"""disk: the disk of a virtual machine that QEMU runs: NBD on one side, another server's disk below.

Data goes through memory of the monitor, which is lent to the server below and is what the socket
is written from. Many requests are in flight, and end in any order. While there is no room for more
the other end waits: nothing is read from it. A death of the server below is a delay: what it has
cut short is asked for again, since reading, writing, flushing and discarding may be done twice.
Whatever is refused is an error of the request.

What was answered before a death of a driver is in the device's cache still, so the flush that
follows it makes it durable, whichever life of the driver does it. A write with FUA is answered
after a flush of its own.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable

from servers.vmm.qemu.nbd import MOST_BYTES, Broken, Command, Error, Export, Request, Session, reply
from servers.vmm.qemu.room import Piece, Room
from servers.vmm.qemu.stream import Host, Stream
from ukernel.abi.services import SECTOR, Block
from ukernel.lib.upstream import Failure, Upstream

EXPORT = "disk"
CALLS = 16  # under way at most: not the whole window of the server below
REQUESTS = 64  # in hand: from when it has come until its answer is with the socket
ROOM_BYTES = 2 * MOST_BYTES  # for the data of all of them
MOVES = (Command.READ, Command.WRITE)
GOODBYE = "the other end has said goodbye"


class Job:
    """A request in hand, for a session that may be over by now."""

    def __init__(self, session: Session, request: Request, piece: Piece | None = None) -> None:
        self.session = session
        self.request = request
        self.piece = piece  # where its data is
        self.flushing = request.command == Command.FLUSH  # or, with FUA, that is what is left


class DiskWire:
    """A disk of `sectors` for who is at the other end of `sock`.

    `block_by_kernel` is the same as `block`, without a channel. `closed` is called, once for each
    end, with the reason why it is no more; not after `close`.
    """

    def __init__(
        self,
        loop: Host,
        sock: socket.socket,
        name: str,
        block: Block,
        block_by_kernel: Block,
        sectors: int,
        closed: Callable[[str], None],
        read_only: bool = False,
    ) -> None:
        self.upstream = Upstream(loop, block_by_kernel.capacity, self._pump, was=sectors)
        self.reads = self.writes = self.flushes = self.discards = 0  # requests
        self.bytes_read = self.bytes_written = 0
        self.errors = 0  # requests that were answered with one
        self._loop = loop
        self._block = block
        self._export = Export(EXPORT, sectors, read_only)
        self._closed = closed
        self._memory = loop.region(f"{name}.data", ROOM_BYTES)
        self._room = Room(ROOM_BYTES)
        self._waiting: deque[Job] = deque()
        self._under_way = 0  # calls, also for an end that has gone: those are `_left` to end
        self.open(sock)

    def open(self, sock: socket.socket) -> None:
        """Serve another end, after `close` or `closed`. What it asks for is begun when what is
        under way for the one before has ended: the order of the two is kept."""
        self._left = self._under_way
        self._session = Session(self._export)
        self._held: Request | None = None  # that there is no room for
        self._in_hand = 0
        self._taking = False
        self._stream = Stream(self._loop, sock, self._came, self._gone)
        self._stream.send(self._session.greeting)

    @property
    def idle(self) -> bool:
        """No request is under way at the server below."""
        return not self._under_way

    def close(self) -> None:
        """Hang up. What is under way ends by itself, and is answered to nobody."""
        self._stream.close()
        for job in self._waiting:
            self._free(job)
        self._waiting.clear()

    # --- the other end --------------------------------------------------------------------------

    def _gone(self, why: str) -> None:
        self.close()
        self._closed(why)

    def _came(self, data: memoryview) -> None:
        self._session.feed(data)
        self._go_on()

    def _go_on(self) -> None:
        """Take what has come, as far as there is room, and read on when it is used up."""
        if self._taking or self._stream.closed:
            return
        self._taking = True
        try:
            self._stream.listen(self._take())
        except Broken as broken:
            self._gone(f"it has broken the protocol: {broken}")
        self._taking = False
        if self._session.over and not (
            self._in_hand or self._stream.waiting or self._stream.closed
        ):
            self._gone(GOODBYE)

    def _take(self) -> bool:
        """Whether more has to come first. Raises Broken."""
        while self._in_hand < REQUESTS and self._stream.waiting < REQUESTS:
            step = self._held or self._session.take()
            if step is None:
                return not self._session.over
            if isinstance(step, Request):
                self._held = None if self._begin(step) else step
                if self._held is not None:
                    return False
            elif step:
                self._stream.send(step, sent=self._go_on)
        return False

    def _begin(self, request: Request) -> bool:
        """Whether there was room for it."""
        job = Job(self._session, request)
        if not request.error and request.command in MOVES:
            job.piece = self._room.take(request.length)
            if job.piece is None:
                return False
            if request.command == Command.WRITE:
                self._view(job.piece)[:] = request.data
        self._in_hand += 1
        if request.error:
            self._answer(job, request.error)
        else:
            self._waiting.append(job)
            self._pump()
        return True

    def _answer(self, job: Job, error: Error = Error.NONE) -> None:
        request, data = job.request, memoryview(b"")
        if job.piece is not None and request.command == Command.READ and not error:
            data = self._view(job.piece)
        self._count(request, error)

        def sent() -> None:
            self._free(job)
            self._in_hand -= 1
            self._go_on()

        self._stream.send(reply(request.cookie, error), data, sent=sent)

    def _count(self, request: Request, error: Error) -> None:
        if error:
            self.errors += 1
            return
        match request.command:
            case Command.READ:
                self.reads += 1
                self.bytes_read += request.length
            case Command.WRITE:
                self.writes += 1
                self.bytes_written += request.length
            case Command.FLUSH:
                self.flushes += 1
            case Command.TRIM:
                self.discards += 1

    # --- memory ---------------------------------------------------------------------------------

    def _view(self, piece: Piece) -> memoryview:
        return self._memory.view[piece.offset : piece.offset + piece.length]

    def _free(self, job: Job) -> None:
        if job.piece is not None:
            self._room.give(job.piece)
            job.piece = None

    # --- the server below -----------------------------------------------------------------------

    def _pump(self) -> None:
        """Begin what waits, as far as there is room."""
        while self._waiting and self._may_begin():
            job = self._waiting.popleft()
            if not self._call(job):
                self._waiting.appendleft(job)

    def _may_begin(self) -> bool:
        return self.upstream.up and self._under_way < CALLS and not self._left

    def _call(self, job: Job) -> bool:
        """Whether it could be begun."""

        def done(end: int | Failure | None) -> None:
            self._ended(job, end)

        command, _, offset, length, *_ = job.request
        first, begin = offset // SECTOR, self.upstream.begin
        if command == Command.TRIM and not job.flushing:
            begun = begin(done, self._block.discard, first, length // SECTOR)
        elif job.flushing or job.piece is None:
            begun = begin(done, self._block.flush)
        elif command == Command.READ:
            begun = begin(done, self._block.read, first, self._memory.lend(*job.piece))
        else:
            begun = begin(done, self._block.write, first, self._memory.show(*job.piece))
        self._under_way += begun
        return begun

    def _ended(self, job: Job, end: int | Failure | None) -> None:
        """A call is at its end, and with the last one for it, a request is."""
        self._under_way -= 1
        if job.session is not self._session:
            self._left -= 1
            self._free(job)
        elif self._stream.closed:
            self._free(job)
        elif end is Failure.CUT:
            self._waiting.append(job)
        elif end is Failure.REFUSED or end not in (None, job.request.length):
            self._answer(job, Error.EIO)
        elif job.request.fua and not job.flushing:
            job.flushing = True
            self._waiting.append(job)
        else:
            self._answer(job)
        self._pump()
