"""console: virtio-console (virtio 1.2 §5.3), one port, no multiport.

Output goes to a sink. Input waits here, up to a bound, until the driver gives a buffer for it, so
typing into a machine whose driver is being restarted is not lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ukernel.abi.virtio import CONSOLE_RECEIVEQ, DeviceId
from ukernel.lib.virtio.dma import Domain
from ukernel.lib.virtio.queue import Chain, DeviceQueue, QueueFault, scatter
from ukernel.lib.virtio.state import BadState
from ukernel.lib.virtio.transport import VirtioMmio

QUEUE_SIZE = 64
INPUT_ROOM = 64 * 1024  # bytes that may wait for buffers


class Console(VirtioMmio):
    """A terminal line. `sink` shows bytes; it must not raise."""

    device_id = DeviceId.CONSOLE
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE)

    def __init__(
        self,
        name: str,
        domain: Domain,
        interrupt: Callable[[], None],
        sink: Callable[[bytes], None],
    ) -> None:
        super().__init__(name, domain, interrupt)
        self.sink = sink
        self._input = bytearray()

    def feed(self, data: bytes) -> int:
        """Somebody types: how many bytes were taken; the others find no room."""
        taken = data[: INPUT_ROOM - len(self._input)]
        self._input += taken
        self.notify(CONSOLE_RECEIVEQ)
        return len(taken)

    def serve(self, index: int, queue: DeviceQueue) -> bool:
        if index != CONSOLE_RECEIVEQ:
            return super().serve(index, queue)
        while self._input and queue.pending():
            chain = queue.take()
            queue.give(chain, self._receive(chain))
        # Buffers without input are not work left, and nobody need ring for them.
        return bool(self._input) and not queue.listen()

    def handle(self, index: int, chain: Chain) -> int:
        """Transmit: the device writes nothing."""
        self.sink(b"".join(chain.readable))
        return 0

    def save_model(self) -> bytes:
        return bytes(self._input)

    def restore_model(self, state: Any) -> None:
        if type(state) is not bytes or len(state) > INPUT_ROOM:
            raise BadState("what was typed is no text")
        self._input = bytearray(state)

    def _receive(self, chain: Chain) -> int:
        if not chain.writable:
            raise QueueFault("a receive buffer that the device may not write")
        count = scatter(bytes(self._input), chain.writable)
        del self._input[:count]
        return count
