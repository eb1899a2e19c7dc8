"""net: virtio-net (virtio 1.2 §5.1), one pair of queues, no merged buffers, no control queue.

What is said in a frame is its sender's, who is mostly a client of the driver: a wrong header is
told of and its frame dropped, and so is a frame whose memory its owner has taken back. A receive
buffer that was taken back is returned empty, and the frame goes into the next one. While there is
no buffer, frames wait in the cable, and nobody looks at them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ukernel.abi import virtio
from ukernel.abi.virtio import NET_HEADER_BYTES, NET_RECEIVEQ, DeviceId, NetConfig, Reg, Status
from ukernel.lib.virtio.cable import NONE, Cable, Stage
from ukernel.lib.virtio.dma import Domain
from ukernel.lib.virtio.offload import BadFrame, checked
from ukernel.lib.virtio.queue import Chain, DeviceQueue, QueueFault, Views, split
from ukernel.lib.virtio.transport import VirtioMmio

QUEUE_SIZE = 256
TURN = 64  # frames that come, before other devices get their turn
ALWAYS = virtio.NET_F_MAC | virtio.NET_F_MTU | virtio.NET_F_STATUS
OFFLOADS = (
    virtio.NET_F_CSUM | virtio.NET_F_GUEST_CSUM | virtio.NET_F_HOST_TSO4 | virtio.NET_F_GUEST_TSO4
)
NEEDS = {  # §5.1.3.1
    virtio.NET_F_HOST_TSO4: virtio.NET_F_CSUM,
    virtio.NET_F_GUEST_TSO4: virtio.NET_F_GUEST_CSUM,
}


class Net(VirtioMmio):
    """A network card. `look_again` asks the bus for the turn that `backlog` stands for.

    `cable` is what the card is plugged into; `capture` and `trouble` are stages before it, the
    first nearer to the card.
    """

    device_id = DeviceId.NETWORK
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE)
    has_status = True  # in so far as a frame may be dropped, and a buffer come back empty

    def __init__(
        self,
        name: str,
        domain: Domain,
        interrupt: Callable[[], None],
        cable: Cable,
        mac: bytes,
        mtu: int = 1500,
        offload: bool = True,
    ) -> None:
        self.cable = cable
        self.mac, self.mtu = mac, mtu
        self.look_again: Callable[[], None] = lambda: None
        self.sent = self.received = self.refused = 0  # frames
        self.bytes_sent = self.bytes_received = 0
        self._capture: Stage | None = None
        self._trouble: Stage | None = None
        self._listens = self._looked = False
        self._link()
        super().__init__(name, domain, interrupt)
        self.features |= ALWAYS | (OFFLOADS if offload else 0)
        self.config_space = NetConfig(mac, mtu=mtu).pack()

    # --- what stands before the cable -----------------------------------------------------------

    @property
    def capture(self) -> Stage | None:
        """Who sees all frames as the driver does."""
        return self._capture

    @capture.setter
    def capture(self, stage: Stage | None) -> None:
        self._capture = stage
        self._link()

    @property
    def trouble(self) -> Stage | None:
        """Who loses and spoils some of them."""
        return self._trouble

    @trouble.setter
    def trouble(self, stage: Stage | None) -> None:
        self._trouble = stage
        self._link()

    def _link(self) -> None:
        near = self.cable
        for stage in (self._trouble, self._capture):
            if stage is not None:
                stage.plug(near)
                near = stage
        self._near = near
        near.arrived = self._arrived
        near.accept(self._taken())
        near.listen(self._listens)

    def _taken(self) -> int:
        running = getattr(self, "status", 0) & Status.DRIVER_OK
        return self.accepted if running else 0

    # --- the driver -----------------------------------------------------------------------------

    def reset(self) -> None:
        super().reset()
        self._listen(False)
        self._near.accept(0)

    def store(self, offset: int, value: int) -> None:
        super().store(offset, value)
        if offset == Reg.STATUS and self.status & Status.DRIVER_OK:
            self._near.accept(self.accepted)

    def restore_model(self, state: Any) -> None:
        self._near.accept(self._taken())

    def _features_agreed(self) -> bool:
        complete = all(
            self.accepted & needed for feature, needed in NEEDS.items() if self.accepted & feature
        )
        return complete and super()._features_agreed()

    def _fail(self) -> None:
        super()._fail()
        self._listen(False)

    def serve(self, index: int, queue: DeviceQueue) -> bool:
        if index == NET_RECEIVEQ:
            return self._receive(queue)
        try:
            for chain in self.requests(queue):
                self._transmit(chain)
                queue.give(chain, 0)
        finally:
            self._near.flush()
        return not queue.listen()

    def _transmit(self, chain: Chain) -> None:
        if chain.writable:
            raise QueueFault("a frame to be sent, in a buffer to be written (§5.1.6.2)")
        if chain.refused:
            self.refused += 1
            return
        header, frame = parts(chain.readable)
        length = chain.length - NET_HEADER_BYTES
        try:
            header = checked(header, length, self.accepted, self.mtu)
        except BadFrame as bad:
            self.refused += 1
            self.faults.record(f"a frame that is dropped: {bad}")
            return
        self.sent += 1
        self.bytes_sent += length
        self._near.send(header, frame)

    # --- frames that come -----------------------------------------------------------------------

    def _arrived(self) -> None:
        """The cable may have something."""
        self._looked = False
        self.notify(NET_RECEIVEQ)
        if not self._looked:  # nobody is there to receive
            self._listen(False)
        if self.backlog:
            self.look_again()

    def _receive(self, queue: DeviceQueue) -> bool:
        self._looked = True
        receive = self._near.receive
        for _ in range(TURN):
            if not queue.pending() and queue.listen():
                self._listen(False)
                return False
            chain = queue.take()
            if chain.readable:
                raise QueueFault("a receive buffer that is not to be written (§5.1.6.3)")
            if chain.refused:
                queue.give(chain, 0)
                continue
            length = receive(chain.writable)
            if length == NONE:
                queue.put_back()
                self._listen(True)
                return False
            self.received += 1
            self.bytes_received += length - NET_HEADER_BYTES
            queue.give(chain, length)
        return True

    def _listen(self, wanted: bool) -> None:
        self._listens = wanted
        self._near.listen(wanted)

    def drops(self) -> int:
        """Frames that were dropped here and in the cable."""
        return self.refused + self._near.drops()


def parts(readable: Views) -> tuple[bytes, Views]:
    """The header, read once, and the frame, however they are cut into buffers (§2.7.4)."""
    first = readable[0]
    if len(first) > NET_HEADER_BYTES:
        return bytes(first[:NET_HEADER_BYTES]), [first[NET_HEADER_BYTES:], *readable[1:]]
    head, rest = split(readable, NET_HEADER_BYTES)
    return b"".join(head).ljust(NET_HEADER_BYTES, b"\0"), rest
