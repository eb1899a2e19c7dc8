"""capture: a stage that notes all frames in a file, as the card's driver sees them.

A checksum that is left to somebody else is completed in the file, not in the frame; a long segment
stays long.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from hwsim.pcapng import INBOUND, OUTBOUND, Writer
from ukernel.abi.virtio import NET_HDR_F_NEEDS_CSUM, NET_HEADER, NET_HEADER_BYTES
from ukernel.lib.virtio.cable import NONE, Stage
from ukernel.lib.virtio.offload import BadFrame, complete
from ukernel.lib.virtio.queue import Views, split

SOON_NS = 50_000_000  # until a frame is in the file


class Capture(Stage):
    """`soon` calls its argument in about SOON_NS."""

    def __init__(self, writer: Writer, soon: Callable[[Callable[[], None]], None]) -> None:
        super().__init__()
        self.writer = writer
        self._soon = soon
        self._flushes = False  # soon
        self._closed = False

    def send(self, header: bytes, parts: Views) -> None:
        self._note(OUTBOUND, header, parts)
        self.inner.send(header, parts)

    def receive(self, into: Views) -> int:
        length = self.inner.receive(into)
        if length != NONE:
            header, frame = split(split(into, length)[0], NET_HEADER_BYTES)
            self._note(INBOUND, b"".join(header), frame)
        return length

    def close(self) -> None:
        """The file is whole."""
        self._closed = True
        self.writer.close()

    def _note(self, direction: int, header: bytes, parts: Views) -> None:
        frame = bytearray().join(parts)
        flags, _, _, _, start, offset, _ = NET_HEADER.unpack(header)
        if flags & NET_HDR_F_NEEDS_CSUM:
            with contextlib.suppress(BadFrame):  # then it is noted as it is
                complete(frame, start, offset)
        self.writer.add(time.time_ns(), direction, frame)
        if not self._flushes:
            self._flushes = True
            self._soon(self._flush)

    def _flush(self) -> None:
        self._flushes = False
        if not self._closed:
            self.writer.flush()
