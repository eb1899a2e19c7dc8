"""inbox: frames that wait for a card, as whoever is at the other end of its cable keeps them."""

from __future__ import annotations

from collections import deque

from ukernel.abi.virtio import NET_HEADER_BYTES
from ukernel.lib.virtio.cable import NONE
from ukernel.lib.virtio.offload import CAME, BadFrame, Frame, real, suits
from ukernel.lib.virtio.queue import Views, scatter

ROOM = 256  # frames that wait for a card

NUMBER = NET_HEADER_BYTES - 2  # where a header says of how many buffers a frame is
ONE = CAME[NUMBER:]


class Inbox:
    """Frames that wait for a card, at most ROOM from outside: header and frame in one."""

    def __init__(self) -> None:
        self.accepted = 0
        self.dropped = 0
        self._frames: deque[Frame] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: bytes) -> None:
        if len(self._frames) < ROOM:
            self._frames.append(frame)
        else:
            self.dropped += 1

    def put_real(self, header: Frame, frame: Frame) -> None:
        """A frame that the driver would not understand: what it understands instead, next."""
        try:
            pieces = real(header, frame)
        except BadFrame:
            self.dropped += 1
            return
        self._frames.extendleft(CAME + piece for piece in reversed(pieces))

    def take(self, into: Views) -> int:
        """As `Cable.receive`."""
        while self._frames:
            frame = self._frames.popleft()
            if (frame[0] or frame[1]) and not suits(frame[0], frame[1], self.accepted):
                self.put_real(frame[:NET_HEADER_BYTES], frame[NET_HEADER_BYTES:])
                continue
            length = len(frame)
            if length <= len(into[0]):  # as most drivers cut it
                into[0][:length] = frame
                return length
            if length <= sum(map(len, into)):
                return scatter(memoryview(frame), into)
            self.dropped += 1
        return NONE
