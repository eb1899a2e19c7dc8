"""nic: the driver of a network card (virtio 1.2 §5.1). It keeps nothing: a restart is a reset.

What is sent goes from the client's memory to the device without passing here. What comes lies in
the driver's own buffers until a client asks for it, so a client may die while a frame arrives, and
its next life gets what came in between. A buffer goes back to the device when it is empty: who is
slow leaves no buffers, and the device keeps the rest.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ukernel.abi import network, virtio
from ukernel.abi.errors import DeadlinePassed, Overload, Protocol
from ukernel.abi.interface import Lent
from ukernel.abi.network import Card, Ethernet, TooLong
from ukernel.abi.virtio import NET_HEADER_BYTES, NetConfig
from ukernel.lib import virtqueue
from ukernel.lib.driver import Driver
from ukernel.lib.virtqueue import Segment, Virtqueue
from ukernel.lib.way import Pending

QUEUE = 256
POOL = 4 << 20  # bytes for frames that come
ETHERNET = 14  # bytes before what the MTU counts
OFFLOADS = {
    virtio.NET_F_CSUM: network.OFFLOAD_CHECKSUM,
    virtio.NET_F_HOST_TSO4: network.OFFLOAD_SEGMENT,
    virtio.NET_F_GUEST_CSUM: network.ACCEPT_UNCHECKED,
    virtio.NET_F_GUEST_TSO4: network.ACCEPT_LONG,
}
WANTED = virtio.F_EVENT_IDX | virtio.NET_F_MAC | virtio.NET_F_MTU | sum(OFFLOADS)


class Arrived(NamedTuple):
    """A frame in one of the driver's buffers."""

    buffer: int
    length: int


class Reader(NamedTuple):
    """Who waits for a frame, and the memory where it is to be put."""

    pending: Pending[int]
    client: int
    view: memoryview


class Outgoing(NamedTuple):
    """A frame that waits for room in the queue."""

    pending: Pending[None]
    chain: list[Segment]


class Nic(Driver, Ethernet):
    def setup(self) -> None:
        self.dev = self.device()
        features = virtqueue.negotiate(self.dev, WANTED)
        config = NetConfig.unpack(self.dev.config(0, virtio.NET_CONFIG_BYTES))
        self.offloads = sum(ours for theirs, ours in OFFLOADS.items() if features & theirs)
        self.mac, self.mtu = config.mac, config.mtu
        self.sending: Virtqueue[Pending[None]] = Virtqueue(
            self.dev, virtio.NET_TRANSMITQ, QUEUE, features
        )
        self.waiting: deque[Outgoing] = deque()
        self.readers: deque[Reader] = deque()
        self.arrived: deque[Arrived] = deque()
        self._lay_out_buffers(features)
        self.bring_up(self.dev, self.sending, buffers=[self.coming])

    def _lay_out_buffers(self, features: int) -> None:
        long = self.offloads & network.ACCEPT_LONG
        frame = virtio.NET_MOST_BYTES if long else self.mtu + ETHERNET
        self.size = -(-(NET_HEADER_BYTES + frame) // 64) * 64
        count = 1 << min(QUEUE, POOL // self.size).bit_length() - 1
        self.coming: Virtqueue[int] = Virtqueue(self.dev, virtio.NET_RECEIVEQ, count, features)
        self.pool = self.dev.dma(self.coming.size * self.size)
        for buffer in range(self.coming.size):
            self._listen(buffer)

    def _listen(self, buffer: int) -> None:
        self.coming.submit([Segment(self.pool.iova + buffer * self.size, self.size, True)], buffer)

    def card(self) -> Card:
        return Card(self.mac, self.mtu, self.offloads)

    def transmit(self, header: Lent, payload: Lent) -> None:
        if header.length < NET_HEADER_BYTES:
            raise Protocol(f"a header of {header.length} bytes, at least {NET_HEADER_BYTES}")
        length = header.length + payload.length
        long = virtio.NET_MOST_BYTES if self.offloads & network.OFFLOAD_SEGMENT else 0
        if not NET_HEADER_BYTES < length <= NET_HEADER_BYTES + max(long, self.mtu + ETHERNET):
            raise TooLong(f"a frame of {length} bytes with its header")
        chain = [Segment(self.dev.address(header), header.length, False)]
        if payload.length:
            chain.append(Segment(self.dev.address(payload), payload.length, False))
        pending: Pending[None] = self.pending()
        self.waiting.append(Outgoing(pending, chain))
        self._submit()
        return pending.later

    def _submit(self) -> None:
        while self.waiting and self.sending.room >= len(self.waiting[0].chain):
            pending, chain = self.waiting.popleft()
            self.sending.submit(chain, pending)
            self.look_soon()

    def receive(self, into: Lent) -> int:
        view = self.memory(into, write=True)
        most = self.connection.info.window // 2
        if len(self.readers) >= most:
            self._drop_strangers(self.caller.client)
            if len(self.readers) >= most:
                raise Overload("so many calls wait for frames that none could be sent any more")
        pending: Pending[int] = self.pending()
        self.readers.append(Reader(pending, self.caller.client, view))
        self.look_soon()
        self._hand_out()
        return pending.later

    def _drop_strangers(self, client: int) -> None:
        """Only this one waits for frames from now on: the others are its earlier lives, mostly."""
        strangers = [reader for reader in self.readers if reader.client != client]
        self.readers = deque(reader for reader in self.readers if reader.client == client)
        for reader in strangers:
            reader.pending.fail(Overload("somebody else waits for so many frames"))

    def expecting(self) -> bool:
        """Buffers may lie with the device for ever, but not unlooked at while somebody waits."""
        return bool(self.readers) or super().expecting()

    def take(self) -> int:
        done = 0
        for pending, _ in self.sending.completed():
            done += 1
            pending.answer(None)
        for buffer, length in self.coming.completed():
            done += 1
            if length:
                self.arrived.append(Arrived(buffer, length))
            else:
                self._listen(buffer)
        self._submit()
        self._hand_out()
        return done

    def _hand_out(self) -> None:
        """Give frames to who waits for them, as far as there are both."""
        while self.arrived and self.readers:
            if not self.readers[0].pending.wanted:
                self.readers.popleft().pending.fail(DeadlinePassed("no frame has come in time"))
                continue
            buffer, length = self.arrived.popleft()
            if length <= len(self.readers[0].view):
                pending, _, view = self.readers.popleft()
                start = buffer * self.size
                view[:length] = self.pool.view[start : start + length]
                pending.answer(length)
            self._listen(buffer)


if __name__ == "__main__":
    Nic.run()
