"""partitions: one disk as several. Which of them a caller has is said by its badge, and no other.

    parts: {run: servers.partitions, serves: block, calls: [{disk: {via: channel}}],
            args: {parts: [16MiB, 4MiB]}}
    vm:    {calls: [{parts: {badge: 2}}], ...}        # the second, which begins after the first

Lent memory is passed on: data goes between the device and the client. Nothing is kept here, so a
restart is a start; what a death of the disk's driver cuts short is asked for again, since every
operation of a disk may be repeated. A few requests of each partition are at the disk at once, so
nobody's queue is in front of another's.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from ukernel.abi.errors import Answer, CallError, DeadNotRun, DeadUnknown, Denied
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.interface import Interface, Lent
from ukernel.abi.services import SECTOR, Block, OutOfRange
from ukernel.abi.sizes import bytes_of
from ukernel.lib.server import Server
from ukernel.lib.stub import UnderWay, begin, connect
from ukernel.lib.way import Pending

AT_ONCE = 16  # requests of one partition at the disk


R = TypeVar("R")


class BadLayout(Exception):
    """These are no partitions of this disk; the text says why."""


class Extent(NamedTuple):
    """Sectors of the disk that lie together."""

    first: int
    sectors: int


def layout(args: Mapping[str, Any], capacity: int) -> list[Extent]:
    """The partitions, one after the other, of a disk of so many sectors: of `{parts: [16MiB]}`, or
    of `{home: 16MiB, swap: 4MiB}` in this order. Raises BadLayout."""
    sizes: Sequence[Any] = args["parts"] if "parts" in args else list(args.values())
    if not isinstance(sizes, list) or not sizes:
        raise BadLayout("args: say `parts: [16MiB, 4MiB]`, the size of each partition")
    found, first = [], 0
    for number, size in enumerate(sizes, 1):
        length = bytes_of(size) or 0
        if length <= 0 or length % SECTOR:
            raise BadLayout(f"partition {number} of {size!r}: a multiple of {SECTOR} bytes is due")
        found.append(Extent(first, length // SECTOR))
        first += length // SECTOR
    if first > capacity:
        raise BadLayout(f"{first} sectors in {len(found)} partitions: the disk has {capacity}")
    return found


class Caller(Protocol):
    """What a partition needs of the server that it belongs to."""

    def pending(self) -> Pending[Any]: ...
    def when(self, call: UnderWay[Any], done: Callable[[UnderWay[Any]], None]) -> None: ...


class Request(NamedTuple):
    """A call of the disk for somebody who waits. `method` and `args` are of the disk's stub."""

    pending: Pending[Any]
    method: Callable[..., Any]
    args: tuple[Any, ...]


class Partition(Block):
    """Sectors of `disk`, counted from 0."""

    def __init__(self, server: Caller, disk: Block, extent: Extent) -> None:
        self._server = server
        self._disk = disk
        self._extent = extent
        self._waiting: deque[Request] = deque()
        self._under_way = 0

    def capacity(self) -> int:
        return self._extent.sectors

    def read(self, first: int, into: Lent) -> int:
        return self._ask(self._disk.read, self._sector(first, into.length), into).later

    def write(self, first: int, data: Lent) -> int:
        return self._ask(self._disk.write, self._sector(first, data.length), data).later

    def flush(self) -> None:
        return self._ask(self._disk.flush).later

    def discard(self, first: int, count: int) -> None:
        return self._ask(self._disk.discard, self._sector(first, count * SECTOR), count).later

    def _sector(self, first: int, length: int) -> int:
        """Where it is on the disk. Raises OutOfRange for what is not all ours."""
        if length % SECTOR or length == 0:
            raise OutOfRange(f"{length} bytes are not a number of sectors of {SECTOR}")
        if first + length // SECTOR > self._extent.sectors:
            had = self._extent.sectors
            raise OutOfRange(f"sector {first} and {length} bytes: the partition has {had}")
        return self._extent.first + first

    # --- at the disk ----------------------------------------------------------------------------

    def _ask(self, method: Callable[..., R], *args: Any) -> Pending[R]:
        pending: Pending[R] = self._server.pending()
        self._waiting.append(Request(pending, method, args))
        self._go_on()
        return pending

    def _go_on(self) -> None:
        while self._waiting and self._under_way < AT_ONCE:
            request = self._waiting.popleft()
            if request.pending.wanted:
                self._begin(request)

    def _begin(self, request: Request) -> None:
        try:
            call = begin(request.method, *request.args)
        except (Answer, CallError) as error:
            request.pending.fail(error)
        else:
            self._under_way += 1
            self._server.when(call, lambda call: self._done(request, call))

    def _done(self, request: Request, call: UnderWay[Any]) -> None:
        self._under_way -= 1
        try:
            request.pending.answer(call.result())
        except (DeadNotRun, DeadUnknown):  # the next life of the driver does it
            if request.pending.wanted:
                self._begin(request)
        except (Answer, CallError) as error:
            request.pending.fail(error)
        self._go_on()


class Partitions(Server, Block):
    def setup(self) -> None:
        disk_name = next(name for name in self.connection.named if name != "self")
        disk = connect(Block, disk_name, timeout_s=None)
        try:
            extents = layout(self.args, disk.capacity())
        except BadLayout as error:
            print(f"{error} ({self.connection.info.origin})", file=sys.stderr)
            sys.exit(NO_RESTART)
        self.parts = [Partition(self, disk, extent) for extent in extents]

    def restore(self, badge: int) -> Interface | None:
        """Partition `badge`. They are the same in every life."""
        if not 0 < badge <= len(self.parts):
            return None
        part = self.parts[badge - 1]
        self.export(part, badge)
        return part

    # --- badge 0: the disk as a whole, which nobody has -----------------------------------------

    def capacity(self) -> int:
        raise self._nobodys()

    def read(self, first: int, into: Lent) -> int:
        raise self._nobodys()

    def write(self, first: int, data: Lent) -> int:
        raise self._nobodys()

    def flush(self) -> None:
        raise self._nobodys()

    def discard(self, first: int, count: int) -> None:
        raise self._nobodys()

    def _nobodys(self) -> Denied:
        me = self.connection.slot
        return Denied(f"{me} is called for one partition: `calls: [{{{me}: {{badge: 1}}}}]`")


if __name__ == "__main__":
    Partitions.run()
