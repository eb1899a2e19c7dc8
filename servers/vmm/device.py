"""device: a virtio device whose requests take their time: many at once, done in any order.

What was begun cannot be taken back. So a reset is complete, and the status register 0, when nobody
reads or writes the guest's memory any more for a request from before (virtio 1.2 §2.4.2). A driver
that does not wait for that can go on, and has itself to blame for what happens to its memory.

A request that is in flight when the device is saved is begun again when it is restored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from servers.vmm.guest_memory import GuestMemory, Ram
from ukernel.abi.virtio import Reg
from ukernel.lib.virtio.queue import Chain, DeviceQueue, QueueFault
from ukernel.lib.virtio.state import INDEX, BadState, whole
from ukernel.lib.virtio.transport import VirtioMmio


@dataclass(eq=False)
class Ticket:
    """A chain that was taken and is to be given back."""

    index: int
    queue: DeviceQueue
    chain: Chain


class SlowDevice(VirtioMmio):
    """A model overrides `accept`, and calls `finish` at any time."""

    has_status = True

    def __init__(self, name: str, memory: GuestMemory, interrupt: Callable[[], None]) -> None:
        self.ram: Ram = memory.ram
        self.under_way = 0  # calls for requests, also for those from before a reset
        self.finished = 0  # requests, since it was made
        self._tickets: dict[tuple[int, int], Ticket] = {}  # by queue and head
        self._status_before = 0
        super().__init__(name, memory, interrupt)

    def accept(self, ticket: Ticket) -> None:
        """Begin a request. Raises QueueFault or DmaFault when it is none."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Nobody reads or writes the guest's memory for this device."""
        return not self.under_way

    # --- requests -------------------------------------------------------------------------------

    def serve(self, index: int, queue: DeviceQueue) -> bool:
        for chain in self.requests(queue):
            self._take(Ticket(index, queue, chain))
        return not queue.listen()

    def _take(self, ticket: Ticket) -> None:
        key = ticket.index, ticket.chain.head
        before = self._tickets.get(key)
        if before is not None and before.queue is ticket.queue:
            raise QueueFault(f"chain {ticket.chain.head} is in flight already")
        self._tickets[key] = ticket
        self.accept(ticket)

    def counts(self, ticket: Ticket) -> bool:
        """Whether the driver still waits for it: there was no reset, nor a fault, since."""
        known = self._tickets.get((ticket.index, ticket.chain.head)) is ticket
        return known and self._queues[ticket.index].live is ticket.queue

    def finish(self, ticket: Ticket, written: int) -> None:
        """Give a request back, if somebody waits for it."""
        if self.counts(ticket):
            del self._tickets[ticket.index, ticket.chain.head]
            self.finished += 1
            ticket.queue.give(ticket.chain, written)
            self._tell_used(ticket.queue)

    # --- resets ---------------------------------------------------------------------------------

    def reset(self) -> None:
        self._status_before |= getattr(self, "status", 0)
        self._tickets.clear()
        super().reset()

    def load(self, offset: int) -> int:
        if offset == Reg.STATUS and not self.status:
            if not self.idle:
                return self._status_before
            self._status_before = 0
        return super().load(offset)

    # --- going on elsewhere ---------------------------------------------------------------------

    def save_model(self) -> Any:
        """What is in flight, in the order in which it came."""
        tickets = (ticket for ticket in self._tickets.values() if self.counts(ticket))
        return [(ticket.index, ticket.chain.head) for ticket in tickets]

    def restore_model(self, state: Any) -> None:
        if type(state) is not list:
            raise BadState("no list of requests")
        for each in state:
            if type(each) is not list or len(each) != 2:
                raise BadState(f"{each!r} is no request")
            index, head = whole(each[0], INDEX), whole(each[1], INDEX)
            queue = self._queues[index].live if index < len(self._queues) else None
            if queue is None:
                raise BadState(f"queue {index} has no requests")
            self._take(Ticket(index, queue, queue.again(head)))
