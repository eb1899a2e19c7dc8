"""card: the shortest driver of a network card, and frames for it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

from hwsim.iommu import Iommu
from hwsim.switch import Wire as Link
from tests.hwsim.harness import Line, Region, Wire
from ukernel.abi import virtio
from ukernel.abi.virtio import (
    NET_GSO_TCPV4,
    NET_HDR_F_NEEDS_CSUM,
    NET_HEADER,
    NET_HEADER_BYTES,
    NetHeader,
    Status,
)
from ukernel.lib.virtio.cable import Cable
from ukernel.lib.virtio.net import Net
from ukernel.lib.virtqueue import Segment, Virtqueue, negotiate, start

ALL = virtio.NET_F_CSUM | virtio.NET_F_GUEST_CSUM | virtio.NET_F_HOST_TSO4 | virtio.NET_F_GUEST_TSO4
LONG = NET_HEADER_BYTES + virtio.NET_MOST_BYTES
SLOT = -(-LONG // 4096) * 4096
PLAIN = NetHeader()
NEAR, FAR = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


class CardDriver:
    """A card with its driver up: `send` and `received`, in slots of one region each way."""

    def __init__(
        self, cable: Cable, features: int = ALL, slots: int = 4, mac: bytes = NEAR, mtu: int = 1500
    ) -> None:
        self.line = Line()
        self.domain = Iommu("nic0")
        self.net = Net("nic0", self.domain, self.line, cable, mac, mtu)
        self.up(features, slots)

    def up(self, features: int = ALL, slots: int = 4) -> None:
        self.domain.assign("nic")
        self.wire = Wire(self.net)
        self.features = negotiate(self.wire, features | virtio.F_EVENT_IDX)
        self.receive: Virtqueue[Region] = Virtqueue(
            self.wire, virtio.NET_RECEIVEQ, 16, self.features
        )
        self.transmit: Virtqueue[None] = Virtqueue(
            self.wire, virtio.NET_TRANSMITQ, 16, self.features
        )
        self.memory = self.wire.dma(SLOT)
        start(self.wire)
        for _ in range(slots):
            self.give()

    def give(self, size: int = LONG, cuts: Sequence[int] = ()) -> Region:
        """A buffer for a frame that comes."""
        region = self.wire.dma(size)
        edges = [0, *cuts, size]
        chain = [Segment(region.iova + a, b - a, True) for a, b in pairwise(edges)]
        self.receive.submit(chain, region)
        self.receive.kick()
        return region

    def send(self, frame: bytes, header: NetHeader = PLAIN, cuts: Sequence[int] = ()) -> None:
        data = NET_HEADER.pack(*header) + frame
        self.memory.view[: len(data)] = data
        edges = [0, *cuts, len(data)]
        iova = self.memory.iova
        self.transmit.submit([Segment(iova + a, b - a, False) for a, b in pairwise(edges)], None)
        self.transmit.kick()
        assert [written for _, written in self.transmit.completed()] == [0]

    def received(self) -> list[tuple[NetHeader, bytes]]:
        """What has come; its buffers are given again."""
        found = []
        for region, length in self.receive.completed():
            header = NetHeader(*NET_HEADER.unpack_from(region.view))
            found.append((header, bytes(region.view[NET_HEADER_BYTES:length])))
            if length:
                self.receive.submit([Segment(region.iova, len(region.view), True)], region)
        self.receive.kick()
        return found

    def frames(self) -> list[bytes]:
        return [frame for _, frame in self.received()]

    @property
    def broken(self) -> bool:
        return bool(self.net.status & Status.NEEDS_RESET)


def pair(near: int = ALL, far: int = ALL) -> tuple[CardDriver, CardDriver]:
    """Two cards at the ends of a wire; what their drivers accept."""
    link = Link()
    return CardDriver(link.port(), near), CardDriver(link.port(), far, mac=FAR)


def ones(data: bytes) -> int:
    """The internet checksum as RFC 1071 has it, slowly."""
    words: tuple[int, ...] = struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(packet: bytes) -> bytes:
    """The header that TCP and UDP sum up before theirs, of an IPv4 packet."""
    head = 4 * (packet[0] & 15)
    return packet[12:20] + struct.pack(">BBH", 0, packet[9], len(packet) - head)


def checks_out(frame: bytes) -> bool:
    """Whether both checksums of a TCP/IPv4 or UDP/IPv4 frame are right."""
    packet = frame[14:]
    head = 4 * (packet[0] & 15)
    return ones(packet[:head]) == 0xFFFF and ones(pseudo(packet) + packet[head:]) == 0xFFFF


def segment(
    payload: bytes, flags: int = 0x18, seq: int = 1000, destination: bytes = FAR, options: int = 0
) -> bytes:
    """A TCP/IPv4 frame whose TCP checksum field holds the sum of the pseudo header."""
    words = 5 + options // 4
    tcp = (
        struct.pack(">HHIIBBHHH", 4242, 80, seq, 7, words << 4, flags, 512, 0, 0)
        + b"\x01" * options
    )
    total = 20 + len(tcp) + len(payload)
    ip = bytearray(
        struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, total & 0xFFFF, 77, 0x4000, 64, 6, 0,
            bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)),
        )
    )  # fmt: skip
    ip[10:12] = (0xFFFF - ones(bytes(ip))).to_bytes(2, "big")
    whole = bytearray(destination + NEAR + b"\x08\x00" + bytes(ip) + tcp + payload)
    whole[50:52] = ones(pseudo(bytes(whole[14:]))).to_bytes(2, "big")
    return bytes(whole)


def unchecked(options: int = 0, size: int = 0) -> NetHeader:
    """The header of such a frame: its checksum is to be completed, and with `size` it is cut."""
    if size:
        return NetHeader(NET_HDR_F_NEEDS_CSUM, NET_GSO_TCPV4, 54 + options, size, 34, 16)
    return NetHeader(NET_HDR_F_NEEDS_CSUM, csum_start=34, csum_offset=16)


def arp(target: bytes = bytes((10, 0, 0, 2)), source: bytes = bytes((10, 0, 0, 1))) -> bytes:
    """Who has `target`? Asked by NEAR."""
    ask = struct.pack(">HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, NEAR, source, bytes(6), target)
    return b"\xff" * 6 + NEAR + b"\x08\x06" + ask


def plain(number: int = 0, size: int = 60, destination: bytes = FAR, source: bytes = NEAR) -> bytes:
    """A frame of nothing in particular (ethertype 0x88B5: for experiments)."""
    return (destination + source + b"\x88\xb5" + number.to_bytes(4, "big")).ljust(size, b".")
