"""rng: the driver of the entropy device (virtio 1.2 §5.4)."""

from __future__ import annotations

from typing import Any, NamedTuple

from ukernel.abi import virtio
from ukernel.abi.services import DeviceFailed, Entropy
from ukernel.lib import virtqueue
from ukernel.lib.driver import Driver
from ukernel.lib.virtqueue import Segment, Virtqueue
from ukernel.lib.way import Pending

MOST = 4096  # bytes of one request
BUFFERS = 8


class Request(NamedTuple):
    buffer: int
    pending: Pending[Any]


class Rng(Driver, Entropy):
    def setup(self) -> None:
        self.dev = self.device()
        features = virtqueue.negotiate(self.dev, virtio.F_EVENT_IDX)
        self.queue: Virtqueue[Request] = Virtqueue(self.dev, virtio.RNG_QUEUE, BUFFERS, features)
        self.pool = self.dev.dma(BUFFERS * MOST)
        self.free = list(range(self.queue.size))
        self.bring_up(self.dev, self.queue)

    def read(self, count: int) -> bytes:
        if count > MOST:
            raise DeviceFailed(f"at most {MOST} bytes at once, not {count}")
        if count == 0:
            return b""
        if not self.free and not self.take():
            raise DeviceFailed("all buffers are with the device: ask again")
        pending: Pending[bytes] = self.pending()
        buffer = self.free.pop()
        segment = Segment(self.pool.iova + buffer * MOST, count, True)
        self.queue.submit([segment], Request(buffer, pending))
        self.look_soon()
        return pending.later

    def take(self) -> int:
        done = 0
        for request, written in self.queue.completed():
            done += 1
            at = request.buffer * MOST
            self.free.append(request.buffer)
            request.pending.answer(bytes(self.pool.view[at : at + written]))
        return done


if __name__ == "__main__":
    Rng.run()
