"""driver: what every driver of a virtio device does when interrupts or requests get lost.

    class Rng(Driver, Entropy):
        def setup(self) -> None:
            ...
            self.bring_up(device, queue)

The ring is the truth, the interrupt a hint: while `expecting`, the driver looks at its rings by
itself, LOOK_NS after it was told of a request. A device that keeps a request longer than
`request_timeout_s` (an argument, 1 by default) is broken: DeviceError ends this life, and the
next one resets the device, as every start does.
"""

from __future__ import annotations

import math
import time
from typing import Any

from ukernel.lib import virtqueue
from ukernel.lib.device import Device
from ukernel.lib.server import Server
from ukernel.lib.virtqueue import DeviceError, Virtqueue

LOOK_NS = 20_000_000  # from one look at the rings to the next; an interrupt is here long before
REQUEST_TIMEOUT_S = 1.0


class Driver(Server):
    """A server that drives a virtio device: mix it with the Interface that it implements."""

    def take(self) -> int:
        """Take from the rings what is complete; how much that was."""
        raise NotImplementedError

    def expecting(self) -> bool:
        """Whether the device owes something. Without it, nothing is looked at."""
        return any(queue.in_flight for queue in self._requests)

    def bring_up(self, device: Device, *requests: Virtqueue[Any]) -> None:
        """Let the device work. What is in `requests` must come back in bounded time."""
        self._device = device
        self._requests = requests
        timeout_s = float(self.args.get("request_timeout_s", REQUEST_TIMEOUT_S))
        self._most_ticks = 1 + math.ceil(timeout_s * 1e9 / LOOK_NS)
        self._doubted = False
        virtqueue.start(device)
        self.watch_interrupt(device, self._interrupted)

    def look_soon(self) -> None:
        """The device owes something from now on."""
        if not self.alarm_ns:
            self.alarm_ns = time.monotonic_ns() + LOOK_NS

    def alarmed(self) -> None:
        self.take()
        self._doubt([queue.index for queue in self._requests if queue.tick() > self._most_ticks])
        if self.expecting():
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
        if not self.take():
            virtqueue.check(self._device)  # it may want a reset: then we die, and start again
