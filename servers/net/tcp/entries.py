"""entries: what a table of connections holds, and what it is given back after a death. Pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from servers.net.ring import Ring
from servers.net.tcp.connection import Connection
from servers.net.tcp.cookies import Features
from servers.net.tcp.quad import Quad
from servers.net.tcp.segment import Options


class TableError(Exception):
    """It cannot be done as things are."""


class PortInUse(TableError):
    """Another listener or connection has the port, or all of them are in use."""


class BadPeer(TableError):
    """Not an address and port that a connection can lead to."""


class NoRoom(TableError):
    """There are as many connections or listeners as there may be."""


class Slots(Protocol):
    """Places for connections, each with its rings and a handle by which its owner knows it."""

    window: int  # bytes of every receive ring

    def take(self, holder: int) -> tuple[Ring, Ring, object] | None:
        """Send ring, receive ring and handle of a free place; nothing when there is none, or none
        for this client."""

    def give_back(self, handle: object) -> None:
        """The connection is no more, and nothing in its place means anything."""


class Agreed(NamedTuple):
    """What the two ends of a handshake have told each other."""

    iss: int
    irs: int
    mss: int  # the peer's
    features: Features  # the peer's scale, and SACK, where both ends want them
    timestamps: bool

    def options(self, stamp: int) -> Options:
        """As in the peer's SYN, with its timestamp."""
        stamps = (stamp, 0) if self.timestamps else None
        return Options(self.mss, self.features.scale, self.features.sack, stamps)


class Listener:
    """A port on which connections are taken; `address` 0 is any."""

    __slots__ = (
        "address", "backlog", "cookies_until", "handshakes", "holder", "port", "user", "waiting"
    )  # fmt: skip

    def __init__(self, port: int, address: int, backlog: int, holder: int = 0) -> None:
        self.port = port
        self.address = address
        self.backlog = backlog
        self.holder = holder  # the client whose connections they are, from the first on
        self.user: object = None  # its owner's
        self.handshakes: dict[Quad, Handshake] = {}
        self.waiting: deque[Entry] = deque()  # established, and not accepted
        self.cookies_until = 0  # third segments of handshakes that nobody remembers may come

    @property
    def full(self) -> bool:
        return len(self.waiting) >= self.backlog


class Handshake:
    """A handshake that waits for its third segment."""

    __slots__ = ("agreed", "listener", "quad", "repeats", "sent_at", "stamp")

    def __init__(self, listener: Listener, quad: Quad, agreed: Agreed, stamp: int) -> None:
        self.listener = listener
        self.quad = quad
        self.agreed = agreed
        self.stamp = stamp  # the peer's timestamp
        self.repeats = 0  # of the SYN-ACK
        self.sent_at = 0  # the last one


class Entry:
    """A connection with its place. `connection` and `user` are for the owner of the table, the
    rest is only to be read. After any call of `connection` the table must hear of it: `touched`."""

    __slots__ = ("connection", "gone", "handle", "listener", "quad", "released", "tabled", "user")

    def __init__(self, quad: Quad, connection: Connection, handle: object) -> None:
        self.quad = quad
        self.connection = connection
        self.handle = handle
        self.user: object = None  # its owner's
        self.listener: Listener | None = None  # where it waits to be accepted
        self.released = False  # nobody holds it
        self.tabled = True  # segments of the quad are for it: it is not closed nor in TIME-WAIT
        self.gone = False  # its slot was given back


class Stored(NamedTuple):
    """A connection as a life has left it."""

    quad: Quad
    send: Ring
    receive: Ring
    handle: object
    data: bytes  # Connection.pack
    released: bool  # or held by somebody who is no more
    waiting: bool  # to be accepted
    user: object = None
