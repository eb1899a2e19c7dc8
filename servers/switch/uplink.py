"""uplink: the way out of the switch, by the driver of a network card, which may die at any time.

Calls for frames are kept under way; what goes out is copied into memory of our own, so its sender
waits for nothing. While there is no driver, what was to be sent is lost, as on a cable pulled out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ukernel.abi import network
from ukernel.abi.network import Card, Ethernet
from ukernel.abi.virtio import NET_HEADER_BYTES, NET_MOST_BYTES
from ukernel.lib.stub import by_kernel, connect
from ukernel.lib.upstream import Failure, Loop, Upstream
from ukernel.lib.virtio.offload import ETHERNET, PLAIN, BadFrame, real

RECEIVES, SENDS = 16, 16  # calls under way: both fit into the driver's window
BACKLOG = 256  # frames that wait to be sent, then they are dropped


class Uplink:
    """`came(frame)` takes what comes: whole frames, none longer than the card's MTU allows."""

    def __init__(self, loop: Loop, name: str, came: Callable[[bytes], None]) -> None:
        self._came = came
        self._nic = connect(Ethernet, name, timeout_s=None)
        ask = by_kernel(self._nic).card
        self.card: Card = ask()
        self._upstream = Upstream(loop, ask, self._listen, was=self.card, pauses=False)
        self._lay_out(loop)
        self._backlog: deque[bytes] = deque()
        self._free = list(range(SENDS))
        self._idle = list(range(RECEIVES))  # that nothing is asked for, as it cannot be
        self._listen()

    def _lay_out(self, loop: Loop) -> None:
        frame = self.card.mtu + ETHERNET
        long = NET_MOST_BYTES if self.card.offloads & network.ACCEPT_LONG else frame
        self._room = -(-(NET_HEADER_BYTES + long) // 64) * 64
        self._slot = -(-(NET_HEADER_BYTES + frame) // 64) * 64
        self._inbox = loop.region("inbox", RECEIVES * self._room)
        self._outbox = loop.region("outbox", SENDS * self._slot)

    # --- what comes -----------------------------------------------------------------------------

    def _listen(self) -> None:
        idle, self._idle = self._idle, []
        for number in idle:
            self._receive(number)

    def _receive(self, number: int) -> None:
        at = number * self._room

        def done(end: int | Failure) -> None:
            if end is Failure.REFUSED:  # the driver does not want so many: later, perhaps
                self._idle.append(number)
                return
            if not isinstance(end, Failure):
                self._arrived(bytes(self._inbox.view[at : at + end]))
            self._receive(number)

        if not self._upstream.begin(done, self._nic.receive, self._inbox.lend(at, self._room)):
            self._idle.append(number)

    def _arrived(self, whole: bytes) -> None:
        """Nobody here completes checksums or cuts segments but us."""
        try:
            frames = real(whole[:NET_HEADER_BYTES], whole[NET_HEADER_BYTES:])
        except BadFrame:
            return
        for frame in frames:
            if ETHERNET <= len(frame) <= self.card.mtu + ETHERNET:
                self._came(bytes(frame))

    # --- what goes ------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        if self._upstream.up and len(self._backlog) < BACKLOG:
            self._backlog.append(frame)
            self._go_on()

    def _go_on(self) -> None:
        """Send what waits, as far as there is room; without a driver it is lost."""
        while self._backlog and self._free:
            self._transmit(self._backlog.popleft(), self._free.pop())

    def _transmit(self, frame: bytes, number: int) -> None:
        at, length = number * self._slot, NET_HEADER_BYTES + len(frame)
        self._outbox.view[at : at + length] = PLAIN + frame

        def done(_: Failure | None) -> None:
            self._free.append(number)
            self._go_on()

        whole, nothing = self._outbox.show(at, length), self._outbox.show(0, 0)
        if not self._upstream.begin(done, self._nic.transmit, whole, nothing):
            self._free.append(number)

    # --- when the driver refuses, or is gone ------------------------------------------------------

    @property
    def wants_retry(self) -> bool:
        """Whether `retry` is to be called after a while."""
        upstream = self._upstream
        return upstream.wants_retry or (upstream.up and bool(self._idle))

    def retry(self) -> None:
        if self._upstream.up:
            self._listen()
        else:
            self._upstream.retry()
