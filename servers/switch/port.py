"""port: what is plugged into the switch: a card, for whoever has the capability with its badge.

A frame is copied out of its sender's memory once, then checked, then copied to who waits for it:
nobody's memory is read twice, and nobody sees another's. Without a call that waits, some frames are
kept: so many bytes from each port, so a flood from one does not drown the others.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from ukernel.abi.errors import DeadlinePassed, Overload, Protocol
from ukernel.abi.interface import Lent
from ukernel.abi.network import Card, Ethernet, TooLong
from ukernel.abi.virtio import NET_HEADER_BYTES
from ukernel.lib.virtio.offload import CAME, ETHERNET, BadFrame, checked
from ukernel.lib.way import Pending

if TYPE_CHECKING:
    from servers.switch.server import Switch

KEPT = 128 << 10  # bytes of frames from each other port that wait for a call


class Reader(NamedTuple):
    """Who waits for a frame, and the memory where it is to be put."""

    pending: Pending[int]
    client: int
    view: memoryview


class Port(Ethernet):
    """A card whose cable leads to the switch. It completes no checksums and cuts no segments."""

    def __init__(self, switch: Switch, number: int, card: Card) -> None:
        self._switch = switch
        self.number = number
        self._card = card
        self._readers: deque[Reader] = deque()
        self._kept: deque[tuple[int, bytes]] = deque()  # source, frame
        self._kept_from: Counter[int] = Counter()
        self.dropped = 0

    def card(self) -> Card:
        return self._card

    # --- from its holder ------------------------------------------------------------------------

    def transmit(self, header: Lent, payload: Lent) -> None:
        """Answered at once: what cannot be delivered is dropped."""
        if header.length < NET_HEADER_BYTES:
            raise Protocol(f"a header of {header.length} bytes, at least {NET_HEADER_BYTES}")
        length = header.length - NET_HEADER_BYTES + payload.length
        if length > self._card.mtu + ETHERNET:
            raise TooLong(f"a frame of {length} bytes, at most {self._card.mtu + ETHERNET}")
        head = bytes(self._switch.memory(header))
        data = bytes(self._switch.memory(payload)) if payload.length else b""
        try:
            checked(head[:NET_HEADER_BYTES], length, 0, self._card.mtu)
        except BadFrame as error:
            raise Protocol(str(error)) from None
        self._switch.carry(self.number, head[NET_HEADER_BYTES:] + data)

    def receive(self, into: Lent) -> int:
        view, client = self._switch.memory(into, write=True), self._switch.caller.client
        self._have_one_holder(client)
        if len(self._readers) >= self._switch.most_readers():
            raise Overload("so many calls wait for frames at this port")
        pending: Pending[int] = self._switch.pending()
        self._readers.append(Reader(pending, client, view))
        self._hand_out()
        return pending.later

    def _have_one_holder(self, client: int) -> None:
        """Frames go to the last one who asked: the others are its earlier lives, mostly."""
        others = [reader for reader in self._readers if reader.client != client]
        if others:
            self._readers = deque(reader for reader in self._readers if reader.client == client)
            for reader in others:
                reader.pending.fail(Overload("somebody else listens at this port now"))

    # --- to its holder --------------------------------------------------------------------------

    def put(self, source: int, frame: bytes) -> None:
        """A frame that came in at port `source` is for this one."""
        if self._kept_from[source] + len(frame) > KEPT:
            self.dropped += 1
            return
        self._kept.append((source, frame))
        self._kept_from[source] += len(frame)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give frames to who waits for them, as far as there are both."""
        while self._kept and self._readers:
            if not self._readers[0].pending.wanted:
                pending = self._readers.popleft().pending
                pending.fail(DeadlinePassed("no frame has come in time"))
                continue
            source, frame = self._kept.popleft()
            self._kept_from[source] -= len(frame)
            length = NET_HEADER_BYTES + len(frame)
            if length > len(self._readers[0].view):
                self.dropped += 1
                continue
            pending, _, view = self._readers.popleft()
            view[:NET_HEADER_BYTES] = CAME
            view[NET_HEADER_BYTES:length] = frame
            pending.answer(length)
