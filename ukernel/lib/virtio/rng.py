"""rng: virtio-rng (virtio 1.2 §5.4). Fills buffers with random bytes, from the host or a seed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from ukernel.abi.virtio import DeviceId
from ukernel.lib.virtio.dma import Domain
from ukernel.lib.virtio.queue import Chain, QueueFault, scatter
from ukernel.lib.virtio.transport import VirtioMmio

QUEUE_SIZE = 64
MOST_BYTES = 4096  # of one buffer; §5.4.6 lets the device give fewer than asked, but one at least


class Rng(VirtioMmio):
    """An entropy source. With a `seed` it repeats itself, for tests and replays only."""

    device_id = DeviceId.ENTROPY
    queue_sizes = (QUEUE_SIZE,)

    def __init__(
        self, name: str, domain: Domain, interrupt: Callable[[], None], seed: int | None = None
    ) -> None:
        super().__init__(name, domain, interrupt)
        self._source = os.urandom if seed is None else random.Random(seed).randbytes

    def handle(self, index: int, chain: Chain) -> int:
        if chain.readable or not chain.writable:  # §5.4.6.1
            raise QueueFault("a buffer for random bytes must be writable, and all of it")
        return scatter(self._source(min(chain.length, MOST_BYTES)), chain.writable)
