"""quad: what tells the connections of a host apart. Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

_LAYOUT = struct.Struct("<IHIH")


class Quad(NamedTuple):
    """Both ends of a connection, as this host sees it. Addresses are IPv4 as numbers."""

    local: int
    local_port: int
    remote: int
    remote_port: int

    def pack(self) -> bytes:
        """Twelve bytes that are the quad's own."""
        return _LAYOUT.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Quad:
        """What `pack` made."""
        return cls(*_LAYOUT.unpack(data))
