"""stack: the layers of TCP/IP, wired. Pure: frames and the time come in, frames go out.

    stack.arrived(frame, vouched, now)      a frame has come
    stack.tick(now); stack.deadline         what is due; when that is next, 0: never
    stack.hear(now)                         what one layer has to say to another
    stack.frames(now)                       what is to be sent: only when what has changed is stored
    stack.restless                          either of these two is wanted

Who calls into the layers themselves (`table`, `host`, `resolver`) does so between two commits.
"""

from __future__ import annotations

from collections.abc import Callable

from servers.net import checksum, ipv4
from servers.net.events import EchoReply, Event, Unreachable
from servers.net.frames import NO_CARGO, Frame
from servers.net.host import Host
from servers.net.malformed import Malformed
from servers.net.resolver import Resolver
from servers.net.ring import Piece
from servers.net.settings import Settings
from servers.net.store import PASTS
from servers.net.tcp import segment
from servers.net.tcp.block import Config
from servers.net.tcp.entries import Slots
from servers.net.tcp.limits import Limits
from servers.net.tcp.quad import Quad
from servers.net.tcp.table import Sending, Table
from ukernel.abi.network import OFFLOAD_CHECKSUM, OFFLOAD_SEGMENT, Card

HEADERS = 40  # bytes of IPv4 and TCP, without options
LONGEST = 65_483  # payload of a long segment, which is an IPv4 packet with 52 bytes of headers
Heard = Callable[[Event], None]


class Stack:
    """One address on one card. `ident` is random; `heard` is told what ICMP says of pings."""

    def __init__(
        self, settings: Settings, card: Card, secret: bytes, places: Slots, ident: int, heard: Heard
    ) -> None:
        long = LONGEST if card.offloads & OFFLOAD_SEGMENT else 0
        config = Config(mss=card.mtu - HEADERS, longest=long)
        self.limits = Limits(time_waits=PASTS)
        self.table = Table(settings.address, config, secret, places, self.limits)
        self.host = Host(
            card.mac, settings.address, settings.prefix, settings.gateway, card.mtu, ident
        )
        self.resolver = Resolver(settings.nameservers)
        self.settings = settings
        self._heard = heard
        self._adds_up = bool(card.offloads & OFFLOAD_CHECKSUM)

    @property
    def deadline(self) -> int:
        """When `tick` is wanted; 0: never."""
        wanted = (self.table.deadline, self.host.deadline, self.resolver.deadline)
        return min((when for when in wanted if when), default=0)

    def arrived(self, frame: memoryview, vouched: bool, now: int) -> None:
        """A frame has come. `vouched`: its TCP or UDP checksum need not be looked at."""
        packet = self.host.arrived(frame, now, vouched)
        if packet is not None:
            try:
                parsed = segment.parse(packet.payload)
            except Malformed:
                self.host.counts.malformed += 1
            else:
                self.table.arrived(packet.source, packet.destination, parsed, now)
        if self.host.events:
            self.hear(now)

    def tick(self, now: int) -> None:
        """Whatever is due."""
        for part in (self.table, self.host, self.resolver):
            if 0 < part.deadline <= now:
                part.tick(now)
        self.hear(now)

    def link_restored(self, now: int) -> None:
        """The card's driver is back: do not wait for timers."""
        self.host.link_restored(now)
        self.table.link_restored(now)

    @property
    def restless(self) -> bool:
        """Whether there is something to hear, or to send, that is not of TCP."""
        return bool(self.host.events or self.host.out or self.resolver.out)

    def hear(self, now: int) -> None:
        """Pass on what ICMP, or our own search for a way, has to say."""
        events = self.host.events.copy()
        self.host.events.clear()
        for event in events:
            match event:
                case Unreachable(protocol=ipv4.TCP, quad=quad, sequence=sequence):
                    self.table.unreachable(Quad(*quad), now, sequence)
                case EchoReply() | Unreachable(protocol=ipv4.ICMP):
                    self._heard(event)
                case _:
                    pass  # PathMtu too: the link's MTU is the only one that is known

    # --- what goes ------------------------------------------------------------------------------

    def frames(self, now: int) -> list[Frame]:
        """What is to be sent, when everything that it tells the peers is in the store."""
        for sending in self.table.take_out():
            self._send(sending, now)
        for query in self.resolver.out:
            self.host.send_udp(query.port, query.server, DNS_PORT, query.data, now)
        self.resolver.out.clear()
        return self.host.take()

    def _send(self, sending: Sending, now: int) -> None:
        quad, (flags, seq, ack, window, options, at, length, gso), entry = sending
        header = bytearray(
            segment.pack_header(quad.local_port, quad.remote_port, seq, ack, flags, window, options)
        )
        total = checksum.pseudo(quad.local, quad.remote, ipv4.TCP, len(header) + length)
        cargo, payload = NO_CARGO, memoryview(b"")
        if length and entry is not None:
            ring = entry.connection.send
            offset, _ = ring.piece(at, length)
            cargo, payload = (
                Piece(ring.base + offset, length),
                ring.memory[offset : offset + length],
            )
        if not self._adds_up:
            total = checksum.finish(total + checksum.ones(header) + checksum.ones(payload))
        place = segment.CHECKSUM_AT
        header[place : place + 2] = total.to_bytes(2, "big")
        self.host.send(ipv4.TCP, quad.remote, bytes(header), now, cargo, gso, self._adds_up)


DNS_PORT = 53
