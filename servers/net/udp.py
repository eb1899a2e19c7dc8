"""udp: datagrams of UDP (RFC 768), and the sockets that wait for them. Pure."""

from __future__ import annotations

import struct
from collections import deque
from typing import NamedTuple

from servers.net import checksum, ipv4
from servers.net.events import Unreachable
from servers.net.malformed import Malformed
from servers.net.ring import Bytes
from ukernel.abi.network import AddressInUse, NoBuffers

HEADER_BYTES = 8
MOST_BYTES = ipv4.MOST_BYTES - ipv4.HEADER_BYTES - HEADER_BYTES  # of payload
QUEUE_BYTES = 212_992  # that wait at a socket, as Linux has it (net.core.rmem_default)
KEPT_BYTES = 256  # what keeping a datagram costs besides its payload
EPHEMERAL = range(49152, 65536)  # RFC 6335 §6

_HEADER = struct.Struct("!HHHH")


class Udp(NamedTuple):
    source: int  # ports
    destination: int
    payload: memoryview


def parse(packet: ipv4.Packet, vouched: bool) -> Udp:
    """Of an IPv4 packet; `vouched`: the checksum is known to be right. Raises Malformed."""
    data = packet.payload
    if len(data) < HEADER_BYTES:
        raise Malformed("shorter than a UDP header")
    source, destination, length, check = _HEADER.unpack_from(data)
    if not HEADER_BYTES <= length <= len(data):
        raise Malformed("a UDP length that is less than the header or more than what came")
    data = data[:length]
    if check and not vouched:
        total = checksum.pseudo(packet.source, packet.destination, ipv4.UDP, length)
        if not checksum.verify(data, total):
            raise Malformed("wrong checksum of a UDP datagram")
    return Udp(source, destination, data[HEADER_BYTES:])


def build(source: int, port: int, destination: int, destination_port: int, data: Bytes) -> bytes:
    """Addresses and ports, then the payload. A checksum of 0 would say that there is none, so it
    is sent as its equal, 0xFFFF."""
    length = HEADER_BYTES + len(data)
    total = checksum.pseudo(source, destination, ipv4.UDP, length)
    check = checksum.finish(total + port + destination_port + length + checksum.ones(data))
    header = _HEADER.pack(port, destination_port, length, check or 0xFFFF)
    return b"".join((header, data))


class Datagram(NamedTuple):
    """One that waits to be taken."""

    source: int
    source_port: int
    destination: int  # ours, or the broadcast or multicast address that it was sent to
    data: bytes


class Socket:
    """A bound port. The queue is bounded in bytes; what does not fit is dropped and counted."""

    def __init__(self, address: int, port: int, limit: int) -> None:
        self.address = address  # 0: any
        self.port = port
        self.limit = limit
        self.queue: deque[Datagram] = deque()
        self.waiting_bytes = 0  # of payload
        self.dropped = 0
        self.error: Unreachable | None = None  # the latest that nobody has been told of
        self.user: object = None  # its owner's

    def put(self, datagram: Datagram) -> bool:
        cost = self.waiting_bytes + KEPT_BYTES * len(self.queue)
        if cost + len(datagram.data) + KEPT_BYTES > self.limit and self.queue:
            self.dropped += 1
            return False
        self.queue.append(datagram)
        self.waiting_bytes += len(datagram.data)
        return True

    def take(self) -> Datagram | None:
        """The oldest that waits."""
        if not self.queue:
            return None
        datagram = self.queue.popleft()
        self.waiting_bytes -= len(datagram.data)
        return datagram

    def take_error(self) -> Unreachable | None:
        """What went wrong with a datagram sent from here; told once."""
        error, self.error = self.error, None
        return error


class Sockets:
    """All UDP sockets of a host. A host has one address, so a port has one socket."""

    def __init__(self) -> None:
        self.ports: dict[int, Socket] = {}
        self.changed: set[Socket] = set()  # that got a datagram or an error; the caller clears it
        self.dropped = 0  # for want of room

    def bind(
        self, port: int = 0, address: int = 0, random: int = 0, limit: int = QUEUE_BYTES
    ) -> Socket:
        """A socket at a port, or at a free one, looked for from a random one on (RFC 6056
        §3.3.1). Raises AddressInUse, NoBuffers."""
        if port in self.ports:
            raise AddressInUse(f"another socket has UDP port {port}")
        socket = Socket(address, port or self._free(random), limit)
        self.ports[socket.port] = socket
        return socket

    def close(self, socket: Socket) -> None:
        """What waits is dropped."""
        if self.ports.get(socket.port) is socket:
            del self.ports[socket.port]
        self.changed.discard(socket)

    def arrived(self, packet: ipv4.Packet, datagram: Udp) -> bool:
        """False if nobody has this port."""
        socket = self.ports.get(datagram.destination)
        if socket is None or socket.address not in (0, packet.destination):
            return False
        data = Datagram(packet.source, datagram.source, packet.destination, bytes(datagram.payload))
        if socket.put(data):
            self.changed.add(socket)
        else:
            self.dropped += 1
        return True

    def unreachable(self, event: Unreachable) -> None:
        """Tell the socket that sent it."""
        socket = self.ports.get(event.quad[1])
        if socket is not None:
            socket.error = event
            self.changed.add(socket)

    def _free(self, random: int) -> int:
        first, count = EPHEMERAL.start, len(EPHEMERAL)
        for step in range(count):
            port = first + (random + step) % count
            if port not in self.ports:
                return port
        raise NoBuffers("every ephemeral UDP port is taken")
