"""network: the interfaces of the network, from the driver of the card up to sockets.

A socket is a capability, as a file is: to close it, delete the capability. Positions make calls
that can be repeated: `Stream.send` and `Stream.recv` say where in the stream they are, so that a
call which a death cut short is made again and does nothing twice.

Readiness: a client that has many sockets gives each a tag, and keeps one call of `Network.ready`
under way. It is answered with the tags of those that have become readable or writable. This is a
call and no notification, because a call has an outcome when the server dies.
"""

from __future__ import annotations

from typing import NamedTuple

from ukernel.abi.errors import Answer
from ukernel.abi.interface import Interface, Lent, op, u8, u16, u32, u64
from ukernel.abi.services import DeviceFailed

# What a card does for its driver, ORed.
OFFLOAD_CHECKSUM = 1  # completes the checksum of a frame to be sent
OFFLOAD_SEGMENT = 2  # cuts a long TCP/IPv4 segment into frames
ACCEPT_UNCHECKED = 4  # frames that come may have a checksum that is vouched for, not complete
ACCEPT_LONG = 8  # and may be long TCP/IPv4 segments, up to 64 KiB

READABLE = 1  # `recv` or `accept` would not wait
WRITABLE = 2  # `send` would take something

RECEIVE = 1  # directions of `shutdown`
SEND = 2


class BadAddress(Answer):
    """Not an address or port that this can be done with."""


class AddressInUse(Answer):
    """Another socket has this port."""


class Unreachable(Answer):
    """No way leads there, or somebody on the way said so."""


class ConnectionRefused(Answer):
    """Nobody listens there."""


class ConnectionReset(Answer):
    """The other end has broken the connection off."""


class TimedOut(Answer):
    """The other end has not answered for too long."""


class NotConnected(Answer):
    """This end has been shut down, or was never connected."""


class TooLong(Answer):
    """The datagram does not fit into one packet."""


class NoBuffers(Answer):
    """So many sockets, or so much waiting data, as there is no room for."""


class NoSuchName(Answer):
    """The name has no address, or no name server answers."""


class Card(NamedTuple):
    """What a network card is."""

    mac: bytes  # six
    mtu: u16  # bytes of one frame after its Ethernet header
    offloads: u8  # OFFLOAD_* and ACCEPT_*


class Ethernet(Interface):
    """A network card. A frame in memory begins with a virtio_net_hdr of 12 bytes (virtio 1.2
    §5.1.6), in which sender and card agree on checksums and segments; then comes Ethernet."""

    answers = (DeviceFailed, TooLong)

    @op(1, idempotent=True)
    def card(self) -> Card:
        """Its address and what it can do."""

    @op(2)
    def transmit(self, header: Lent, payload: Lent) -> None:
        """Send the frame that is `header` and then `payload`, which may be empty; answered when
        the card has read all of it."""

    @op(3, idempotent=True)
    def receive(self, into: Lent) -> u32:
        """Wait for a frame and put it into `into`; the bytes of header and frame. What does not
        fit is dropped. Several calls may be under way; frames come in their order."""


class Address(NamedTuple):
    """One end of a conversation."""

    host: str  # dotted
    port: u16


class Datagram(NamedTuple):
    source: Address
    length: u32


class Stream(Interface):
    """A TCP connection."""

    answers = (ConnectionReset, TimedOut, NotConnected, Unreachable)

    @op(1, idempotent=True)
    def send(self, at: u64, data: Lent) -> u64:
        """Take bytes of `data`, which begins at position `at` of what is sent; the position up to
        which everything is taken, and will arrive unless the connection breaks. While there is no
        room at all it waits, or takes nothing if the stream has a tag: then WRITABLE is told."""

    @op(2, idempotent=True)
    def recv(self, at: u64, into: Lent) -> u32:
        """Bytes from position `at` of what has come; how many, 0 at the end of the stream. What
        lies before `at` is not needed any more. Waits for at least one."""

    @op(3, idempotent=True)
    def shutdown(self, directions: u8) -> None:
        """Say that no more will be sent (SEND), or drop whatever still comes (RECEIVE)."""

    @op(4, idempotent=True)
    def abort(self) -> None:
        """Break the connection off with a reset, at once."""

    @op(5, idempotent=True)
    def local(self) -> Address:
        """This end."""

    @op(6, idempotent=True)
    def peer(self) -> Address:
        """The other end."""


class Listener(Interface):
    """A TCP port on which connections are taken."""

    answers = (NoBuffers,)

    @op(1, idempotent=True)
    def accept(self, tag: u64) -> Stream:
        """The next connection; waits for one. `ready` knows it by `tag`, which is not 0 if it is
        to be watched. Asked again after a death, the same connection comes."""

    @op(2, idempotent=True)
    def local(self) -> Address:
        """Where it listens."""


class Datagrams(Interface):
    """A UDP socket."""

    answers = (BadAddress, Unreachable, TooLong, NoBuffers)

    @op(1)
    def sendto(self, to: Address, data: Lent) -> None:
        """Send one datagram. Whether it arrives is not told."""

    @op(2, idempotent=True)
    def recvfrom(self, into: Lent) -> Datagram:
        """Wait for a datagram; who sent it, and its length, of which what does not fit is lost."""

    @op(3, idempotent=True)
    def local(self) -> Address:
        """Where it is bound."""


class Ready(NamedTuple):
    tag: u64
    events: u8  # READABLE, WRITABLE


class InterfaceRow(NamedTuple):
    """A network interface and what has passed it."""

    name: str
    mac: bytes
    address: str
    prefix: u8
    gateway: str  # empty when there is none
    mtu: u16
    up: bool
    frames_in: u64
    frames_out: u64
    bytes_in: u64
    bytes_out: u64
    dropped: u64  # malformed, not for us, or without room
    driver_lives: u64  # how often the card's driver has come back


class SocketRow(NamedTuple):
    """A socket. The queues are in bytes; `holder` is the client's number at the kernel."""

    kind: str  # tcp, udp
    local: Address
    peer: Address  # 0.0.0.0:0 when there is none
    state: str  # RFC 9293 §3.3.2: ESTABLISHED
    receive_queue: u32
    send_queue: u32
    retransmits: u32
    srtt_us: u32
    window: u32  # the congestion window, bytes
    lives: u32  # of this server that it has lived through


class Neighbour(NamedTuple):
    """An entry of the ARP table."""

    address: str
    mac: bytes  # empty while it is asked for
    age_ms: u64


class Network(Interface):
    """A TCP/IP stack on one card. Addresses are IPv4 and dotted."""

    answers = (
        BadAddress,
        AddressInUse,
        Unreachable,
        ConnectionRefused,
        ConnectionReset,
        TimedOut,
        NoBuffers,
        NoSuchName,
    )

    @op(1, idempotent=True)
    def listen(self, at: Address, backlog: u16, tag: u64) -> Listener:
        """Take TCP connections there; host 0.0.0.0 is any of our addresses. By the same client at
        the same port, the same listener. `tag` as in `accept`."""

    @op(2, idempotent=True)
    def connect(self, to: Address, tag: u64) -> Stream:
        """A TCP connection; answered when it is established."""

    @op(3, idempotent=True)
    def bind(self, at: Address, tag: u64) -> Datagrams:
        """A UDP socket there; port 0 takes a free one."""

    @op(4, idempotent=True)
    def ready(self) -> list[Ready]:
        """Wait until a tagged socket of this client is ready for what it was not told of. An event
        is told once, and again after the next call for it (`recv`, `accept`: READABLE; `send`:
        WRITABLE). After a death everything is told once more. At most 128 at once."""

    @op(5, idempotent=True)
    def resolve(self, name: str) -> list[str]:
        """The IPv4 addresses of a host name; of a dotted address, itself."""

    @op(6, idempotent=True)
    def ping(self, host: str, size: u16, timeout_ms: u32) -> u64:
        """Send an ICMP echo with `size` bytes and wait for its reply; the nanoseconds it took."""

    @op(7, idempotent=True)
    def interfaces(self) -> list[InterfaceRow]:
        """The network interfaces."""

    @op(8, idempotent=True)
    def sockets(self, start: u32) -> list[SocketRow]:
        """Sockets from number `start`, at most 64."""

    @op(9, idempotent=True)
    def neighbours(self) -> list[Neighbour]:
        """The ARP table."""
