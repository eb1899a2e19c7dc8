"""disk: the disk's driver as the volume sees it. Several transfers are under way, and none is lost.

    read    waits for its sectors, or takes them from a read-ahead that brings them
    ahead   begins to read what will probably be wanted; its failure is nobody's failure
    write   returns while the driver is still at work; a failure comes out of what follows
    flush   waits for every write, and only then has the driver make them durable

A read comes after every write. A write forgets the read-aheads that it overlaps: nobody knows which
of the two the driver does first. What a read-ahead brought is given out once: who reads the same
sectors again, because they were wrong, has the disk look again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from servers.fs.integrity import LONGEST_RUN, Bytes
from ukernel.abi.errors import CallError
from ukernel.abi.interface import Lent
from ukernel.abi.services import SECTOR, Block, DeviceFailed

WINDOW = LONGEST_RUN * SECTOR  # bytes of one transfer
AHEAD = 4  # read-aheads that are kept; the oldest is forgotten first
WINDOWS = AHEAD + 2
BOUNCE = WINDOWS * WINDOW  # bytes of the region that they lie in


class Memory(Protocol):
    """Memory that can be lent: a Region of ukernel.lib.memory."""

    @property
    def view(self) -> memoryview:
        """All of it."""

    def lend(self, offset: int, length: int) -> Lent:
        """A window that the callee may read and write."""

    def show(self, offset: int, length: int) -> Lent:
        """A window that the callee may only read."""


class Call(Protocol):
    """A call that was begun."""

    def result(self) -> object:
        """Wait for the outcome; what the method returns, or raises."""


Begin = Callable[..., Call]  # a stub's method and its arguments


class Transfer:
    """Sectors from `first` to `end` on their way through a window of the region."""

    def __init__(self, first: int, end: int, window: int, call: Call) -> None:
        self.first = first
        self.end = end
        self.window = window
        self.left = first, end  # what was not given out yet, and may still be asked for
        self._call: Call | None = call
        self._failure: Exception | None = None

    def failure(self) -> Exception | None:
        """Wait until it is over; what it raised."""
        call, self._call = self._call, None
        if call is not None:
            try:
                call.result()
            except Exception as error:
                self._failure = error
        return self._failure

    @property
    def over(self) -> bool:
        """Whether its outcome is known here."""
        return self._call is None

    def give(self, first: int, end: int) -> bool:
        """Whether these sectors are among those that are left; then they are no longer."""
        start, stop = self.left
        if first < start or stop < end:
            return False
        self.left = (start, first) if end == stop else (end, stop)
        return True

    def overlaps(self, first: int, end: int) -> bool:
        return self.first < end and first < self.end


class Disk:
    """Sectors as integrity.Sectors has them. `bounce` has BOUNCE bytes and serves nobody else."""

    def __init__(self, block: Block, bounce: Memory, begin: Begin) -> None:
        self._block = block
        self._bounce = bounce
        self._begin = begin
        self._free = [n * WINDOW for n in range(WINDOWS)]
        self._writes: list[Transfer] = []
        self._ahead: list[Transfer] = []
        self._forgotten: list[Transfer] = []  # their windows are in use until they are over
        self.capacity = block.capacity()

    def read(self, first: int, count: int) -> bytes:
        self._settle()
        found = self._brought(first, first + count)
        if found is None:
            transfer = self._start_read(first, count)
            self._free.append(transfer.window)
            _check(transfer.failure())
            found = self._bytes(transfer, first, first + count)
        return found

    def ahead(self, first: int, count: int) -> None:
        self._settle()
        if any(ahead.overlaps(first, first + count) for ahead in self._ahead):
            return
        self._forget(self._ahead[: max(0, len(self._ahead) + 1 - AHEAD)])
        with suppress(DeviceFailed):
            self._ahead.append(self._start_read(first, count))

    def write(self, first: int, data: Bytes) -> None:
        end = first + len(data) // SECTOR
        if any(write.overlaps(first, end) for write in self._writes):
            self._settle()  # one that a death cut short is repeated: not after this one
        self._forget([ahead for ahead in self._ahead if ahead.overlaps(first, end)])
        window = self._take_window()
        self._bounce.view[window : window + len(data)] = data
        shown = self._bounce.show(window, len(data))
        self._writes.append(self._start(first, end, window, self._block.write, shown))

    def flush(self) -> None:
        self._settle()
        try:
            self._block.flush()
        except CallError as error:
            _check(error)

    def _brought(self, first: int, end: int) -> bytes | None:
        """The sectors out of a read-ahead, if one brings all of them."""
        for ahead in self._ahead:
            if ahead.give(first, end):
                found = None if ahead.failure() else self._bytes(ahead, first, end)
                if found is None or ahead.left[0] == ahead.left[1]:
                    self._forget([ahead])
                return found
        return None

    def _bytes(self, transfer: Transfer, first: int, end: int) -> bytes:
        start = transfer.window + (first - transfer.first) * SECTOR
        return bytes(self._bounce.view[start : start + (end - first) * SECTOR])

    def _forget(self, aheads: list[Transfer]) -> None:
        self._ahead = [ahead for ahead in self._ahead if ahead not in aheads]
        self._free += [ahead.window for ahead in aheads if ahead.over]
        self._forgotten += [ahead for ahead in aheads if not ahead.over]

    def _start_read(self, first: int, count: int) -> Transfer:
        window = self._take_window()
        lent = self._bounce.lend(window, count * SECTOR)
        return self._start(first, first + count, window, self._block.read, lent)

    def _start(
        self, first: int, end: int, window: int, method: Callable[[int, Lent], int], lent: Lent
    ) -> Transfer:
        try:
            return Transfer(first, end, window, self._begin(method, first, lent))
        except CallError as error:
            self._free.append(window)
            raise DeviceFailed(str(error)) from error

    def _take_window(self) -> int:
        """One that nothing moves through: there are more of them than read-aheads."""
        if not self._free and self._forgotten:
            transfer = self._forgotten.pop(0)
            transfer.failure()
            self._free.append(transfer.window)
        if not self._free:
            self._settle()
        return self._free.pop()

    def _settle(self) -> None:
        """Wait for every write. The first failure is raised when nothing is under way any more."""
        writes, self._writes = self._writes, []
        self._free += [write.window for write in writes]
        failures = [failure for write in writes if (failure := write.failure())]
        _check(next(iter(failures), None))


def _check(failure: Exception | None) -> None:
    if isinstance(failure, CallError):
        raise DeviceFailed(str(failure)) from failure
    if failure is not None:
        raise failure
