"""host: Ethernet, ARP, IPv4, ICMP and UDP of one address on one card. Pure.

Frames go in by `arrived`, and come out in `out`, which the caller takes after each step, as it
takes and clears `events` and `udp.changed`. TCP is given to the caller, whole and with
its checksum looked at. Nothing that comes raises anything, and nothing that strangers can fill is
without a bound.
"""

from __future__ import annotations

from servers.net import addresses, arp, checksum, ethernet, icmp, ipv4, udp
from servers.net.counts import Counts
from servers.net.events import Conflict, EchoReply, Event, PathMtu, Unreachable
from servers.net.frames import NO_CARGO, Frame, Packet
from servers.net.malformed import Malformed
from servers.net.neighbours import Neighbour
from servers.net.reassembly import Reassembly
from servers.net.ring import Bytes, Piece
from servers.net.sending import Sender
from servers.net.tcp.budget import Budget

__all__ = ["Conflict", "EchoReply", "Event", "Frame", "Host", "Packet", "PathMtu", "Unreachable"]

ERRORS_PER_SECOND = 100  # ICMP errors that we send (RFC 1812 §4.3.2.8)
DEFEND_EACH_US = 10_000_000  # RFC 5227 §1.1: DEFEND_INTERVAL


class Host:
    """One station. Addresses are integers; `gateway` 0: there is none. `ident` is random, and
    where the identification of datagrams begins."""

    def __init__(
        self,
        mac: bytes,
        address: int,
        prefix: int,
        gateway: int = 0,
        mtu: int = 1500,
        ident: int = 0,
    ) -> None:
        if not ipv4.LEAST_MTU <= mtu <= ipv4.MOST_BYTES or not 0 <= prefix <= 32 or len(mac) != 6:
            raise ValueError(f"no such interface: MAC {mac.hex(':')}, /{prefix}, MTU {mtu}")
        self.mac = mac
        self.address = address
        self.mtu = mtu
        self.out: list[Frame] = []
        self.events: list[Event] = []
        self.udp = udp.Sockets()
        self.counts = Counts()
        self.reassembly = Reassembly()
        self._sender = Sender(mac, address, prefix, gateway, mtu, ident, self.out, self.events)
        self.neighbours = self._sender.neighbours
        self._errors = Budget(ERRORS_PER_SECOND)
        self._defended = 0

    @property
    def deadline(self) -> int:
        """When `tick` is wanted, or somewhat earlier; 0: never."""
        first, second = self.neighbours.deadline, self.reassembly.deadline
        return min(first, second) if first and second else first or second

    def announce(self) -> None:
        """Tell everybody where we are: at the start."""
        self.out.append(Frame(arp.announcement(self.mac, self.address)))

    def link_restored(self, now: int) -> None:
        """The card's driver is back, or the link: announce us, and doubt all neighbours."""
        self.announce()
        self.neighbours.doubt_all(now)
        self._sender.forget_paths()
        self._sender.settle()

    def tick(self, now: int) -> None:
        """What is due: questions again, and giving up."""
        if self.neighbours.deadline and now >= self.neighbours.deadline:
            self.neighbours.tick(now)
            self._sender.settle()
        for first in self.reassembly.tick(now):
            self._complain(icmp.TIME_EXCEEDED, icmp.REASSEMBLY_TIME_EXCEEDED, first, now)

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
        """Send `l4`, a header and what follows inline, and `cargo` out of the region. What is
        longer than the MTU is cut by the card if `gso` says so, else into fragments if all of it
        is inline. Without a way there is an event Unreachable, at once or later."""
        self._sender.send(protocol, destination, l4, now, cargo, gso, unchecked)

    def send_udp(self, port: int, destination: int, to_port: int, data: Bytes, now: int) -> None:
        """Send a datagram of at most udp.MOST_BYTES bytes."""
        l4 = udp.build(self.address, port, destination, to_port, data)
        self._sender.send(ipv4.UDP, destination, l4, now)

    def ping(self, destination: int, ident: int, sequence: int, data: Bytes, now: int) -> None:
        """Send an ICMP echo of at most icmp.MOST_ECHO_BYTES bytes; an EchoReply or Unreachable
        follows, or nothing."""
        l4 = icmp.build(icmp.ECHO_REQUEST, 0, ident, sequence, data)
        self._sender.send(ipv4.ICMP, destination, l4, now)

    def route(self, destination: int, now: int) -> bytes | None:
        """The Ethernet address that packets go to; None while it is not known (it is asked for
        then), and if there is no way."""
        hop = self._sender.next_hop(destination)
        if not hop:
            return None
        neighbour = self.neighbours.find(hop, now)
        self._sender.settle()
        return neighbour.mac or None

    def withdraw(self, first: int, end: int) -> None:
        """Never send cargo within these offsets of the region that has not been sent yet: before
        somebody else gets this memory."""
        self.neighbours.withdraw(first, end)

    def arrived(self, frame: memoryview, now: int, vouched: bool) -> Packet | None:
        """Take a frame; the TCP in it, if any. `vouched`: what is above IPv4 has a right checksum,
        or one that is left to us because it never was on a wire."""
        self.counts.frames_in += 1
        self.counts.bytes_in += len(frame)
        try:
            header = ethernet.parse(frame)
            if header.kind == ethernet.IPV4:
                return self._ipv4(header, frame[ethernet.HEADER_BYTES :], now, vouched)
            self._other(header, frame, now)
        except Malformed:
            self.counts.malformed += 1
        return None

    def take(self) -> list[Frame]:
        """The frames to be sent, which are counted now, and not in `out` any more."""
        frames = self.out.copy()
        self.out.clear()
        self.counts.frames_out += len(frames)
        self.counts.bytes_out += sum(len(frame.header) + frame.cargo.length for frame in frames)
        return frames

    def _other(self, header: ethernet.Header, frame: memoryview, now: int) -> None:
        if header.kind in ethernet.TAGGED:
            self.counts.tagged += 1
        elif header.kind != ethernet.ARP:
            self.counts.foreign += 1
        elif header.destination != self.mac and not ethernet.is_group(header.destination):
            self.counts.not_ours += 1
        else:
            self._arp(arp.parse(frame[ethernet.HEADER_BYTES :]), now)

    def _ipv4(
        self, ether: ethernet.Header, data: memoryview, now: int, vouched: bool
    ) -> Packet | None:
        packet = ipv4.parse(data)
        if not self._for_us(ether, packet):
            self.counts.not_ours += 1
            return None
        if self._martian(packet.source):
            self.counts.martian += 1
            return None
        if packet.cut & ipv4.FRAGMENT:
            whole = self.reassembly.add(packet, now)
            if whole is None:
                return None
            packet, vouched = whole, False
        if packet.protocol == ipv4.TCP:
            return _tcp(packet, vouched)
        if packet.protocol == ipv4.UDP:
            self._udp(packet, now, vouched)
        elif packet.protocol == ipv4.ICMP:
            self._icmp(packet, now)
        else:
            self.counts.unwanted += 1
            self._complain(icmp.UNREACHABLE, icmp.PROTOCOL_UNREACHABLE, packet, now)
        return None

    def _for_us(self, ether: ethernet.Header, packet: ipv4.Packet) -> bool:
        """Broadcast and multicast are for UDP alone. Packets for us come in frames for us: else
        one broadcast frame would be answered by all (RFC 1122 §3.3.6)."""
        if packet.destination == self.address:
            return ether.destination == self.mac
        if packet.protocol != ipv4.UDP or not self._sender.is_group(packet.destination):
            return False
        return ether.destination == self.mac or ethernet.is_group(ether.destination)

    def _martian(self, source: int) -> bool:
        """Whether nobody else can have sent from this address."""
        ours = source in (self.address, self._sender.broadcast)
        return ours or addresses.never_a_source(source)

    def _udp(self, packet: ipv4.Packet, now: int, vouched: bool) -> None:
        datagram = udp.parse(packet, vouched)
        if self.udp.arrived(packet, datagram):
            return
        self.counts.unwanted += 1
        self._complain(icmp.UNREACHABLE, icmp.PORT_UNREACHABLE, packet, now)

    def _icmp(self, packet: ipv4.Packet, now: int) -> None:
        message = icmp.parse(packet.payload)
        if message.kind == icmp.ECHO_REQUEST:
            self._sender.send(ipv4.ICMP, packet.source, icmp.reply(packet.payload), now)
        elif message.kind == icmp.ECHO_REPLY:
            data = bytes(message.payload)
            self.events.append(EchoReply(packet.source, message.first, message.second, data, now))
        elif message.kind in icmp.ERRORS:
            self._error(icmp.about(message, self.address))

    def _error(self, event: Unreachable | PathMtu | None) -> None:
        """Redirects and source quench are not in here: they are believed no more (RFC 6633)."""
        if event is None:
            return
        if event.protocol == ipv4.UDP and isinstance(event, Unreachable):
            self.udp.unreachable(event)
        self.events.append(event)

    def _complain(self, kind: int, code: int, packet: ipv4.Packet, now: int) -> None:
        """Send an ICMP error: never about what many have got, and not too many (RFC 1122
        §3.2.2). About ICMP there is only that fragments of it are missing: not said either."""
        answerable = packet.destination == self.address and packet.protocol != ipv4.ICMP
        if answerable and self._errors.take(now):
            self._sender.send(ipv4.ICMP, packet.source, icmp.error(kind, code, packet), now)

    def _arp(self, packet: arp.Arp, now: int) -> None:
        if packet.sender_mac == self.mac:
            return
        for_us = packet.target == self.address
        if packet.sender == self.address:
            self._conflict(packet.sender_mac, now)
            return
        if packet.sender == addresses.ANY:
            pass  # somebody asks whether it may have the target's address (RFC 5227 §2.1.1)
        elif self._sender.next_hop(packet.sender) == packet.sender:
            table = self.neighbours
            learn = table.asked if for_us and packet.operation == arp.REQUEST else table.told
            self._learned(learn(packet.sender, packet.sender_mac, now))
        else:
            self.counts.martian += 1
            return
        if for_us and packet.operation == arp.REQUEST:
            mac, sender = packet.sender_mac, packet.sender
            answer = arp.Arp(arp.REPLY, self.mac, self.address, mac, sender)
            self._sender.send_arp(mac, answer)

    def _learned(self, neighbour: Neighbour | None) -> None:
        if neighbour is None:
            return
        self._sender.release(self.neighbours.take_waiting(neighbour), neighbour.mac)
        self._sender.forget_paths()
        self._sender.settle()

    def _conflict(self, mac: bytes, now: int) -> None:
        """Somebody else says that it has our address: say that we have, but do not quarrel
        (RFC 5227 §2.4 b)."""
        self.counts.conflicts += 1
        if self._defended and now < self._defended + DEFEND_EACH_US:
            return
        self._defended = now
        self.events.append(Conflict(self.address, mac))
        self.announce()


def _tcp(packet: ipv4.Packet, vouched: bool) -> Packet:
    """Raises Malformed for a wrong checksum."""
    protocol, source, destination, payload = (
        packet.protocol,
        packet.source,
        packet.destination,
        packet.payload,
    )
    if not vouched:
        total = checksum.pseudo(source, destination, protocol, len(payload))
        if not checksum.verify(payload, total):
            raise Malformed("wrong checksum of a TCP segment")
    return Packet(protocol, source, destination, payload, True)
