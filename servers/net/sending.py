"""sending: from a payload for an address to frames: route, header, fragments, neighbour. Pure.

What is the same for all packets to a destination is made once: the beginning of the frame, the
addresses, and the sum of all of it.
"""

from __future__ import annotations

import struct

from servers.net import addresses, arp, ethernet, icmp, ipv4
from servers.net.events import Event, Unreachable
from servers.net.frames import NO_CARGO, Frame
from servers.net.neighbours import Neighbours, Waiting
from servers.net.ring import Bytes, Piece

L4_AT = ethernet.HEADER_BYTES + ipv4.HEADER_BYTES
_ALWAYS = 1 << 62  # later than any time
_MOST_PATHS = 1024
_MULTICAST_TTL = 1  # RFC 1112 §6.1

# Ethernet and the first two bytes of IPv4; total length, identification, fragment, TTL,
# protocol, checksum; both addresses.
_HEADERS = struct.Struct("!16sHHHBBH8s")


class Path:
    """What all frames to one destination have in common."""

    def __init__(self, source: int, destination: int, ttl: int) -> None:
        self.destination = destination
        self.hop = 0  # the neighbour's address
        self.until = 0  # then the neighbour must be looked at again; 0: at once
        self.ttl = ttl
        self.begin = b""
        self.leads_to(ethernet.UNKNOWN, ethernet.UNKNOWN, 0)
        self.addresses = source.to_bytes(4, "big") + destination.to_bytes(4, "big")
        self.sum = 0x4500 + (ttl << 8) + source + destination

    def leads_to(self, mac: bytes, own: bytes, until: int) -> None:
        self.begin = ethernet.build(mac, own, ethernet.IPV4) + b"\x45\x00"
        self.until = until


class Sender:
    """The way out of one host. `out` and `events` are the host's."""

    def __init__(
        self,
        mac: bytes,
        address: int,
        prefix: int,
        gateway: int,
        mtu: int,
        ident: int,
        out: list[Frame],
        events: list[Event],
    ) -> None:
        self.mac = mac
        self.address = address
        self.mask = addresses.netmask(prefix)
        # A network of one or two hosts has no broadcast address (RFC 3021).
        directed = address | ~self.mask & addresses.EVERYBODY
        self.broadcast = directed if prefix < 31 else addresses.EVERYBODY
        self.gateway = gateway
        self.mtu = mtu
        self.ident = ident  # of the next datagram that may be cut (RFC 6864 §4.3)
        self.out = out
        self.events = events
        self.neighbours = Neighbours()
        self.dropped = 0  # too long to be sent
        self._paths: dict[int, Path] = {}

    def is_group(self, address: int) -> bool:
        """Broadcast or multicast."""
        everybody = address in (addresses.EVERYBODY, self.broadcast)
        return everybody or addresses.is_multicast(address)

    def next_hop(self, destination: int) -> int:
        """The neighbour that packets go to; 0 if there is none."""
        nobody = destination in (self.address, self.broadcast)
        if nobody or addresses.never_a_source(destination):
            return 0
        on_link = (destination ^ self.address) & self.mask == 0
        return destination if on_link else self.gateway

    def send(
        self,
        protocol: int,
        destination: int,
        l4: Bytes,
        now: int,
        cargo: Piece = NO_CARGO,
        gso: int = 0,
        unchecked: bool = False,
    ) -> None:
        """As `Host.send`."""
        path = self._paths.get(destination)
        if path is None or now >= path.until:
            path = self._path(protocol, destination, now)
            if path is None:
                self._no_way(protocol, destination, l4, icmp.NET_UNREACHABLE)
                return
        length = ipv4.HEADER_BYTES + len(l4) + cargo.length
        if length > self.mtu and not gso:
            self._send_cut(path, protocol, l4, now, cargo)
            return
        if protocol == ipv4.TCP:
            ident, cut = 0, ipv4.DONT_FRAGMENT  # atomic: no identification is needed (RFC 6864)
        else:
            ident, cut = self._next_ident(), 0
        header = self._header(path, protocol, length, ident, cut) + l4
        frame = Frame(header, cargo, gso, L4_AT if unchecked else 0)
        if path.until:
            self.out.append(frame)
        else:
            self._wait(path, Waiting((frame,)), now)

    def ask(self, question: tuple[int, bytes]) -> None:
        """Send an ARP request."""
        address, mac = question
        packet = arp.Arp(arp.REQUEST, self.mac, self.address, ethernet.UNKNOWN, address)
        self.send_arp(mac or ethernet.BROADCAST, packet)

    def send_arp(self, mac: bytes, packet: arp.Arp) -> None:
        self.out.append(Frame(ethernet.build(mac, self.mac, ethernet.ARP) + arp.build(packet)))

    def release(self, packets: list[Waiting], mac: bytes) -> None:
        """Send what has waited for this Ethernet address."""
        begin = ethernet.build(mac, self.mac, ethernet.IPV4)
        for packet in packets:
            for frame in packet.frames:
                header = begin + frame.header[ethernet.HEADER_BYTES :]
                self.out.append(frame._replace(header=header))

    def forget_paths(self) -> None:
        """Neighbours have changed."""
        self._paths.clear()

    def settle(self) -> None:
        """Send the questions of the neighbours' table, and say who is not there."""
        for question in self.neighbours.questions:
            self.ask(question)
        self.neighbours.questions.clear()
        for packet in self.neighbours.failed:
            header = packet.frames[0].header
            destination = int.from_bytes(header[L4_AT - 4 : L4_AT], "big")
            self._no_way(header[23], destination, header[L4_AT:], icmp.HOST_UNREACHABLE)
        self.neighbours.failed.clear()

    def _header(self, path: Path, protocol: int, length: int, ident: int, cut: int) -> bytes:
        check = 0xFFFF - ((path.sum + length + ident + cut + protocol) % 0xFFFF or 0xFFFF)
        return _HEADERS.pack(
            path.begin, length, ident, cut, path.ttl, protocol, check, path.addresses
        )

    def _send_cut(self, path: Path, protocol: int, l4: Bytes, now: int, cargo: Piece) -> None:
        """In fragments. Only what is inline can be cut."""
        too_long = ipv4.HEADER_BYTES + len(l4) > ipv4.MOST_BYTES
        if cargo.length or too_long or protocol == ipv4.TCP:
            self.dropped += 1
            return
        ident = self._next_ident()
        frames = []
        for piece in ipv4.fragments(l4, self.mtu):
            length = ipv4.HEADER_BYTES + len(piece.payload)
            header = self._header(path, protocol, length, ident, piece.field)
            frames.append(Frame(b"".join((header, piece.payload))))
        if path.until:
            self.out += frames
        else:
            self._wait(path, Waiting(tuple(frames)), now)

    def _path(self, protocol: int, destination: int, now: int) -> Path | None:
        """A path, of which `until` is 0 as long as the neighbour is not known."""
        path = self._paths.get(destination) or self._new_path(protocol, destination)
        if path is None or path.until == _ALWAYS:
            return path
        neighbour = self.neighbours.find(path.hop, now)
        self.settle()
        if neighbour.mac:
            path.leads_to(neighbour.mac, self.mac, neighbour.ask_at or neighbour.fresh_until)
        else:
            path.until = 0
        return path

    def _new_path(self, protocol: int, destination: int) -> Path | None:
        group = self.is_group(destination)
        if group and protocol == ipv4.UDP:
            multicast = addresses.is_multicast(destination)
            ttl = _MULTICAST_TTL if multicast else ipv4.DEFAULT_TTL
            path = Path(self.address, destination, ttl)
            mac = ethernet.multicast(destination) if multicast else ethernet.BROADCAST
            path.leads_to(mac, self.mac, _ALWAYS)
            return path
        hop = self.next_hop(destination)
        if group or not hop:
            return None
        if len(self._paths) >= _MOST_PATHS:
            self._paths.clear()
        path = self._paths[destination] = Path(self.address, destination, ipv4.DEFAULT_TTL)
        path.hop = hop
        return path

    def _wait(self, path: Path, packet: Waiting, now: int) -> None:
        self.neighbours.wait(self.neighbours.find(path.hop, now), packet)
        self.settle()

    def _no_way(self, protocol: int, destination: int, l4: Bytes, code: int) -> None:
        near, far = int.from_bytes(l4[:2], "big"), int.from_bytes(l4[2:4], "big")
        if protocol == ipv4.ICMP:
            if l4[0] != icmp.ECHO_REQUEST:
                return  # an answer: nobody waits to hear of it
            near, far = int.from_bytes(l4[4:6], "big"), int.from_bytes(l4[6:8], "big")
        sequence = int.from_bytes(l4[4:8], "big") if protocol == ipv4.TCP else 0
        quad = (self.address, near, destination, far)
        self.events.append(Unreachable(protocol, quad, icmp.UNREACHABLE, code, sequence))

    def _next_ident(self) -> int:
        ident, self.ident = self.ident, (self.ident + 1) & 0xFFFF
        return ident
