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
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ukernel.abi.exits import NO_RESTART
from ukernel.abi.interface import Lent
from ukernel.abi.services import SECTOR, Block, OutOfRange
from ukernel.abi.sizes import bytes_of
from ukernel.lib.disks import Disks
from ukernel.lib.relay import Loop, Relay
from ukernel.lib.stub import begin, connect

AT_ONCE = 16  # requests of one partition at the disk


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


class Partition(Block):
    """Sectors of `disk`, counted from 0."""

    def __init__(self, loop: Loop, disk: Block, extent: Extent) -> None:
        self._disk = disk
        self._extent = extent
        self._relay = Relay(loop, AT_ONCE)

    def capacity(self) -> int:
        return self._extent.sectors

    def read(self, first: int, into: Lent) -> int:
        sector = self._sector(first, into.length)
        return self._relay.ask(lambda: begin(self._disk.read, sector, into)).later

    def write(self, first: int, data: Lent) -> int:
        sector = self._sector(first, data.length)
        return self._relay.ask(lambda: begin(self._disk.write, sector, data)).later

    def flush(self) -> None:
        return self._relay.ask(lambda: begin(self._disk.flush)).later

    def discard(self, first: int, count: int) -> None:
        sector = self._sector(first, count * SECTOR)
        return self._relay.ask(lambda: begin(self._disk.discard, sector, count)).later

    def _sector(self, first: int, length: int) -> int:
        """Where it is on the disk. Raises OutOfRange for what is not all ours."""
        if length % SECTOR or length == 0:
            raise OutOfRange(f"{length} bytes are not a number of sectors of {SECTOR}")
        if first + length // SECTOR > self._extent.sectors:
            had = self._extent.sectors
            raise OutOfRange(f"sector {first} and {length} bytes: the partition has {had}")
        return self._extent.first + first


class Partitions(Disks):
    each = "partition"

    def setup(self) -> None:
        disk_name = next(name for name in self.connection.named if name != "self")
        disk = connect(Block, disk_name, timeout_s=None)
        try:
            extents = layout(self.args, disk.capacity())
        except BadLayout as error:
            print(f"{error} ({self.connection.info.origin})", file=sys.stderr)
            sys.exit(NO_RESTART)
        self.disks = [Partition(self, disk, extent) for extent in extents]


if __name__ == "__main__":
    Partitions.run()
