"""memory: windows to lend, taken in turn. A window is never written while a call may still read it.

The loan of a call whose fate is unknown is taken back, and so is the memory: what such a call
still does later, it does with nothing. Turns are for a message that is said twice: the second
finds, for a while, what the first found.
"""

from __future__ import annotations

from contextlib import suppress

from ukernel.abi.errors import CallError
from ukernel.lib.connection import Connection
from ukernel.lib.memory import Region
from ukernel.lib.stub import kernel


class Memory:
    """Where the regions of a run come from."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def make(self, size: int) -> Region:
        return Region(self.connection, "window", size)

    def take_back(self, region: Region) -> None:
        """Nobody can use it from now on; who has it mapped keeps that mapping alone."""
        whole = kernel(self.connection, region.token)
        with suppress(CallError):  # it is gone already
            whole.revoke()
            whole.delete()


class Windows:
    """`count` regions of `size` bytes, made when their turn comes for the first time."""

    def __init__(self, memory: Memory, size: int, count: int) -> None:
        self._size = size
        self._memory = memory
        self._regions: list[Region | None] = [None] * count
        self._turn = 0

    def take(self) -> Region:
        """The next in turn."""
        at, self._turn = self._turn, (self._turn + 1) % len(self._regions)
        region = self._regions[at]
        if region is None:
            region = self._regions[at] = self._memory.make(self._size)
        return region

    def spoil(self, region: Region) -> None:
        """The fate of a call that was lent this is unknown: another takes its place."""
        self._regions[self._regions.index(region)] = None
        self._memory.take_back(region)
