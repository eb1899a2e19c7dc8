"""fuzz: a host under frames of all kinds, right, mutated, cut off and random.

`python -m tests.servers.net.fuzz 1000000 [SEED]` runs as many frames as that.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable

from servers.net import addresses, arp, checksum, ethernet, icmp, ipv4, neighbours, reassembly, udp
from servers.net.host import Host
from tests.servers.net.peer import OTHER_MAC, OUR_MAC, PEER, PEER_MAC, US, make_host

_MACS = (OUR_MAC, PEER_MAC, OTHER_MAC, ethernet.BROADCAST, bytes(6), ethernet.multicast(1))
_ADDRESSES = (US, PEER, US | 0xFF, addresses.EVERYBODY, 0, 0x7F000001, 0xE0000001, 0xC0000209)
_STEP_US = 20_000


class Fuzzer:
    """One host and its dice; the same seed does the same."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.host = make_host(mtu=self.dice.choice([68, 576, 1500, 65535]))
        self.socket = self.host.udp.bind(53)
        self.now = 1
        self.answers = 0  # frames that the host has sent
        self.given = 0  # TCP packets
        self.kinds: tuple[Callable[[], bytes], ...] = (
            self.arp, self.udp, self.echo, self.error, self.tcp, self.fragment, self.noise,
        )  # fmt: skip

    def step(self) -> None:
        """One frame, now and then something else; then everything that must always hold."""
        dice = self.dice
        self.now += dice.choice((0, 1, _STEP_US, 50 * _STEP_US))
        frame = self.mutated(dice.choice(self.kinds)())
        packet = self.host.arrived(memoryview(frame), self.now, dice.random() < 0.3)
        if packet is not None:
            self.given += 1
            assert packet.protocol == ipv4.TCP
            assert packet.destination == US
        if dice.random() < 0.1:
            self.talk()
        if self.host.deadline and self.host.deadline <= self.now:
            self.host.tick(self.now)
        self.check(self.host)

    def check(self, host: Host) -> None:
        for frame in host.take():
            self.answers += 1
            assert len(frame.header) <= host.mtu + ethernet.HEADER_BYTES
            if frame.header[12:14] == b"\x08\x00":
                ipv4.parse(memoryview(frame.header)[ethernet.HEADER_BYTES :])
            else:
                arp.parse(frame.header[ethernet.HEADER_BYTES :])
        host.events.clear()
        host.udp.changed.clear()
        assert len(host.reassembly) <= reassembly.MOST_DATAGRAMS
        assert 0 <= host.reassembly.bytes <= reassembly.MOST_BYTES
        assert len(host.neighbours.entries) <= neighbours.MOST_ENTRIES
        assert 0 <= host.neighbours.waiting <= neighbours.MOST_WAITING
        assert self.socket.waiting_bytes <= udp.QUEUE_BYTES
        assert not host.deadline or host.deadline > self.now

    def talk(self) -> None:
        """What the layers above do."""
        dice, to = self.dice, self.address()
        match dice.randrange(4):
            case 0:
                self.host.send_udp(53, to, 53, bytes(dice.choice((0, 100, 3000))), self.now)
            case 1:
                self.host.ping(to, 1, 1, bytes(dice.choice((0, 100, 3000))), self.now)
            case 2:
                self.host.send(ipv4.TCP, to, bytes(20), self.now)
            case _:
                while self.socket.take():
                    pass

    def mutated(self, frame: bytes) -> bytes:
        dice = self.dice
        data = bytearray(frame)
        match dice.randrange(5):
            case 0 if data:
                for _ in range(dice.randrange(1, 4)):
                    data[dice.randrange(min(len(data), 80))] = dice.randrange(256)
                self.repair(data)
            case 1:
                del data[dice.randrange(len(data) + 1) :]
            case 2:
                data += bytes(dice.randrange(40))
        return bytes(data)

    def repair(self, data: bytearray) -> None:
        """Mostly, so that a mutation is not found by the first checksum already."""
        header = (data[14] & 15) * 4 if len(data) > 14 else 0
        if 20 <= header <= len(data) - 14 and self.dice.random() < 0.8:
            data[24:26] = bytes(2)
            total = checksum.ones(data[14 : 14 + header])
            data[24:26] = checksum.finish(total).to_bytes(2, "big")

    def address(self) -> int:
        if self.dice.random() < 0.5:
            return self.dice.choice(_ADDRESSES)
        return US & 0xFFFFFF00 | self.dice.randrange(256)

    def text(self) -> bytes:
        return self.dice.randbytes(self.dice.choice((0, 1, 8, 33, 120, 700)))

    def ip(self, protocol: int, payload: bytes, ident: int = 0, cut: int = 0) -> bytes:
        likely = self.dice.random() < 0.8
        source = PEER if likely else self.address()
        to = US if likely else self.address()
        mac = OUR_MAC if likely else self.dice.choice(_MACS)
        header = ipv4.build(protocol, source, to, len(payload), ident, cut)
        return ethernet.build(mac, PEER_MAC, ethernet.IPV4) + header + payload

    def arp(self) -> bytes:
        dice = self.dice
        mac = dice.choice(_MACS)
        target = US if dice.random() < 0.5 else self.address()
        operation = dice.choice((arp.REQUEST, arp.REPLY, 3))
        packet = arp.Arp(operation, mac, self.address(), dice.choice(_MACS), target)
        to = dice.choice((OUR_MAC, ethernet.BROADCAST))
        return ethernet.build(to, dice.choice(_MACS), ethernet.ARP) + arp.build(packet)

    def udp(self) -> bytes:
        port = self.dice.choice((53, 54))
        return self.ip(ipv4.UDP, udp.build(PEER, 9, US, port, self.text()))

    def echo(self) -> bytes:
        kind = self.dice.choice((icmp.ECHO_REQUEST, icmp.ECHO_REPLY, self.dice.randrange(256)))
        return self.ip(ipv4.ICMP, icmp.build(kind, 0, 1, 2, self.text()))

    def error(self) -> bytes:
        """About something that we might have sent, which is mutated as well."""
        dice = self.dice
        quoted = ipv4.build(dice.choice((1, 6, 17)), US, PEER, dice.randrange(2000))
        quoted = self.mutated(quoted + self.text())
        kind = dice.choice((3, 3, 4, 5, 11, 12))
        second = dice.randrange(2000)
        return self.ip(ipv4.ICMP, icmp.build(kind, dice.randrange(6), 0, second, quoted))

    def tcp(self) -> bytes:
        text = bytearray(self.text().ljust(20, b"\0"))
        text[16:18] = bytes(2)
        total = checksum.pseudo(PEER, US, ipv4.TCP, len(text)) + checksum.ones(text)
        text[16:18] = checksum.finish(total).to_bytes(2, "big")
        return self.ip(ipv4.TCP, bytes(text))

    def fragment(self) -> bytes:
        """Of one of few datagrams, so that some become whole and others overlap."""
        dice = self.dice
        more = dice.choice((0, ipv4.MORE_FRAGMENTS, ipv4.MORE_FRAGMENTS))
        start = dice.choice((0, 1, 2, 3, 4, 8188, dice.randrange(8192)))
        data = dice.randbytes(dice.choice((8, 8, 8, 16, 24, 1400, 13)))
        protocol = dice.choice((1, 6, 17, 200))
        return self.ip(protocol, data, dice.randrange(400), more | start)

    def noise(self) -> bytes:
        kind = self.dice.choice((b"\x08\x00", b"\x08\x06", b"\x81\x00", b"\x12\x34"))
        return self.dice.choice(_MACS) + PEER_MAC + kind + self.text()


def run(frames: int, seed: int) -> Fuzzer:
    fuzzer = Fuzzer(seed)
    for _ in range(frames):
        fuzzer.step()
    return fuzzer


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() & 0xFFFFFF
    print(f"{count} frames, seeds from {seed}")
    each = 100_000
    for first in range(0, count, each):
        fuzzer = run(min(each, count - first), seed + first)
        print(f"{first + each}: {fuzzer.answers} answers, {fuzzer.given} given on", flush=True)


if __name__ == "__main__":
    main()
