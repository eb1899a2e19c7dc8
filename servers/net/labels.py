"""labels: what the store keeps of a socket besides its connection: who holds it. Pure."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from servers.net.tcp.quad import Quad

_LABEL = struct.Struct("<QQQ")
_STREAM = struct.Struct("<B12sQ")
_BOUND = struct.Struct("<BIHH")
WAITS, RELEASED, DEAF = 1, 2, 4  # to be accepted; held by nobody; nothing is read any more


class Label(NamedTuple):
    """`badge` 0: no client has been given it yet."""

    badge: int = 0
    tag: int = 0
    client: int = 0


class StreamRecord(NamedTuple):
    """A connection; its client has been given everything before `read_to`; `data` is
    Connection.pack."""

    label: Label
    flags: int
    quad: Quad
    read_to: int
    data: bytes

    def pack(self) -> bytes:
        more = _STREAM.pack(self.flags, self.quad.pack(), self.read_to)
        return b"".join((_LABEL.pack(*self.label), more, self.data))

    @classmethod
    def unpack(cls, record: bytes) -> StreamRecord:
        label = Label(*_LABEL.unpack_from(record))
        flags, quad, read_to = _STREAM.unpack_from(record, _LABEL.size)
        data = record[_LABEL.size + _STREAM.size :]
        return cls(label, flags, Quad.unpack(quad), read_to, data)


class Kind(IntEnum):
    """What is bound to a port."""

    LISTENER = 1
    DATAGRAMS = 2


class BoundRecord(NamedTuple):
    """A listener or a UDP socket; `backlog` is the listener's."""

    label: Label
    kind: Kind
    address: int
    port: int
    backlog: int = 0

    def pack(self) -> bytes:
        return _LABEL.pack(*self.label) + _BOUND.pack(*self[1:])

    @classmethod
    def unpack(cls, record: bytes) -> BoundRecord:
        kind, address, port, backlog = _BOUND.unpack_from(record, _LABEL.size)
        return cls(Label(*_LABEL.unpack_from(record)), Kind(kind), address, port, backlog)
