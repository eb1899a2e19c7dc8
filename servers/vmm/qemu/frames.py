"""frames: Ethernet frames on a stream as QEMU's `-netdev stream` has them (net/stream.c): the
length of each, 32 bits big-endian, then the frame. Pure.
"""

from __future__ import annotations

import struct

LENGTH = struct.Struct(">I")
MOST_BYTES = 4096 + 65536  # QEMU's NET_BUFSIZE: a longer frame breaks the stream for it, and for us


class BadLength(Exception):
    """What comes is no stream of frames; the text says why."""


def framed(length: int) -> bytes:
    """What goes before a frame of so many bytes."""
    return LENGTH.pack(length)


class Frames:
    """Bytes in, frames out: `feed` what has come, then `take` until there is None."""

    def __init__(self) -> None:
        self._came = bytearray()

    def feed(self, data: bytes | memoryview) -> None:
        self._came += data

    def take(self) -> bytes | None:
        """The next frame, as short as it may be; None: more has to come. Raises BadLength."""
        if len(self._came) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._came)
        end = LENGTH.size + length
        if length > MOST_BYTES:
            raise BadLength(f"a frame of {length} bytes, at most {MOST_BYTES}")
        if len(self._came) < end:
            return None
        frame = bytes(memoryview(self._came)[LENGTH.size : end])
        del self._came[:end]
        return frame
