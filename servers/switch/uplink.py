"""uplink: the way out of the switch, by the driver of a network card, which may die at any time.

Calls for frames are kept under way; what goes out is copied into memory of our own, so its sender
waits for nothing. When the driver dies, its next life is asked for by way of the kernel, which
answers when there is one; what was to be sent meanwhile is lost, as on a cable pulled out.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ukernel.abi import network
from ukernel.abi.errors import Answer, CallError, DeadNotRun, DeadUnknown, Overload
from ukernel.abi.interface import Lent
from ukernel.abi.network import Card, Ethernet
from ukernel.abi.virtio import NET_HEADER_BYTES, NET_MOST_BYTES
from ukernel.lib.ring import Garbage
from ukernel.lib.stub import UnderWay, begin, by_kernel, connect
from ukernel.lib.virtio.offload import ETHERNET, PLAIN, BadFrame, real

if TYPE_CHECKING:
    from servers.switch.server import Switch

RECEIVES, SENDS = 16, 16  # calls under way: both fit into the driver's window
BACKLOG = 256  # frames that wait to be sent, then they are dropped
AGAIN_NS = 200_000_000  # until a driver that was stopped or refuses is asked again


class Uplink:
    """`came(frame)` takes what comes: whole frames, none longer than the card's MTU allows."""

    def __init__(self, switch: Switch, name: str, came: Callable[[bytes], None]) -> None:
        self._switch = switch
        self._came = came
        self._nic = connect(Ethernet, name, timeout_s=None)
        self._by_kernel = by_kernel(self._nic)
        self.card: Card = self._by_kernel.card()
        self._lay_out()
        self._era = 0  # counts the driver's lives: outcomes of an earlier one mean nothing
        self._backlog: deque[bytes] = deque()
        self._up()

    def _lay_out(self) -> None:
        frame = self.card.mtu + ETHERNET
        long = NET_MOST_BYTES if self.card.offloads & network.ACCEPT_LONG else frame
        self._room = -(-(NET_HEADER_BYTES + long) // 64) * 64
        self._slot = -(-(NET_HEADER_BYTES + frame) // 64) * 64
        self._inbox = self._switch.region("inbox", RECEIVES * self._room)
        self._outbox = self._switch.region("outbox", SENDS * self._slot)

    def _up(self) -> None:
        self._era += 1
        self.up = True
        self._refused: list[int] = []
        self._free = list(range(SENDS))
        for number in range(RECEIVES):
            self._receive(number)

    # --- what comes -----------------------------------------------------------------------------

    def _receive(self, number: int) -> None:
        at = number * self._room

        def done(call: UnderWay[int]) -> None:
            try:
                self._arrived(bytes(self._inbox.view[at : at + call.result()]))
            except (Answer, Overload):  # the driver does not want so many: later, perhaps
                self._refused.append(number)
                self._ask_later()
                return
            self._receive(number)

        if self.up:
            self._begin(done, self._nic.receive, self._inbox.lend(at, self._room))

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
        if self.up and self._free:
            self._transmit(frame, self._free.pop())
        elif self.up and len(self._backlog) < BACKLOG:
            self._backlog.append(frame)

    def _transmit(self, frame: bytes, number: int) -> None:
        at, length = number * self._slot, NET_HEADER_BYTES + len(frame)
        self._outbox.view[at : at + length] = PLAIN + frame

        def done(call: UnderWay[None]) -> None:
            with contextlib.suppress(Answer, Overload):  # then this frame is lost
                call.result()
            if self._backlog:
                self._transmit(self._backlog.popleft(), number)
            else:
                self._free.append(number)

        self._begin(done, self._nic.transmit, self._outbox.show(at, length), self._nothing)

    @property
    def _nothing(self) -> Lent:
        return self._outbox.show(0, 0)

    # --- when the driver dies -------------------------------------------------------------------

    def _begin(self, done: Callable[[UnderWay[Any]], None], method: Any, *args: Any) -> None:
        """Begin a call of the driver; `done` is told, unless it dies before."""
        era = self._era

        def told(call: UnderWay[Any]) -> None:
            if era != self._era:
                call.forget()
                return
            try:
                done(call)
            except (CallError, Garbage):
                self._lost()

        try:
            call = begin(method, *args)
        except (CallError, Garbage):
            self._lost()
        else:
            self._switch.when(call, told)

    def _lost(self) -> None:
        """The driver is dead: nothing that is under way means anything any more."""
        if self.up:
            self.up = False
            self._era += 1
            self._backlog.clear()
            self._ask()

    def _ask(self) -> None:
        """Ask for a driver: the kernel answers when there is one, or none to come."""
        self._switch.when(begin(self._by_kernel.card), self._found)

    def _ask_later(self) -> None:
        self._switch.alarm_ns = time.monotonic_ns() + AGAIN_NS

    def alarmed(self) -> None:
        """A while has passed."""
        if not self.up:
            self._ask()
            return
        refused, self._refused = self._refused, []
        for number in refused:
            self._receive(number)

    def _found(self, call: UnderWay[Card]) -> None:
        try:
            card = call.result()
        except (DeadNotRun, DeadUnknown):
            self._ask()
        except CallError:  # it was given up or stopped; somebody may start it again
            self._ask_later()
        else:
            if card != self.card:
                sys.exit(f"this is another card: {card}, and it was {self.card}")  # start anew
            self._up()
