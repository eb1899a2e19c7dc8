"""peer: another station on the link, which builds what the tests send to a host."""

from __future__ import annotations

from servers.net import arp, checksum, ethernet, icmp, ipv4, udp
from servers.net.addresses import number
from servers.net.host import Frame, Host, Packet

US = number("10.0.0.2")
PEER = number("10.0.0.1")
FAR = number("192.0.2.9")
OUR_MAC = bytes.fromhex("020000000002")
PEER_MAC = bytes.fromhex("020000000001")
OTHER_MAC = bytes.fromhex("020000000003")
SECOND = 1_000_000


def make_host(mtu: int = 1500, gateway: int = PEER, prefix: int = 24) -> Host:
    return Host(OUR_MAC, US, prefix, gateway, mtu, ident=7)


def acquainted(mtu: int = 1500) -> Host:
    """A host that knows where its peer is."""
    host = make_host(mtu)
    arrive(host, asks())
    host.out.clear()
    return host


def arrive(host: Host, frame: bytes, now: int = 0, vouched: bool = False) -> Packet | None:
    return host.arrived(memoryview(frame), now, vouched)


def arp_frame(packet: arp.Arp, to: bytes = ethernet.BROADCAST) -> bytes:
    return ethernet.build(to, packet.sender_mac, ethernet.ARP) + arp.build(packet)


def asks(mac: bytes = PEER_MAC, sender: int = PEER, target: int = US) -> bytes:
    return arp_frame(arp.Arp(arp.REQUEST, mac, sender, ethernet.UNKNOWN, target))


def answers(mac: bytes = PEER_MAC, sender: int = PEER) -> bytes:
    return arp_frame(arp.Arp(arp.REPLY, mac, sender, OUR_MAC, US), OUR_MAC)


def ip_frame(  # every field of both headers
    protocol: int,
    payload: bytes,
    source: int = PEER,
    destination: int = US,
    ident: int = 1,
    cut: int = 0,
    to: bytes = OUR_MAC,
    mac: bytes = PEER_MAC,
) -> bytes:
    header = ipv4.build(protocol, source, destination, len(payload), ident, cut)
    return ethernet.build(to, mac, ethernet.IPV4) + header + payload


def udp_frame(
    data: bytes, port: int = 53, source: int = PEER, destination: int = US, to: bytes = OUR_MAC
) -> bytes:
    payload = udp.build(source, 4000, destination, port, data)
    return ip_frame(ipv4.UDP, payload, source, destination, to=to)


def echo_frame(data: bytes, source: int = PEER, destination: int = US) -> bytes:
    payload = icmp.build(icmp.ECHO_REQUEST, 0, 1, 2, data)
    return ip_frame(ipv4.ICMP, payload, source, destination)


def tcp_frame(payload: bytes, source: int = PEER, right: bool = True) -> bytes:
    """Not TCP in more than its checksum."""
    text = bytearray(payload.ljust(20, b"\1"))
    text[16:18] = bytes(2)
    total = checksum.pseudo(source, US, ipv4.TCP, len(text)) + checksum.ones(text)
    text[16:18] = (checksum.finish(total) ^ (not right)).to_bytes(2, "big")
    return ip_frame(ipv4.TCP, bytes(text), source)


def fragment_frames(protocol: int, payload: bytes, mtu: int, ident: int = 1) -> list[bytes]:
    pieces = ipv4.fragments(payload, mtu)
    return [
        ip_frame(protocol, bytes(piece.payload), ident=ident, cut=piece.field) for piece in pieces
    ]


def ip_of(frame: Frame) -> ipv4.Packet:
    """Of a frame sent by the host to its peer."""
    header = ethernet.parse(frame.header)
    assert (header.destination, header.source, header.kind) == (PEER_MAC, OUR_MAC, ethernet.IPV4)
    return ipv4.parse(memoryview(frame.header)[ethernet.HEADER_BYTES :])


def arp_of(frame: Frame) -> tuple[bytes, arp.Arp]:
    """Whom an ARP frame is sent to, and what it says."""
    header = ethernet.parse(frame.header)
    assert (header.source, header.kind) == (OUR_MAC, ethernet.ARP)
    return header.destination, arp.parse(frame.header[ethernet.HEADER_BYTES :])


def error_of(frame: Frame) -> icmp.Message:
    packet = ip_of(frame)
    assert packet.protocol == ipv4.ICMP
    return icmp.parse(packet.payload)
