"""driver: the way from the file server to a disk, where calls take their time.

What was begun happens at moments that a seed decides, in any order, now and then twice: that is
what a driver's death and the repetition of its calls make of it. A call that nobody waited for may
happen after the flush. Two calls under way never share memory.
"""

from __future__ import annotations

import random
from typing import Any

from servers.fs import disk as edge
from servers.fs.disk import BOUNCE
from tests.servers.disk import Disk
from ukernel.abi.interface import Lent
from ukernel.abi.services import SECTOR, Block

AT_ONCE = 0.3  # share of the calls under way that happen when another begins
TWICE = 0.2


class Bounce:
    """Memory to be lent."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(BOUNCE))

    def lend(self, offset: int, length: int) -> Lent:
        return Lent(b"may be written", offset, length)

    def show(self, offset: int, length: int) -> Lent:
        return Lent(b"is only shown", offset, length)


class Begun:
    """A call under way."""

    def __init__(self, driver: Driver, method: Any, first: int, lent: Lent) -> None:
        self.driver = driver
        self.method = method
        self.first = first
        self.lent = lent
        self.failure: Exception | None = None

    def happen(self) -> None:
        try:
            self.method(self.first, self.lent)
        except Exception as error:
            self.failure = error

    def result(self) -> None:
        if self in self.driver.under_way:
            self.driver.under_way.remove(self)
            self.happen()
        elif self.failure is None and self.driver.dice.random() < TWICE:
            self.happen()
        self.driver.waited.discard(self)
        if self.failure is not None:
            raise self.failure


class Driver(Block):
    """Block, in front of a disk in memory."""

    def __init__(self, disk: Disk, seed: int) -> None:
        self.disk = disk
        self.dice = random.Random(seed)
        self.bounce = Bounce()
        self.under_way: list[Begun] = []  # they have not happened yet
        self.waited: set[Begun] = set()  # nobody has asked for their outcome yet
        self.calls: list[tuple[str, int, int]] = []  # name, first sector, sectors

    def begin(self, method: Any, first: int, lent: Lent) -> Begun:
        end = lent.offset + lent.length
        assert all(b.lent.offset >= end or self.end(b) <= lent.offset for b in self.waited)
        for begun in [b for b in self.under_way if self.dice.random() < AT_ONCE]:
            self.under_way.remove(begun)
            begun.happen()
        begun = Begun(self, method, first, lent)
        self.under_way.append(begun)
        self.waited.add(begun)
        self.calls.append((method.__name__, first, lent.length // SECTOR))
        return begun

    def capacity(self) -> int:
        return self.disk.capacity

    def read(self, first: int, into: Lent) -> int:
        data = self.disk.read(first, into.length // SECTOR)
        self.bounce.view[into.offset : into.offset + into.length] = data
        return len(data)

    def write(self, first: int, data: Lent) -> int:
        self.disk.write(first, bytes(self.bounce.view[data.offset : data.offset + data.length]))
        return data.length

    def flush(self) -> None:
        self.calls.append(("flush", 0, 0))
        self.disk.flush()

    @staticmethod
    def end(begun: Begun) -> int:
        return begun.lent.offset + begun.lent.length


def behind(disk: Disk, seed: int) -> edge.Disk:
    """The disk as the file server sees it, through a driver that takes its time."""
    driver = Driver(disk, seed)
    return edge.Disk(driver, driver.bounce, driver.begin)
