"""port: the edge between the stack and the driver of the card.

Frames come by calls that are kept under way, and go by calls whose memory is ours until they are
answered. When the driver dies, all of them fail; its next life is asked for by way of the kernel,
which answers when there is one: then the port is up again, and the stack is told at once. What was
to be sent meanwhile is dropped, as on a cable that was pulled out: TCP sends it again.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, Protocol, TypeVar

from servers.net.host import Frame
from ukernel.abi import network, virtio
from ukernel.abi.errors import Answer, CallError, DeadNotRun, DeadUnknown, Overload
from ukernel.abi.interface import Lent
from ukernel.abi.network import Card, Ethernet
from ukernel.abi.virtio import NET_HEADER, NET_HEADER_BYTES
from ukernel.lib.memory import Region
from ukernel.lib.ring import Garbage
from ukernel.lib.stub import UnderWay, begin

R = TypeVar("R")
P = ParamSpec("P")

RECEIVES = 32  # calls under way for frames that come
SENDS = 24  # and for those that go: both fit into the driver's window
BACKLOG = 512  # frames that wait to be sent, then they are dropped
ETHERNET, IPV4 = 14, 20
CHECKSUM_AT = {6: 16, 17: 6}  # where TCP and UDP have it
PROTOCOL_AT = ETHERNET + 9
NO_OFFLOAD = NET_HEADER.pack(0, 0, 0, 0, 0, 0, 0)
VOUCHED = virtio.NET_HDR_F_NEEDS_CSUM | virtio.NET_HDR_F_DATA_VALID


class Loop(Protocol):
    """The server in whose loop this lives."""

    def region(self, name: str, size: int, *, persistent: bool = False) -> Region: ...
    def when(self, call: UnderWay[R], done: Callable[[UnderWay[R]], None]) -> None: ...


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
        self._loop = loop
        self._nic = nic
        self._by_kernel = nic_by_kernel
        self._rings = rings
        self._arrived = arrived
        self._restored = restored
        self.card: Card = nic_by_kernel.card()
        self.up = False
        self.wants_retry = False  # after a while
        self.lives = 0  # of the driver, after the first that was seen
        self.dropped = 0  # of what was to be sent
        self.begun = 0  # frames that were handed to the driver
        self._era = 0  # counts the driver's lives: outcomes of an earlier one mean nothing
        self._backlog: deque[tuple[int, Frame]] = deque()
        self._going: dict[int, None] = {}  # frames that the driver may still read, by number
        self._lay_out()

    @property
    def gone(self) -> int:
        """Frames up to this number will be read no more."""
        return next(iter(self._going), self.begun + 1) - 1

    def _lay_out(self) -> None:
        card = self.card
        self.longest = 65535 if card.offloads & network.ACCEPT_LONG else card.mtu
        self._room = -(-(NET_HEADER_BYTES + ETHERNET + self.longest) // 64) * 64
        self._head_room = -(-(NET_HEADER_BYTES + ETHERNET + card.mtu) // 64) * 64
        self._frames = self._loop.region("frames", RECEIVES * self._room)
        self._heads = self._loop.region("heads", SENDS * self._head_room)

    # --- what comes -----------------------------------------------------------------------------

    def start(self) -> None:
        """Let frames in and out."""
        self.up = True
        self._era += 1
        self._free = list(range(SENDS))
        self._idle = list(range(RECEIVES))
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
        era, at = self._era, number * self._room

        def done(call: UnderWay[int]) -> None:
            if era != self._era:
                call.forget()
            elif (length := self._outcome(call)) is not None:
                memory = self._frames.view[at : at + min(length, self._room)]
                if length >= NET_HEADER_BYTES:
                    self._arrived(memory[NET_HEADER_BYTES:], bool(memory[0] & VOUCHED))
                if era == self._era:
                    self._receive(number)
            elif self.up:  # the driver does not want so many: later, perhaps
                self._idle.append(number)
                self.wants_retry = True

        if self.up:
            self._begin(done, self._nic.receive, self._frames.lend(at, self._room))

    # --- what goes ------------------------------------------------------------------------------

    def send(self, frame: Frame) -> None:
        """Send a frame when its turn has come."""
        too_long = NET_HEADER_BYTES + len(frame.header) > self._head_room
        if not self.up or len(self._backlog) >= BACKLOG or too_long:
            self.dropped += 1
            return
        self.begun += 1
        self._going[self.begun] = None
        if self._free:
            self._transmit(self.begun, frame, self._free.pop())
        else:
            self._backlog.append((self.begun, frame))

    def _transmit(self, count: int, frame: Frame, number: int) -> None:
        era = self._era

        def done(call: UnderWay[None]) -> None:
            if era != self._era:
                call.forget()
                return
            del self._going[count]
            self._outcome(call)
            if era == self._era:
                self._next(number)

        self._begin(done, self._nic.transmit, *self._put(frame, number))

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

    def _next(self, number: int) -> None:
        """The memory of a frame that has gone is free."""
        if self._backlog:
            self._transmit(*self._backlog.popleft(), number)
        else:
            self._free.append(number)

    # --- when the driver dies -------------------------------------------------------------------

    def _begin(
        self,
        done: Callable[[UnderWay[R]], None],
        method: Callable[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        try:
            call = begin(method, *args, **kwargs)
        except CallError:
            self._lost()
        else:
            self._loop.when(call, done)

    def _outcome(self, call: UnderWay[R]) -> R | None:
        """What it brought; None when the driver refused, or is dead."""
        try:
            return call.result()
        except (Answer, Overload):
            self.dropped += 1
        except (CallError, Garbage):
            self._lost()
        return None

    def _lost(self) -> None:
        """The driver is dead: nothing that is under way means anything any more."""
        if self.up:
            self.up = False
            self._era += 1
            self.dropped += len(self._backlog)
            self._backlog.clear()
            self._going.clear()
            self._ask()

    def retry(self) -> None:
        """Ask again for what was refused, a while ago."""
        self.wants_retry = False
        if self.up:
            self._listen()
        else:
            self._ask()

    def _ask(self) -> None:
        """Ask for a driver: the kernel answers when there is one, or none to come."""
        self._loop.when(begin(self._by_kernel.card), self._found)

    def _found(self, call: UnderWay[Card]) -> None:
        try:
            card = call.result()
        except (DeadNotRun, DeadUnknown):
            self._ask()
        except CallError:  # it was given up or stopped; somebody may start it again
            self.wants_retry = True
        else:
            if card != self.card:
                sys.exit(f"this is another card: {card}, and it was {self.card}")  # start anew
            self.lives += 1
            self.start()
            self._restored()


def _offload(frame: Frame) -> bytes:
    """What the card is to do with this frame (virtio 1.2 §5.1.6.2)."""
    start = frame.unchecked
    if not start:
        return NO_OFFLOAD
    offset = CHECKSUM_AT[frame.header[PROTOCOL_AT]]
    kind = virtio.NET_GSO_TCPV4 if frame.gso else virtio.NET_GSO_NONE
    length = len(frame.header) if frame.gso else 0
    return NET_HEADER.pack(virtio.NET_HDR_F_NEEDS_CSUM, kind, length, frame.gso, start, offset, 0)
