"""faults: what is to go wrong with a device stands between it and its surroundings, not in it.

A device without faults runs no line of this file: `Defects` puts itself in the place of its
medium, its interrupt line and its supply of requests when the first fault is planned, and
takes itself away again when they are mended. Faults outlast a reset; a request that is stuck does
not.
"""

from __future__ import annotations

import errno
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from weakref import WeakKeyDictionary

from hwsim.hardware import Hardware
from hwsim.impairment import Impairment, Lane
from ukernel.abi.faults import (
    FRAME_FAULTS,
    IO_ERROR,
    LINE_FAULTS,
    LOST_INTERRUPT,
    MEDIUM_FAULTS,
    NO_ROOM,
    SPURIOUS_INTERRUPT,
    STUCK,
    TORN_WRITE,
    WRONG_DATA,
    NoSuchFault,
)
from ukernel.abi.services import SECTOR
from ukernel.lib.virtio.blk import Blk, Storage
from ukernel.lib.virtio.net import Net
from ukernel.lib.virtio.queue import Chain, DeviceQueue
from ukernel.lib.virtio.transport import VirtioMmio

Strikes = Callable[[str], bool]  # whether a request that this fault concerns meets it


def possible(device: Hardware) -> tuple[str, ...]:
    """The ways in which this device can break."""
    match device:
        case Blk():
            return (*MEDIUM_FAULTS, STUCK, *LINE_FAULTS)
        case Net():
            return (STUCK, *LINE_FAULTS, *FRAME_FAULTS)
        case VirtioMmio():
            return (STUCK, *LINE_FAULTS)
        case _:
            return LINE_FAULTS


class Plan:
    """One fault: of the next `count` requests (0: all), each meets it with `probability`."""

    def __init__(self, count: int, probability: float, seed: int) -> None:
        self._left = count or math.inf
        self._probability = probability
        self._random = random.Random(seed)

    def strikes(self) -> bool:
        """Whether the next request meets it."""
        if not self._left:
            return False
        self._left -= 1
        return self._random.random() < self._probability


class FaultyStorage:
    """A medium that fails when `strikes` says so; `shape` decides what is damaged, and how."""

    def __init__(self, medium: Storage, strikes: Strikes, shape: random.Random) -> None:
        self.medium = medium
        self.size = medium.size
        self.read_only = medium.read_only
        self._strikes = strikes
        self._shape = shape

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        self._may_fail()
        self.medium.read(offset, into)
        if self._strikes(WRONG_DATA):
            self._falsify(into)

    def write(self, offset: int, data: Sequence[memoryview]) -> None:
        self._may_fail()
        if self._strikes(NO_ROOM):
            raise OSError(errno.ENOSPC, "planned: the host has no room for the image")
        if self._strikes(TORN_WRITE):
            self._tear(offset, memoryview(b"".join(data)))
            raise OSError(errno.EIO, "planned: some of it was written")
        self.medium.write(offset, data)

    def flush(self) -> None:
        self._may_fail()
        self.medium.flush()

    def discard(self, offset: int, length: int) -> None:
        self._may_fail()
        self.medium.discard(offset, length)

    def _may_fail(self) -> None:
        if self._strikes(IO_ERROR):
            raise OSError(errno.EIO, "planned: nothing was done")

    def _falsify(self, into: Sequence[memoryview]) -> None:
        """Another value in one byte, which is what is hardest to see."""
        at = self._shape.randrange(sum(map(len, into)))
        for view in into:
            if at < len(view):
                view[at] ^= self._shape.randrange(1, 256)
                return
            at -= len(view)

    def _tear(self, offset: int, data: memoryview) -> None:
        """Write some sectors and not others. A sector is whole, so one alone is there or not."""
        sectors = len(data) // SECTOR
        count = self._shape.randint(min(1, sectors - 1), max(1, sectors - 1))
        for number in sorted(self._shape.sample(range(sectors), count)):
            at = number * SECTOR
            self.medium.write(offset + at, [data[at : at + SECTOR]])


def _always_fails(fault: str) -> bool:
    return fault == IO_ERROR


class Defects:
    """What is wrong with one device. `landed` counts what has really happened, also before `mend`.

    `later` does something in a moment, when the driver has seen what there is now: an edge that
    came at once would be one with the interrupt before it.
    """

    def __init__(self, device: Hardware, later: Callable[[Callable[[], None]], None]) -> None:
        self.device = device
        self.landed: Counter[str] = Counter()
        self._later = later
        self._plans: dict[str, Plan] = {}
        self._line = device.interrupt
        self._medium = device.disk if isinstance(device, Blk) else None
        # Heads of the chains that the device never saw, for each live queue. A reset drops the
        # queue and with it what is stuck. No memory is kept: it may be unmapped before they end.
        self._stuck: WeakKeyDictionary[DeviceQueue, list[int]] = WeakKeyDictionary()

    def plan(self, fault: str, count: int, probability: float, seed: int) -> None:
        """Let a fault strike; it takes the place of an earlier plan for it. Raises NoSuchFault."""
        ways = possible(self.device)
        if fault not in ways:
            raise NoSuchFault(
                f"{self.device.name} cannot break by {fault!r}, only by {', '.join(ways)}"
            )
        self._plans[fault] = Plan(count, probability, seed)
        self.landed[fault] += 0  # planned: it is told of, even if it never happens
        self._step_between(random.Random(seed))

    def mend(self) -> None:
        """The device is as it was. What was stuck ends with an error, or late if it can have none.

        Like a doorbell, this may leave a backlog.
        """
        self._plans.clear()
        self.device.interrupt = self._line
        if isinstance(self.device, VirtioMmio):
            if self._stuck:
                self.device.requests = self._overdue
                self.device.doorbell()
            self.device.requests = DeviceQueue.batch
            self._stuck.clear()
        if isinstance(self.device, Net):
            self.device.trouble = None
        self._put_medium(self._medium)

    def _step_between(self, shape: random.Random) -> None:
        self.device.interrupt = self._interrupt
        if isinstance(self.device, VirtioMmio):
            self.device.requests = self._requests
        if self._medium is not None:
            self._put_medium(FaultyStorage(self._medium, self._strikes, shape))
        if isinstance(self.device, Net) and self._plans.keys() & set(FRAME_FAULTS):
            self.device.trouble = self._trouble(shape)

    def _trouble(self, shape: random.Random) -> Impairment:
        """A link on which frames meet what is planned, in both directions."""

        def at(_: int, action: Callable[[], None]) -> None:
            self._later(action)

        lanes = Lane(self._strikes, shape), Lane(self._strikes, shape)
        return Impairment(*lanes, time.monotonic_ns, at)

    def _put_medium(self, medium: Storage | None) -> None:
        if isinstance(self.device, Blk) and medium is not None:
            self.device.disk = medium

    def _strikes(self, fault: str) -> bool:
        plan = self._plans.get(fault)
        if plan is None or not plan.strikes():
            return False
        self.landed[fault] += 1
        return True

    def _interrupt(self) -> None:
        if self._strikes(LOST_INTERRUPT):
            return
        self._line()
        if self._strikes(SPURIOUS_INTERRUPT):
            self._later(self._line)

    def _requests(self, queue: DeviceQueue) -> Iterator[Chain]:
        """What the device gets to see of a batch."""
        for chain in queue.batch():
            if self._strikes(STUCK):
                self._stuck.setdefault(queue, []).append(chain.head)
            else:
                yield chain

    def _overdue(self, queue: DeviceQueue) -> Iterator[Chain]:
        """What was stuck, with a medium that fails; then a batch as ever."""
        if self._medium is not None:
            self._put_medium(FaultyStorage(self._medium, _always_fails, random.Random()))
        for head in self._stuck.pop(queue, []):
            yield queue.again(head)
        self._put_medium(self._medium)
        yield from queue.batch()
