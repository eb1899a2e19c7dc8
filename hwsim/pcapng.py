"""pcapng: frames as tshark reads them (draft-ietf-opsawg-pcapng). Blocks are written whole.

A file is a section header, one interface, and an enhanced packet for each frame: when it passed in
nanoseconds, which way, and its bytes.
"""

from __future__ import annotations

import os
import struct

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
BYTE_ORDER = 0x1A2B3C4D
LINKTYPE_ETHERNET = 1
IF_NAME, IF_MAC, IF_TSRESOL, SHB_USERAPPL, EPB_FLAGS = 2, 6, 9, 4, 2
NANOSECONDS = b"\x09"
INBOUND, OUTBOUND = 1, 2  # in EPB_FLAGS: the frame came to the card, or it was sent by it
WAITING = 256 << 10  # bytes that are written at once at the latest

_PACKET = struct.Struct("<IIIIIII")
_TAIL = struct.Struct("<HHIII")  # the option EPB_FLAGS, the end of options, the length again


def section() -> bytes:
    body = struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1)
    return _block(SECTION, body + _option(SHB_USERAPPL, b"ukernel") + _option(0, b""))


def interface(name: str, mac: bytes) -> bytes:
    body = struct.pack("<HHI", LINKTYPE_ETHERNET, 0, 0)
    options = ((IF_NAME, name.encode()), (IF_MAC, mac), (IF_TSRESOL, NANOSECONDS), (0, b""))
    return _block(INTERFACE, body + b"".join(_option(code, value) for code, value in options))


def packet(at_ns: int, direction: int, frame: bytes | bytearray) -> bytes:
    """One frame that passed at `at_ns`, nanoseconds since 1970."""
    size = len(frame)
    pad = -size % 4
    total = _PACKET.size + size + pad + _TAIL.size
    high, low = at_ns >> 32, at_ns & 0xFFFF_FFFF
    head = _PACKET.pack(PACKET, total, 0, high, low, size, size)
    return b"".join((head, frame, bytes(pad), _TAIL.pack(EPB_FLAGS, 4, direction, 0, total)))


def _block(kind: int, body: bytes) -> bytes:
    total = 12 + len(body)
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


class Writer:
    """A capture file. What fails is the end of the capture: `failed` says why."""

    def __init__(self, path: str, name: str, mac: bytes) -> None:
        """Begin the file anew. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o644)
        self.failed = ""
        self.frames = self.octets = self.lost = 0
        self._waiting = [section(), interface(name, mac)]
        self._size = sum(map(len, self._waiting))
        self.flush()

    def add(self, at_ns: int, direction: int, frame: bytes | bytearray) -> None:
        """Note a frame, to be written soon."""
        if self.failed:
            self.lost += 1
            return
        block = packet(at_ns, direction, frame)
        self.frames += 1
        self.octets += len(frame)
        self._waiting.append(block)
        self._size += len(block)
        if self._size >= WAITING:
            self.flush()

    @property
    def waits(self) -> bool:
        """Whether a reader of the file misses something."""
        return bool(self._waiting)

    def flush(self) -> None:
        """Write what waits."""
        data, self._waiting, self._size = memoryview(b"".join(self._waiting)), [], 0
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self.failed = self.failed or f"{error.strerror}"

    def close(self) -> None:
        """Write what waits, and no more."""
        self.flush()
        os.close(self._fd)
