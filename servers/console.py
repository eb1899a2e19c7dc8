"""console: the driver of the terminal line (virtio 1.2 §5.3)."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ukernel.abi import virtio
from ukernel.abi.services import Console
from ukernel.lib import virtqueue
from ukernel.lib.driver import Driver
from ukernel.lib.virtqueue import Segment, Virtqueue
from ukernel.lib.way import Pending

BUFFERS = 16
SIZE = 1024  # bytes of a buffer
MOST = 4096  # bytes of one write


class Output(NamedTuple):
    """A write on its way to the device; the last of its pieces answers it."""

    buffer: int
    pending: Pending[int] | None
    length: int


class ConsoleDriver(Driver, Console):
    def setup(self) -> None:
        self.dev = self.device()
        features = virtqueue.negotiate(self.dev, virtio.F_EVENT_IDX)
        self.input: Virtqueue[int] = Virtqueue(self.dev, virtio.CONSOLE_RECEIVEQ, BUFFERS, features)
        self.output: Virtqueue[Output] = Virtqueue(
            self.dev, virtio.CONSOLE_TRANSMITQ, BUFFERS, features
        )
        self.pool = self.dev.dma(2 * BUFFERS * SIZE)
        self.free = list(range(BUFFERS, 2 * BUFFERS))
        self.typed = bytearray()
        self.readers: deque[tuple[Pending[bytes], int]] = deque()
        self.writers: deque[tuple[Pending[int], bytes]] = deque()
        for buffer in range(self.input.size):
            self._listen(buffer)
        self.bring_up(self.dev, self.output, buffers=[self.input])

    def write(self, data: bytes) -> int:
        if not data:
            return 0
        pending: Pending[int] = self.pending()
        self.writers.append((pending, data[:MOST]))
        self._transmit()
        return pending.later

    def read(self, most: int) -> bytes:
        self.take()  # nobody waited: an interrupt that was lost is not missed before now
        if self.typed or not most:
            return self._take(most)
        pending: Pending[bytes] = self.pending()
        self.readers.append((pending, most))
        self.look_soon()
        return pending.later

    def _take(self, most: int) -> bytes:
        data = bytes(self.typed[:most])
        del self.typed[:most]
        return data

    def _listen(self, buffer: int) -> None:
        self.input.submit([Segment(self.pool.iova + buffer * SIZE, SIZE, True)], buffer)

    def _transmit(self) -> None:
        """Hand over as many waiting writes as there are buffers; the others wait their turn."""
        while self.writers and -(-len(self.writers[0][1]) // SIZE) <= len(self.free):
            pending, data = self.writers.popleft()
            for at in range(0, len(data), SIZE):
                piece = data[at : at + SIZE]
                last = at + SIZE >= len(data)
                self._send(piece, Output(self.free.pop(), pending if last else None, len(data)))
            self.look_soon()

    def _send(self, piece: bytes, output: Output) -> None:
        at = output.buffer * SIZE
        self.pool.view[at : at + len(piece)] = piece
        self.output.submit([Segment(self.pool.iova + at, len(piece), False)], output)

    def expecting(self) -> bool:
        """Buffers for input may lie with the device for ever, but not while somebody waits."""
        return bool(self.readers) or super().expecting()

    def take(self) -> int:
        done = self._sent() + self._received()
        self._transmit()
        while self.typed and self.readers:
            pending, most = self.readers.popleft()
            pending.answer(self._take(most))
        return done

    def _sent(self) -> int:
        done = 0
        for output, _ in self.output.completed():
            done += 1
            self.free.append(output.buffer)
            if output.pending is not None:
                output.pending.answer(output.length)
        return done

    def _received(self) -> int:
        done = 0
        for buffer, written in self.input.completed():
            done += 1
            self.typed += self.pool.view[buffer * SIZE : buffer * SIZE + written]
            self._listen(buffer)
        return done


if __name__ == "__main__":
    ConsoleDriver.run()
