"""driver: what every driver of a virtio device does when interrupts or requests get lost.

    class Rng(Driver, Entropy):
        def setup(self) -> None:
            ...
            self.bring_up(device, queue)

The ring is the truth, the interrupt a hint: while `expecting`, the driver looks at its rings by
itself, LOOK_NS after it was told of a request, and rings once more. A device that keeps a request
longer than `request_timeout_s` (an argument, 1 by default) is broken: DeviceError ends this life,
and the next one resets the device, as every start does.

What comes in one pass of the loop is submitted piece by piece, and rung for once. A driver that is
awake wants no interrupt: it looks at its rings before it waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from ukernel.lib import virtqueue
from ukernel.lib.bell import ring
from ukernel.lib.device import Device
from ukernel.lib.server import Server
from ukernel.lib.virtqueue import DeviceError, Virtqueue

LOOK_NS = 20_000_000  # from one look at the rings to the next; an interrupt is here long before
REQUEST_TIMEOUT_S = 1.0
LOOKS = 16  # at rings that fill again and again, before whoever calls gets a turn


class Driver(Server):
    """A server that drives a virtio device: mix it with the Interface that it implements."""

    def take(self) -> int:
        """Take from the rings what is complete; how much that was."""
        raise NotImplementedError

    def expecting(self) -> bool:
        """Whether the device owes something. Without it, nothing is looked at."""
        return any(queue.in_flight for queue in self._requests)

    def bring_up(
        self, device: Device, *requests: Virtqueue[Any], buffers: Sequence[Virtqueue[Any]] = ()
    ) -> None:
        """Let the device work. What is in `requests` must come back in bounded time, and what is in
        `buffers` when there is something to put there."""
        self._device = device
        self._requests = requests
        self._queues = (*requests, *buffers)
        timeout_s = float(self.args.get("request_timeout_s", REQUEST_TIMEOUT_S))
        self._most_ticks = 1 + math.ceil(timeout_s * 1e9 / LOOK_NS)
        self._doubted = False
        self._ahead = True  # took something of which the interrupt may still come
        self._unsure = False  # such an interrupt may have been about something else
        virtqueue.start(device)
        self.watch_interrupt(device, self._interrupted)

    def look_soon(self) -> None:
        """The device owes something from now on. It is rung for before the driver waits."""
        self._requests[0].quiet()
        if not self.alarm_ns:
            self.alarm_ns = time.monotonic_ns() + LOOK_NS

    def before_waiting(self) -> None:
        """Ring for what was submitted, and wait only when nothing is in the rings."""
        for _ in range(LOOKS):
            for queue in self._queues:
                queue.kick()
            ready = [queue for queue in self._queues if not queue.listen()]
            if not ready:
                return
            self._ahead = True
            self.take()
        ring(self._device.interrupt)  # to ourselves: go on after who else waits

    def alarmed(self) -> None:
        if self.take():
            self._unsure = False
        elif self._unsure:
            self._unsure = False
            virtqueue.check(self._device)
        self._doubt([queue.index for queue in self._requests if queue.tick() > self._most_ticks])
        if self.expecting():
            self._device.ring_doorbell()  # as an interrupt can be lost, so can this
            self.look_soon()

    def _doubt(self, late: list[int]) -> None:
        """Give the device up if queues are `late` although it runs: a register proves that."""
        if late and self._doubted:
            raise DeviceError(
                f"{self._device.name} keeps a request of queue {late[0]} for longer than "
                "request_timeout_s: it is broken and must be reset"
            )
        if late:
            virtqueue.check(self._device)  # a machine that was paused answers when it goes on
        self._doubted = bool(late)

    def _interrupted(self) -> None:
        for queue in self._queues:
            queue.quiet()
        if self.take():
            return
        if self._ahead:
            self._unsure = True
        else:
            virtqueue.check(self._device)  # it may want a reset: then we die, and start again
        self._ahead = False
