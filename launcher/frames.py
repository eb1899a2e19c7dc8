"""frames: JSON values over a Unix stream, each after its length. Descriptors ride along.

A request is `[name, argument, ...]`. Its answer is `{"ok": value}`, or `{"error": text, "code": n}`
with the exit status that `ukernel` ends with.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from typing import Any

HEAD = struct.Struct("<I")  # bytes that follow
MAX_REQUEST = 64 * 1024
MAX_ANSWER = 64 * 1024 * 1024
MAX_FDS = 3  # standard input, output, error
CHUNK = 64 * 1024
FD_SIZE = array.array("i").itemsize


class BadFrame(Exception):
    """What arrived is not a frame; the text says why."""


def dump(value: object) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode()
    return HEAD.pack(len(text)) + text


class Inflow:
    """Bytes and descriptors that have arrived; `take` gives whole frames."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.fds: list[int] = []
        self._bytes = bytearray()

    def receive(self, line: socket.socket) -> bool:
        """Read once; False at the end of the stream. Raises BadFrame beyond the limits."""
        room = socket.CMSG_SPACE(MAX_FDS * FD_SIZE)
        data, ancillary, flags, _ = line.recvmsg(CHUNK, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(content) - len(content) % FD_SIZE
                self.fds += array.array("i", content[:whole])
        self._bytes += data
        if flags & socket.MSG_CTRUNC or len(self.fds) > MAX_FDS:
            raise BadFrame(f"more than {MAX_FDS} descriptors")
        if len(self._bytes) > self.limit + HEAD.size:
            raise BadFrame(f"more than {self.limit} bytes at once")
        return bool(data)

    def take(self) -> Any:
        """The next value; None when it is not all there. Raises BadFrame."""
        if len(self._bytes) < HEAD.size:
            return None
        (size,) = HEAD.unpack_from(self._bytes)
        if size > self.limit:
            raise BadFrame(f"{size} bytes, at most {self.limit}")
        end = HEAD.size + size
        if len(self._bytes) < end:
            return None
        text = bytes(self._bytes[HEAD.size : end])
        del self._bytes[:end]
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadFrame(f"not JSON: {error}") from None

    def take_fds(self) -> list[int]:
        """The descriptors so far; the caller owns them."""
        fds, self.fds = self.fds, []
        return fds

    def close(self) -> None:
        for fd in self.take_fds():
            os.close(fd)
