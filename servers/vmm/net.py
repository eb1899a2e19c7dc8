"""net: virtio-net (virtio 1.2 §5.1) for a guest, over a card that is another server's: a port of a
switch, or a real one.

Frames that come are put into memory of the monitor by calls that are kept under way, and copied to
the guest when it has a buffer: while it has none, they wait, and the card is not asked for more.
What the guest sends is lent from its memory. A death of the server below is a cable that was pulled
out for a while. There are no offloads: what comes with one is made plain here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from servers.vmm.device import SlowDevice, Ticket
from servers.vmm.guest_memory import GuestMemory
from ukernel.abi import network
from ukernel.abi.network import Card, Ethernet
from ukernel.abi.virtio import (
    NET_HDR_F_DATA_VALID,
    NET_HEADER_BYTES,
    NET_MOST_BYTES,
    NET_RECEIVEQ,
    NET_TRANSMITQ,
    DeviceId,
    NetConfig,
    Status,
)
from ukernel.lib.upstream import Failure, Loop, Upstream
from ukernel.lib.virtio.net import ALWAYS, QUEUE_SIZE, parts
from ukernel.lib.virtio.offload import CAME, ETHERNET, PLAIN, BadFrame, checked, real
from ukernel.lib.virtio.queue import DeviceQueue, QueueFault, scatter

RECEIVES = 8  # calls under way for frames that come
SENDS = 16  # and for those that go
LINE = 64  # bytes that a slot is rounded up to


class Frame(NamedTuple):
    """A frame that waits for a buffer of the guest."""

    data: memoryview | bytes  # with its header
    slot: int  # to be received into again when it is gone; -1: another frame follows from there


class Outgoing(NamedTuple):
    """A frame that waits for its call."""

    ticket: Ticket
    views: list[memoryview]


class VmNet(SlowDevice):
    """A network card with the address of `card`.

    `ethernet_by_kernel` is the same as `ethernet`, without a channel.
    """

    device_id = DeviceId.NETWORK
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE)

    def __init__(
        self,
        name: str,
        memory: GuestMemory,
        interrupt: Callable[[], None],
        loop: Loop,
        ethernet: Ethernet,
        ethernet_by_kernel: Ethernet,
        card: Card,
        plugged: bool = True,
    ) -> None:
        self.upstream = Upstream(loop, ethernet_by_kernel.card, self._listen, was=card)
        self._ethernet = ethernet
        self.mtu = card.mtu
        self.sent = self.received = self.dropped = 0  # frames
        longest = NET_MOST_BYTES if card.offloads & network.ACCEPT_LONG else ETHERNET + card.mtu
        self._room = _rounded(NET_HEADER_BYTES + longest)
        self._frames = loop.region(f"{name}.frames", RECEIVES * self._room)
        self._idle = list(range(RECEIVES))
        self._came: deque[Frame] = deque()
        self._lay_out(loop, name)
        self._outgoing: deque[Outgoing] = deque()
        super().__init__(name, memory, interrupt)
        self.features |= ALWAYS
        self.config_space = NetConfig(card.mac, mtu=card.mtu).pack()
        self.plug(plugged)

    def _lay_out(self, loop: Loop, name: str) -> None:
        """Memory for what is sent: a header that is the same for all, and room for frames that
        are in several places of the guest's memory."""
        self._slot_bytes = _rounded(ETHERNET + self.mtu)
        self._sending = loop.region(f"{name}.sending", LINE + SENDS * self._slot_bytes)
        self._sending.view[:NET_HEADER_BYTES] = PLAIN
        self._slots = list(range(SENDS))

    # --- frames that come -----------------------------------------------------------------------

    def plug(self, plugged: bool) -> None:
        """Whether this is where its frames are to go: another monitor may have the same card."""
        self._plugged = plugged
        self._listen()

    def _listen(self) -> None:
        """Have a call under way for each slot that nothing is in."""
        if not self._plugged:
            return
        idle, self._idle = self._idle, []
        for number, slot in enumerate(idle):
            if not self._receive(slot):
                self._idle += idle[number:]
                return

    def _receive(self, slot: int) -> bool:
        into = self._frames.lend(slot * self._room, self._room)
        return self.upstream.begin(
            lambda end: self._arrived(slot, end), self._ethernet.receive, into
        )

    def _again(self, slot: int) -> None:
        if slot >= 0 and not (self._plugged and self._receive(slot)):
            self._idle.append(slot)

    def _arrived(self, slot: int, end: int | Failure) -> None:
        if isinstance(end, Failure):
            if end is Failure.REFUSED:
                self.upstream.pause()
            self._again(slot)
            return
        self._keep(slot, min(end, self._room))
        if self.status & Status.DRIVER_OK:
            self.notify(NET_RECEIVEQ)
        else:
            self._forget()

    def _keep(self, slot: int, length: int) -> None:
        """Put what has come behind what waits, as frames that need no more done to them."""
        at = slot * self._room
        data = self._frames.view[at : at + length]
        if length < NET_HEADER_BYTES + ETHERNET:
            self._drop(slot)
        elif data[0] & ~NET_HDR_F_DATA_VALID or data[1]:
            try:
                frames = real(data[:NET_HEADER_BYTES], bytes(data[NET_HEADER_BYTES:]))
            except BadFrame:
                self._drop(slot)
                return
            self._came.extend(Frame(CAME + frame, -1) for frame in frames[:-1])
            self._came.append(Frame(CAME + frames[-1], slot))
        else:
            data[:NET_HEADER_BYTES] = CAME
            self._came.append(Frame(data, slot))

    def _drop(self, slot: int) -> None:
        self.dropped += 1
        self._again(slot)

    def _forget(self) -> None:
        """Nobody is there to receive."""
        came, self._came = self._came, deque()
        for frame in came:
            self._drop(frame.slot)

    def serve(self, index: int, queue: DeviceQueue) -> bool:
        if index != NET_RECEIVEQ:
            return super().serve(index, queue)
        for _ in range(queue.size):
            if not self._came or not queue.pending():
                break
            self._deliver(queue)
        # Buffers without frames are not work left, and nobody need ring for them.
        return bool(self._came) and not queue.listen()

    def _deliver(self, queue: DeviceQueue) -> None:
        chain = queue.take()
        if chain.readable:
            raise QueueFault("a receive buffer that is not to be written (§5.1.6.3)")
        if chain.refused:
            queue.give(chain, 0)
            return
        frame = self._came.popleft()
        if len(frame.data) <= chain.length:
            queue.give(chain, scatter(frame.data, chain.writable))
            self.received += 1
            self._again(frame.slot)
        else:
            queue.put_back()
            self._drop(frame.slot)

    # --- frames that go -------------------------------------------------------------------------

    def accept(self, ticket: Ticket) -> None:
        chain = ticket.chain
        if ticket.index != NET_TRANSMITQ or chain.writable:
            raise QueueFault("a frame to be sent, in a buffer to be written (§5.1.6.2)")
        if chain.refused:
            self._gone(ticket, False)
            return
        header, views = parts(chain.readable)
        try:
            checked(header, chain.length - NET_HEADER_BYTES, self.accepted, self.mtu)
        except BadFrame as bad:
            self.faults.record(f"a frame that is dropped: {bad}")
            self._gone(ticket, False)
            return
        self._outgoing.append(Outgoing(ticket, views))
        self._pump()

    def _pump(self) -> None:
        """Send what waits, as far as there is room; without a card it is gone."""
        while self._outgoing and self.under_way < SENDS:
            ticket, views = self._outgoing.popleft()
            if self.counts(ticket) and not self._transmit(ticket, views):
                self._gone(ticket, False)

    def _transmit(self, ticket: Ticket, views: list[memoryview]) -> bool:
        """Whether that could be begun."""
        spans, slot = self.ram.spans(views), -1
        if len(spans) == 1:
            payload = self.ram.region.show(*spans[0])
        else:
            slot = self._slots.pop()
            at, length = LINE + slot * self._slot_bytes, sum(map(len, views))
            self._sending.view[at : at + length] = b"".join(views)
            payload = self._sending.show(at, length)

        def done(end: Failure | None) -> None:
            self.under_way -= 1
            if slot >= 0:
                self._slots.append(slot)
            self._gone(ticket, end is None)
            self._pump()

        header = self._sending.show(0, NET_HEADER_BYTES)
        begun = self.upstream.begin(done, self._ethernet.transmit, header, payload)
        if not begun and slot >= 0:
            self._slots.append(slot)
        self.under_way += begun
        return begun

    def _gone(self, ticket: Ticket, sent: bool) -> None:
        self.sent += sent
        self.dropped += not sent
        self.finish(ticket, 0)

    # --- resets ---------------------------------------------------------------------------------

    def reset(self) -> None:
        self._outgoing.clear()
        super().reset()
        self._forget()


def _rounded(length: int) -> int:
    return -(-length // LINE) * LINE
