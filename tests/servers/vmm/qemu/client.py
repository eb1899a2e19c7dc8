"""client: the other end of a disk's wire, which says what a test wants said.

Numbers are those of doc/proto.md in https://github.com/NetworkBlockDevice/nbd, written out here.
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from typing import NamedTuple

GO, FUA = 7, 1


class Ask(IntEnum):
    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4


def option(number: int, data: bytes = b"") -> bytes:
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def go(name: bytes = b"disk", number: int = GO) -> bytes:
    return option(number, struct.pack(">I", len(name)) + name + struct.pack(">HH", 1, 3))


def request(
    command: int, cookie: int = 0, offset: int = 0, length: int = 0, flags: int = 0,
    data: bytes = b"",
) -> bytes:  # fmt: skip
    """A WRITE has `data`, and no other length; nothing else has any."""
    data = data if command == Ask.WRITE else b""
    size = len(data) if command == Ask.WRITE else length
    return struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, size) + data


HELLO = struct.pack(">I", 3)  # fixed newstyle, no zeroes


class OptionReply(NamedTuple):
    option: int
    kind: int
    data: bytes


def option_replies(data: bytes) -> list[OptionReply]:
    """All of what was answered to options."""
    found = []
    while data:
        magic, number, kind, length = struct.unpack_from(">QIII", data)
        assert magic == 0x3E889045565A9
        found.append(OptionReply(number, kind, data[20 : 20 + length]))
        data = data[20 + length :]
    return found


class Client:
    """A connection, past its handshake. It waits as long as the socket lets it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._file = sock.makefile("rb")
        self._lengths: dict[int, int] = {}  # of what is to be read, by cookie
        assert self._read(18) == b"NBDMAGICIHAVEOPT\0\3"
        sock.sendall(HELLO + go())
        kind = 0
        while kind != 1:  # ACK
            _, _, kind, length = struct.unpack(">QIII", self._read(20))
            info = self._read(length)
            if info[:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", info[2:])

    def ask(
        self, command: int, cookie: int = 0, offset: int = 0, length: int = 0, flags: int = 0,
        data: bytes = b"",
    ) -> None:  # fmt: skip
        if command == Ask.READ:
            self._lengths[cookie] = length
        self.sock.sendall(request(command, cookie, offset, length, flags, data))

    def reply(self) -> tuple[int, int, bytes]:
        """The next: its cookie, its error, what was read."""
        magic, error, cookie = struct.unpack(">IIQ", self._read(16))
        assert magic == 0x67446698
        length = self._lengths.pop(cookie, 0)
        return cookie, error, b"" if error else self._read(length)

    def do(self, command: int, offset: int = 0, length: int = 0, flags: int = 0,
           data: bytes = b"") -> bytes:  # fmt: skip
        """One request, which succeeds; what was read."""
        self.ask(command, 77, offset, length, flags, data)
        cookie, error, read = self.reply()
        assert (cookie, error) == (77, 0)
        return read

    def _read(self, length: int) -> bytes:
        data = self._file.read(length)
        assert len(data) == length, "it has hung up"
        return data

    def close(self) -> None:
        self._file.close()
        self.sock.close()
