"""port: the edge between the stack and the driver of the card.

Frames come by calls that are kept under way, and go by calls whose memory is ours until they are
answered. When the driver dies, all of them end; with its next life the port is up again, and the
stack is told at once. What was to be sent meanwhile is dropped, as on a cable that was pulled out:
TCP sends it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from servers.net.host import Frame
from ukernel.abi import network, virtio
from ukernel.abi.errors import Answer, CallError
from ukernel.abi.interface import Lent
from ukernel.abi.network import Card, Ethernet
from ukernel.abi.virtio import NET_HEADER, NET_HEADER_BYTES
from ukernel.lib.memory import Region
from ukernel.lib.upstream import Failure, Loop, Upstream

RECEIVES = 32  # calls under way for frames that come
SENDS = 24  # and for those that go: both fit into the driver's window
BACKLOG = 512  # frames that wait to be sent, then they are dropped
ETHERNET, IPV4 = 14, 20
CHECKSUM_AT = {6: 16, 17: 6}  # where TCP and UDP have it
PROTOCOL_AT = ETHERNET + 9
NO_OFFLOAD = NET_HEADER.pack(0, 0, 0, 0, 0, 0, 0)
VOUCHED = virtio.NET_HDR_F_NEEDS_CSUM | virtio.NET_HDR_F_DATA_VALID


class Port:
    """One card. `arrived(frame, vouched)` takes what comes, `restored()` is told of a new life."""

    def __init__(
        self,
        loop: Loop,
        nic: Ethernet,
        nic_by_kernel: Ethernet,
        rings: Region,
        arrived: Callable[[memoryview, bool], None],
        restored: Callable[[], None],
    ) -> None:
        self._nic = nic
        self._rings = rings
        self._arrived = arrived
        self._restored = restored
        self.card: Card = nic_by_kernel.card()
        self._upstream = Upstream(
            loop, nic_by_kernel.card, self._plugged_in, was=self.card, pauses=False
        )
        self.dropped = 0  # of what was to be sent
        self.begun = 0  # frames that were taken to be sent
        self._backlog: deque[tuple[int, Frame]] = deque()
        self._going: dict[int, None] = {}  # frames that the driver may still read, by number
        self._free = list(range(SENDS))
        self._idle = list(range(RECEIVES))  # that nothing is asked for, as it cannot be
        self._lay_out(loop)

    @property
    def up(self) -> bool:
        return self._upstream.up

    @property
    def lives(self) -> int:
        """Of the driver, after the first that was seen."""
        return self._upstream.deaths

    @property
    def gone(self) -> int:
        """Frames up to this number will be read no more."""
        return next(iter(self._going), self.begun + 1) - 1

    def _lay_out(self, loop: Loop) -> None:
        card = self.card
        self.longest = 65535 if card.offloads & network.ACCEPT_LONG else card.mtu
        self._room = -(-(NET_HEADER_BYTES + ETHERNET + self.longest) // 64) * 64
        self._head_room = -(-(NET_HEADER_BYTES + ETHERNET + card.mtu) // 64) * 64
        self._frames = loop.region("frames", RECEIVES * self._room)
        self._heads = loop.region("heads", SENDS * self._head_room)

    # --- what comes -----------------------------------------------------------------------------

    def start(self) -> None:
        """Let frames in and out."""
        self._listen()

    def drain(self, nic: Ethernet, last: Frame) -> None:
        """Wait for what an earlier life has sent, and then `last`: frames go in their order. `nic`
        is a stub with a deadline."""
        with suppress(Answer, CallError):  # with the driver, everything under way has died
            nic.transmit(*self._put(last, 0))

    def _listen(self) -> None:
        """Have a call under way for each piece of memory that has none."""
        idle, self._idle = self._idle, []
        for number in idle:
            self._receive(number)

    def _receive(self, number: int) -> None:
        at = number * self._room

        def done(end: int | Failure) -> None:
            if end is Failure.REFUSED:  # the driver does not want so many: later, perhaps
                self._idle.append(number)
                return
            if not isinstance(end, Failure) and end >= NET_HEADER_BYTES:
                memory = self._frames.view[at : at + min(end, self._room)]
                self._arrived(memory[NET_HEADER_BYTES:], bool(memory[0] & VOUCHED))
            self._receive(number)

        lent = self._frames.lend(at, self._room)
        if not self._upstream.begin(done, self._nic.receive, lent):
            self._idle.append(number)

    # --- what goes ------------------------------------------------------------------------------

    def send(self, frame: Frame) -> None:
        """Send a frame when its turn has come."""
        too_long = NET_HEADER_BYTES + len(frame.header) > self._head_room
        if not self.up or len(self._backlog) >= BACKLOG or too_long:
            self.dropped += 1
            return
        self.begun += 1
        self._going[self.begun] = None
        self._backlog.append((self.begun, frame))
        self._next()

    def _next(self) -> None:
        """Send what waits, as far as there is room; without a driver it is lost."""
        while self._backlog and self._free:
            self._transmit(*self._backlog.popleft(), self._free.pop())

    def _transmit(self, count: int, frame: Frame, number: int) -> None:
        def done(end: Failure | None) -> None:
            self._ended(count, number, end)
            self._next()

        if not self._upstream.begin(done, self._nic.transmit, *self._put(frame, number)):
            self._ended(count, number, Failure.CUT)

    def _ended(self, count: int, number: int, end: Failure | None) -> None:
        """The memory of a frame is free."""
        del self._going[count]
        self._free.append(number)
        self.dropped += end is not None

    def _put(self, frame: Frame, number: int) -> tuple[Lent, Lent]:
        """A frame in memory that can be lent: its header in the piece `number`, and its cargo."""
        at, view = number * self._head_room, self._heads.view
        start = at + NET_HEADER_BYTES
        end = start + len(frame.header)
        view[at:start] = _offload(frame)
        view[start:end] = frame.header
        offset, length = frame.cargo
        payload = self._rings.show(offset, length) if length else self._heads.show(at, 0)
        return self._heads.show(at, end - at), payload

    # --- when the driver dies, or refuses ---------------------------------------------------------

    def _plugged_in(self) -> None:
        self._listen()
        self._restored()

    @property
    def wants_retry(self) -> bool:
        """Whether `retry` is to be called after a while."""
        return self._upstream.wants_retry or (self.up and bool(self._idle))

    def retry(self) -> None:
        if self.up:
            self._listen()
        else:
            self._upstream.retry()


def _offload(frame: Frame) -> bytes:
    """What the card is to do with this frame (virtio 1.2 §5.1.6.2)."""
    start = frame.unchecked
    if not start:
        return NO_OFFLOAD
    offset = CHECKSUM_AT[frame.header[PROTOCOL_AT]]
    kind = virtio.NET_GSO_TCPV4 if frame.gso else virtio.NET_GSO_NONE
    length = len(frame.header) if frame.gso else 0
    return NET_HEADER.pack(virtio.NET_HDR_F_NEEDS_CSUM, kind, length, frame.gso, start, offset, 0)
