"""nic: the cable of a virtual machine that QEMU runs, into a card that is another server's: a port
of a switch, or a real one.

Frames that come are put into memory of the monitor by calls that are kept under way, and from there
into the socket: while it is full they wait, and the card is not asked for more. While all room for
what goes is taken, nothing is read from the socket. A death of the server below is a cable that was
pulled out for a while. There are no offloads: what comes with one is made plain here, and QEMU has
none on such a cable.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from servers.vmm.qemu.frames import BadLength, Frames, framed
from servers.vmm.qemu.stream import Bytes, Host, Stream
from ukernel.abi import network
from ukernel.abi.network import Card, Ethernet
from ukernel.abi.virtio import NET_HDR_F_DATA_VALID, NET_HEADER_BYTES, NET_MOST_BYTES
from ukernel.lib.upstream import Failure, Upstream
from ukernel.lib.virtio.offload import ETHERNET, PLAIN, BadFrame, real

RECEIVES = 8  # calls under way for frames that come
SENDS = 16  # and for those that go
LINE = 64  # bytes that a slot is rounded up to


class NicWire:
    """A cable from who is at the other end of `sock` into `ethernet`.

    `ethernet_by_kernel` is the same as `ethernet`, without a channel. `closed` is called, once for
    each end, with the reason why it is no more; not after `close`.
    """

    def __init__(
        self,
        loop: Host,
        sock: socket.socket,
        name: str,
        ethernet: Ethernet,
        ethernet_by_kernel: Ethernet,
        card: Card,
        closed: Callable[[str], None],
        plugged: bool = True,
    ) -> None:
        self.upstream = Upstream(loop, ethernet_by_kernel.card, self._listen, was=card)
        self.mac, self.mtu = card.mac, card.mtu
        self.sent = self.received = self.dropped = 0  # frames
        self._loop = loop
        self._ethernet = ethernet
        self._closed = closed
        longest = NET_MOST_BYTES if card.offloads & network.ACCEPT_LONG else ETHERNET + card.mtu
        self._room = _rounded(NET_HEADER_BYTES + longest)
        self._frames = loop.region(f"{name}.frames", RECEIVES * self._room)
        self._free = list(range(RECEIVES))
        self._slot_bytes = _rounded(ETHERNET + card.mtu)
        self._sending = loop.region(f"{name}.sending", LINE + SENDS * self._slot_bytes)
        self._sending.view[:NET_HEADER_BYTES] = PLAIN  # the same for all
        self._slots = list(range(SENDS))
        self._plugged = plugged
        self.open(sock)

    def open(self, sock: socket.socket) -> None:
        """Serve another end, after `close` or `closed`."""
        self._came = Frames()
        self._stream = Stream(self._loop, sock, self._read, self._gone)
        self._listen()

    @property
    def idle(self) -> bool:
        """No frame is being sent."""
        return len(self._slots) == SENDS

    def plug(self, plugged: bool) -> None:
        """Whether this is where its frames are to go: another monitor may have the same card."""
        self._plugged = plugged
        self._listen()

    def close(self) -> None:
        """Hang up."""
        self._stream.close()

    def _gone(self, why: str) -> None:
        self._stream.close()
        self._closed(why)

    # --- frames that come -----------------------------------------------------------------------

    def _listen(self) -> None:
        """Have a call under way for each slot that nothing is in."""
        free, self._free = self._free, []
        for slot in free:
            self._again(slot)

    def _again(self, slot: int) -> None:
        wanted = self._plugged and not self._stream.closed
        if not (wanted and self._receive(slot)):
            self._free.append(slot)

    def _receive(self, slot: int) -> bool:
        into = self._frames.lend(slot * self._room, self._room)
        return self.upstream.begin(
            lambda end: self._arrived(slot, end), self._ethernet.receive, into
        )

    def _arrived(self, slot: int, end: int | Failure) -> None:
        if end is Failure.REFUSED:
            self.upstream.pause()
        if isinstance(end, Failure):
            self._again(slot)
            return
        frames = self._plain(slot, min(end, self._room))
        if not frames or self._stream.closed:
            self.dropped += 1
            self._again(slot)
            return
        pieces = [piece for frame in frames for piece in (framed(len(frame)), frame)]
        self.received += len(frames)
        self._stream.send(*pieces, sent=lambda: self._again(slot))

    def _plain(self, slot: int, length: int) -> list[Bytes]:
        """What has come, as frames that need no more done to them; none when it is none."""
        at = slot * self._room
        data = self._frames.view[at : at + length]
        header, frame = data[:NET_HEADER_BYTES], data[NET_HEADER_BYTES:]
        if len(frame) < ETHERNET:
            return []
        if not (header[0] & ~NET_HDR_F_DATA_VALID or header[1]):
            return [frame]
        try:
            return [*real(header, bytes(frame))]
        except BadFrame:
            return []

    # --- frames that go -------------------------------------------------------------------------

    def _read(self, data: memoryview) -> None:
        self._came.feed(data)
        self._pump()

    def _pump(self) -> None:
        """Send what has come, as far as there is room, and read on when it is used up."""
        if self._stream.closed:
            return
        try:
            self._stream.listen(self._take())
        except BadLength as bad:
            self._gone(f"it has broken the protocol: {bad}")

    def _take(self) -> bool:
        """Whether more has to come first. Raises BadLength."""
        while self._slots:
            frame = self._came.take()
            if frame is None:
                return True
            if not (ETHERNET <= len(frame) <= ETHERNET + self.mtu and self._transmit(frame)):
                self.dropped += 1
        return False

    def _transmit(self, frame: bytes) -> bool:
        """Whether that could be begun; without a card it is gone."""
        slot = self._slots.pop()
        at = LINE + slot * self._slot_bytes
        self._sending.view[at : at + len(frame)] = frame

        def done(end: Failure | None) -> None:
            self._slots.append(slot)
            self.sent += end is None
            self.dropped += end is not None
            self._pump()

        header, payload = (
            self._sending.show(0, NET_HEADER_BYTES),
            self._sending.show(at, len(frame)),
        )
        begun = self.upstream.begin(done, self._ethernet.transmit, header, payload)
        if not begun:
            self._slots.append(slot)
        return begun


def _rounded(length: int) -> int:
    return -(-length // LINE) * LINE
