"""station: whole frames on the cable of a running system, made by hand (AF_PACKET, packet(7)).

`Station` is a host of its own with an address that is nobody else's, whose TCP is whatever the
test says; `Injector` puts frames on the cable as if somebody else had sent them.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Iterable

from servers.net import arp, checksum, ethernet, icmp, ipv4
from servers.net.addresses import number
from servers.net.malformed import Malformed
from servers.net.tcp import segment
from servers.net.tcp.segment import ACK, NO_OPTIONS, RST, SYN, Segment
from tests.journey.web import PATIENCE_S, Cable, Site
from tests.servers.net.peer import arp_frame, ip_frame

EVERYTHING = 3  # ETH_P_ALL
INTERFACE = "tap0"
LARGEST = 1 << 17  # of a frame that Linux has not cut yet
BATCH = 200  # frames that Linux's queue has room for (txqueuelen: 500)
IDENT = 0x5EED  # of our echoes
MAC = bytes.fromhex("02000000a001")


def listening(cable: Cable) -> socket.socket:
    """A socket for whole frames."""
    line = cable.opened(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
    line.bind((INTERFACE, EVERYTHING))
    return line


def tcp_frame(to: bytes, source: int, destination: int, made: Segment) -> bytes:
    """A segment with its checksum, in a frame."""
    options = segment.pack_options(**made.options._asdict()) if made.options != NO_OPTIONS else b""
    header = segment.pack_header(
        made.source, made.destination, made.seq, made.ack, made.flags, made.window, options
    )
    text = bytearray(header + bytes(made.payload))
    total = checksum.pseudo(source, destination, ipv4.TCP, len(text)) + checksum.ones(text)
    place = segment.CHECKSUM_AT
    text[place : place + 2] = checksum.finish(total).to_bytes(2, "big")
    return ip_frame(ipv4.TCP, bytes(text), source, destination, to=to, mac=MAC)


class Injector:
    """Puts frames on the cable as if somebody else had sent them, and no faster than the system
    takes them: else Linux would drop what has no room in its queue."""

    def __init__(self, site: Site) -> None:
        self.peer = site.cable.peer
        self._line = listening(site.cable)
        self._echo = site.cable.opened(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._echo.settimeout(1.0)
        self._number = 0

    def close(self) -> None:
        self._line.close()
        self._echo.close()

    def put(self, frames: Iterable[bytes]) -> int:
        """How many were put; each has been looked at when this returns."""
        sent = 0
        for frame in frames:
            self._line.send(frame)
            sent += 1
            if sent % BATCH == 0:
                self.taken()
        self.taken()
        return sent

    def taken(self) -> None:
        """Wait for the answer to what comes last."""
        self._number = self._number + 1 & 0xFFFF
        name = IDENT.to_bytes(2, "big") + self._number.to_bytes(2, "big")
        asking = icmp.build(icmp.ECHO_REQUEST, 0, IDENT, self._number)
        for _ in range(int(PATIENCE_S)):  # each time for a second
            self._echo.sendto(asking, (self.peer, 0))
            with contextlib.suppress(TimeoutError):
                while self._echo.recv(LARGEST)[24:28] != name:
                    continue
                return
        raise AssertionError("the system does not answer")


class Station:
    """A host at `address` on the cable. It answers who asks for it, and the test does the rest."""

    def __init__(self, site: Site, address: str) -> None:
        self.line = listening(site.cable)
        self.address = number(address)
        self.peer = number(site.cable.peer)
        self.mac = bytes(6)  # the system's
        self._ask()

    def close(self) -> None:
        self.line.close()

    def _ask(self) -> None:
        asking = arp.Arp(arp.REQUEST, MAC, self.address, ethernet.UNKNOWN, self.peer)
        self.line.send(arp_frame(asking))
        while self.mac == bytes(6):
            self._take(lambda made: False)

    def say(self, made: Segment) -> None:
        self.line.send(tcp_frame(self.mac, self.address, self.peer, made))

    def hear(self, wanted: Callable[[Segment], bool] = lambda made: True) -> Segment:
        """The next segment from the system that is wanted."""
        while (found := self._take(wanted)) is None:
            continue
        return found

    def _take(self, wanted: Callable[[Segment], bool]) -> Segment | None:
        assert select.select([self.line], [], [], PATIENCE_S)[0], "nothing comes"
        frame = memoryview(self.line.recv(LARGEST))
        try:
            header = ethernet.parse(frame)
            rest = frame[ethernet.HEADER_BYTES :]
            if header.kind == ethernet.ARP:
                self._told(arp.parse(rest))
            elif header.destination == MAC and header.kind == ethernet.IPV4:
                packet = ipv4.parse(rest)
                made = segment.parse(packet.payload)
                return made if packet.protocol == ipv4.TCP and wanted(made) else None
        except Malformed:
            pass
        return None

    def _told(self, packet: arp.Arp) -> None:
        if packet.sender == self.peer and packet.operation == arp.REPLY:
            self.mac = packet.sender_mac
        if packet.operation == arp.REQUEST and packet.target == self.address:
            answer = arp.Arp(arp.REPLY, MAC, self.address, packet.sender_mac, packet.sender)
            self.line.send(arp_frame(answer, packet.sender_mac))


class Sniffer:
    """Sees what Linux sends to the system."""

    def __init__(self, site: Site) -> None:
        self.address = number("10.77.0.1")
        self._line = listening(site.cable)
        self._line.setblocking(False)

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(self, *raised: object) -> None:
        self._line.close()

    def last(self, port: int, remote: int) -> Segment:
        """The latest segment of a connection."""
        found: Segment | None = None
        with contextlib.suppress(BlockingIOError):
            while True:
                made = tcp_of(memoryview(self._line.recv(LARGEST)), self.address)
                if made is not None and (made.source, made.destination) == (port, remote):
                    found = made
        assert found is not None
        return found


def tcp_of(frame: memoryview, source: int) -> Segment | None:
    """The segment in a frame from `source`, if one is in it."""
    with contextlib.suppress(Malformed):
        if ethernet.parse(frame).kind == ethernet.IPV4:
            packet = ipv4.parse(frame[ethernet.HEADER_BYTES :])
            if (packet.protocol, packet.source) == (ipv4.TCP, source):
                return segment.parse(packet.payload)
    return None


class Call:
    """One connection of a station, the next number of either side."""

    def __init__(self, station: Station, port: int, remote: int, seq: int = 1000) -> None:
        self.station = station
        self.port, self.remote = port, remote
        self.seq, self.ack = seq, 0

    def say(self, flags: int = ACK, payload: bytes = b"") -> None:
        """A segment with the next numbers; they move on by what it has."""
        made = Segment(
            self.port, self.remote, self.seq, self.ack, flags, 65535, NO_OPTIONS,
            memoryview(payload),
        )  # fmt: skip
        self.station.say(made)
        self.seq += len(payload) + bool(flags & (SYN | segment.FIN))

    def hear(self, flags: int) -> Segment:
        """The next segment with these flags; what it has is acknowledged from now on."""

        def wanted(made: Segment) -> bool:
            ports = (made.source, made.destination) == (self.remote, self.port)
            assert not (ports and made.flags & RST), "reset"
            return ports and made.flags & flags == flags

        made = self.station.hear(wanted)
        self.ack = made.seq + len(made.payload) + bool(made.flags & (SYN | segment.FIN))
        return made
