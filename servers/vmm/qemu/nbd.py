"""nbd: the server's side of the Network Block Device protocol, for one export. Pure: bytes go in,
replies and requests come out. Section names are those of doc/proto.md in
https://github.com/NetworkBlockDevice/nbd.

There are no structured replies, no TLS and no metadata contexts: a client that asks is told so and
goes on without. Write zeroes is not offered, since a disk here has no such operation: a client
sends zeros. What breaks the protocol is Broken, and ends the session.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum, IntFlag
from typing import NamedTuple

from ukernel.abi.services import SECTOR

MAGIC, OPTION_MAGIC = 0x4E42444D41474943, 0x49484156454F5054  # "NBDMAGIC", "IHAVEOPT"
REPLY_MAGIC = 0x3E889045565A9  # of an option
REQUEST_MAGIC, SIMPLE_REPLY_MAGIC = 0x25609513, 0x67446698

MOST_BYTES = 1 << 20  # of one request; told as the maximum block size
PREFERRED_BYTES = 4096
MOST_OPTION_BYTES = 8192  # two names of 4096, the longest that there may be, never come together

GREETING = struct.Struct(">QQH")
OPTION = struct.Struct(">QII")  # magic, option, length
OPTION_REPLY = struct.Struct(">QIII")  # magic, option, reply, length
EXPORT = struct.Struct(">QH")  # bytes, transmission flags
INFO = struct.Struct(">H")
BLOCK_SIZES = struct.Struct(">HIII")  # NBD_INFO_BLOCK_SIZE: minimum, preferred, maximum
REQUEST = struct.Struct(">IHHQQI")  # magic, flags, command, cookie, offset, length
SIMPLE_REPLY = struct.Struct(">IIQ")  # magic, error, cookie
WORD, COUNT = struct.Struct(">I"), struct.Struct(">H")


class Handshake(IntFlag):
    """Of the server, and of the client with the same values ("Flag fields")."""

    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class Option(IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    INFO = 6
    GO = 7


class Rep(IntEnum):
    """Option reply types."""

    ACK = 1
    SERVER = 2
    INFO = 3
    ERR_UNSUP = 1 << 31 | 1
    ERR_INVALID = 1 << 31 | 3
    ERR_UNKNOWN = 1 << 31 | 6


class InfoType(IntEnum):
    EXPORT = 0
    BLOCK_SIZE = 3


class Transmission(IntFlag):
    """Transmission flags."""

    HAS_FLAGS = 1
    READ_ONLY = 2
    SEND_FLUSH = 4
    SEND_FUA = 8
    SEND_TRIM = 32


class Command(IntEnum):
    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4


class Error(IntEnum):
    """Error values."""

    NONE = 0
    EPERM = 1
    EIO = 5
    EINVAL = 22
    ENOSPC = 28


CHANGES = (Command.WRITE, Command.TRIM)
FUA = 1  # NBD_CMD_FLAG_FUA, the only command flag that is for us
ALL_HANDSHAKE = int(Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES)


class Broken(Exception):
    """The client does not speak the protocol; the text says what was wrong."""


class Export(NamedTuple):
    """What is served. A client may ask for it by its name or by none."""

    name: str
    sectors: int
    read_only: bool = False

    @property
    def size(self) -> int:
        return self.sectors * SECTOR

    @property
    def flags(self) -> int:
        flags = Transmission.HAS_FLAGS | Transmission.SEND_FLUSH
        if self.read_only:
            return flags | Transmission.READ_ONLY
        return flags | Transmission.SEND_FUA | Transmission.SEND_TRIM


class Request(NamedTuple):
    """What is to be answered. Without an error it is one of Command but DISC, and is about whole
    sectors of the disk, a FLUSH about none."""

    command: int
    cookie: int
    offset: int  # bytes
    length: int
    fua: bool  # of what changes the disk
    data: bytes  # of a WRITE
    error: Error = Error.NONE  # with which it is to be refused


def reply(cookie: int, error: Error = Error.NONE) -> bytes:
    """A simple reply, without the data of a READ, which follows it."""
    return SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, error, cookie)


class Session:
    """One client, from the handshake on. `feed` what has come, then `take` until there is None.

    What was fed and not taken is kept: feed no more while `take` has not said None.
    """

    def __init__(self, export: Export) -> None:
        self.export = export
        self.greeting = GREETING.pack(MAGIC, OPTION_MAGIC, ALL_HANDSHAKE)
        self.over = False  # the client wants to go, or has to
        self._came = bytearray()
        self._step: Callable[[], bytes | Request | None] = self._client_flags

    def feed(self, data: bytes | memoryview) -> None:
        self._came += data

    def take(self) -> bytes | Request | None:
        """The next request, or bytes to be sent; None: more has to come, or it is over. Raises
        Broken."""
        return None if self.over else self._step()

    def _cut(self, length: int) -> bytes:
        """The first bytes of what has come, which are there."""
        data = bytes(memoryview(self._came)[:length])
        del self._came[:length]
        return data

    # --- "Handshake phase": fixed newstyle negotiation ------------------------------------------

    def _client_flags(self) -> bytes | None:
        if len(self._came) < WORD.size:
            return None
        (flags,) = WORD.unpack(self._cut(WORD.size))
        if flags & ~ALL_HANDSHAKE or not flags & Handshake.FIXED_NEWSTYLE:
            raise Broken(f"client flags {flags:#x}: fixed newstyle is spoken here, and no zeroes")
        self._zeroes = not flags & Handshake.NO_ZEROES
        self._step = self._option
        return b""

    def _option(self) -> bytes | None:
        if len(self._came) < OPTION.size:
            return None
        magic, option, length = OPTION.unpack_from(self._came)
        if magic != OPTION_MAGIC:
            raise Broken(f"an option that begins with {magic:#x}")
        if length > MOST_OPTION_BYTES:
            raise Broken(f"option {option} of {length} bytes, at most {MOST_OPTION_BYTES}")
        if len(self._came) < OPTION.size + length:
            return None
        data = self._cut(OPTION.size + length)[OPTION.size :]
        match option:
            case Option.GO | Option.INFO:
                return self._info(option, data)
            case Option.EXPORT_NAME:
                return self._export_name(data)
            case Option.LIST:
                return self._list(data)
            case Option.ABORT:
                self.over = True
                return _answer(option, Rep.ACK)
            case _:
                return _answer(option, Rep.ERR_UNSUP)

    def _info(self, option: int, data: bytes) -> bytes:
        """NBD_OPT_INFO and NBD_OPT_GO. The block sizes are told whether asked for or not."""
        name = _name(data)
        if name is None:
            return _answer(option, Rep.ERR_INVALID)
        if not self._serves(name):
            return _answer(option, Rep.ERR_UNKNOWN)
        export = INFO.pack(InfoType.EXPORT) + EXPORT.pack(self.export.size, self.export.flags)
        sizes = BLOCK_SIZES.pack(InfoType.BLOCK_SIZE, SECTOR, PREFERRED_BYTES, MOST_BYTES)
        if option == Option.GO:
            self._step = self._request
        infos = _answer(option, Rep.INFO, export) + _answer(option, Rep.INFO, sizes)
        return infos + _answer(option, Rep.ACK)

    def _export_name(self, data: bytes) -> bytes:
        """NBD_OPT_EXPORT_NAME, which cannot be refused but by hanging up."""
        if not self._serves(data):
            raise Broken(f"an export {data[:40]!r}: there is {self.export.name!r}")
        self._step = self._request
        return EXPORT.pack(self.export.size, self.export.flags) + bytes(124 * self._zeroes)

    def _list(self, data: bytes) -> bytes:
        if data:
            return _answer(Option.LIST, Rep.ERR_INVALID)
        name = self.export.name.encode()
        server = _answer(Option.LIST, Rep.SERVER, WORD.pack(len(name)) + name)
        return server + _answer(Option.LIST, Rep.ACK)

    def _serves(self, name: bytes) -> bool:
        return name in (b"", self.export.name.encode())

    # --- "Transmission phase" -------------------------------------------------------------------

    def _request(self) -> bytes | Request | None:
        if len(self._came) < REQUEST.size:
            return None
        magic, flags, command, cookie, offset, length = REQUEST.unpack_from(self._came)
        if magic != REQUEST_MAGIC:
            raise Broken(f"a request that begins with {magic:#x}")
        payload = length if command == Command.WRITE else 0
        if payload > MOST_BYTES:
            raise Broken(f"a write of {payload} bytes, at most {MOST_BYTES}")
        if len(self._came) < REQUEST.size + payload:
            return None
        del self._came[: REQUEST.size]
        data = self._cut(payload)
        if command == Command.DISC:
            self.over = True
            return None
        error = self._wrong(command, flags, offset, length)
        fua = bool(flags & FUA) and command in CHANGES
        return Request(command, cookie, offset, length, fua, data, error)

    def _wrong(self, command: int, flags: int, offset: int, length: int) -> Error:
        """What a request is refused with ("Error values"), NONE: it is not."""
        if command == Command.FLUSH:
            return Error.EINVAL if flags & ~FUA else Error.NONE
        if command not in (Command.READ, *CHANGES) or flags & ~FUA:
            return Error.EINVAL
        if command in CHANGES and self.export.read_only:
            return Error.EPERM
        if not length or (length | offset) % SECTOR:
            return Error.EINVAL
        if offset + length > self.export.size:
            return Error.ENOSPC if command == Command.WRITE else Error.EINVAL
        return Error.EINVAL if command == Command.READ and length > MOST_BYTES else Error.NONE


def _answer(option: int, kind: Rep, data: bytes = b"") -> bytes:
    return OPTION_REPLY.pack(REPLY_MAGIC, option, kind, len(data)) + data


def _name(data: bytes) -> bytes | None:
    """The export's name in NBD_OPT_GO: its length, it, the number of infos wanted, they."""
    if len(data) < WORD.size + COUNT.size:
        return None
    (length,) = WORD.unpack_from(data)
    end = WORD.size + length
    if end + COUNT.size > len(data):
        return None
    (infos,) = COUNT.unpack_from(data, end)
    return data[WORD.size : end] if len(data) == end + COUNT.size * (infos + 1) else None
