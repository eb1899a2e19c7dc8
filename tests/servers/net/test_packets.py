"""The formats: what is built is parsed again, and what is wrong is Malformed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.net import addresses, arp, checksum, ethernet, icmp, ipv4, udp
from servers.net.malformed import Malformed
from ukernel.abi.network import BadAddress

ADDRESS = st.integers(0, addresses.EVERYBODY)
WORD = st.integers(0, 0xFFFF)
MAC = st.binary(min_size=6, max_size=6).map(lambda mac: bytes([mac[0] & 0xFE | 2]) + mac[1:])


@given(ADDRESS)
def test_addresses_are_dotted_and_numbers(address: int) -> None:
    assert addresses.number(addresses.dotted(address)) == address


@pytest.mark.parametrize(
    "text", ["", "10.0.0", "10.0.0.256", "ten", "10.0.0.1\0", "::1", "1.2.3.4 "]
)
def test_other_texts_are_no_addresses(text: str) -> None:
    with pytest.raises(BadAddress):
        addresses.number(text)


@given(MAC, MAC, WORD)
def test_ethernet(to: bytes, source: bytes, kind: int) -> None:
    assert ethernet.parse(ethernet.build(to, source, kind) + b"x") == (to, source, kind)


@pytest.mark.parametrize("frame", [b"", bytes(13), bytes(6) + b"\1" + bytes(7)])
def test_no_ethernet(frame: bytes) -> None:
    with pytest.raises(Malformed):
        ethernet.parse(frame)


def test_multicast_goes_to_23_bits_of_it() -> None:
    # RFC 1112 §6.4; 224.128.64.32 and 224.0.64.32 share an Ethernet address.
    assert ethernet.multicast(addresses.number("224.128.64.32")).hex() == "01005e004020"


@given(st.sampled_from([arp.REQUEST, arp.REPLY]), MAC, ADDRESS, MAC, ADDRESS)
def test_arp(operation: int, mac: bytes, sender: int, other: bytes, target: int) -> None:
    packet = arp.Arp(operation, mac, sender, other, target)
    assert arp.parse(arp.build(packet) + bytes(18)) == packet


@pytest.mark.parametrize("at", [1, 3, 4, 5, 7, 8])
def test_arp_of_another_kind(at: int) -> None:
    data = bytearray(arp.build(arp.Arp(arp.REQUEST, b"\2" * 6, 1, bytes(6), 2)))
    data[at] |= 0x11
    with pytest.raises(Malformed):
        arp.parse(data)


@given(st.integers(0, 255), ADDRESS, ADDRESS, st.binary(max_size=64), WORD, WORD)
def test_ipv4(
    protocol: int, source: int, destination: int, payload: bytes, ident: int, cut: int
) -> None:
    header = ipv4.build(protocol, source, destination, len(payload), ident, cut)
    packet = ipv4.parse(memoryview(header + payload + b"padding"))
    assert packet == (source, destination, protocol, ident, cut, 64, 20, memoryview(payload))


def test_ipv4_options_are_skipped() -> None:
    header = bytearray(ipv4.build(17, 1, 2, 4 + 3) + bytes([1, 1, 1, 0]))
    header[0] = 0x46
    header[10:12] = bytes(2)
    header[10:12] = checksum.finish(checksum.ones(header)).to_bytes(2, "big")
    packet = ipv4.parse(memoryview(header + b"abc"))
    assert (bytes(packet.payload), packet.header_bytes) == (b"abc", 24)


def wrong(at: int, value: int) -> bytes:
    """A header with a field that is wrong, and a checksum that is right."""
    header = bytearray(ipv4.build(17, 1, 2, 10) + bytes(10))
    header[at] = value
    header[10:12] = bytes(2)
    header[10:12] = checksum.finish(checksum.ones(header[:20])).to_bytes(2, "big")
    return bytes(header)


@pytest.mark.parametrize(
    "data", [bytes(19), wrong(0, 0x65), wrong(0, 0x44), wrong(0, 0x4F), wrong(3, 31), wrong(3, 19)]
)
def test_no_ipv4(data: bytes) -> None:
    with pytest.raises(Malformed):
        ipv4.parse(memoryview(data))


def test_ipv4_with_a_wrong_checksum() -> None:
    data = bytearray(ipv4.build(17, 1, 2, 0))
    data[8] ^= 1
    with pytest.raises(Malformed, match="checksum"):
        ipv4.parse(memoryview(data))


def test_ipv4_checksum_of_a_known_header() -> None:
    # The header that Wikipedia's article on the IPv4 checksum works through.
    data = bytes.fromhex("45000073000040004011b861c0a80001c0a800c7")
    assert ipv4.build(17, 0xC0A80001, 0xC0A800C7, 0x73 - 20, 0, ipv4.DONT_FRAGMENT) == data


@given(st.binary(max_size=3000), st.integers(ipv4.LEAST_MTU, 1500))
def test_fragments_are_the_datagram(payload: bytes, mtu: int) -> None:
    pieces = list(ipv4.fragments(payload, mtu))
    assert b"".join(bytes(piece.payload) for piece in pieces) == payload
    at = 0
    for piece in pieces:
        more = at + len(piece.payload) < len(payload)
        assert piece.field == (ipv4.MORE_FRAGMENTS if more else 0) | at // 8
        assert len(piece.payload) + 20 <= mtu
        at += len(piece.payload)


@given(ADDRESS, ADDRESS, WORD, WORD, st.binary(max_size=64))
def test_udp(source: int, destination: int, port: int, to: int, data: bytes) -> None:
    payload = udp.build(source, port, destination, to, data)
    packet = ipv4.Packet(
        source, destination, 17, 0, 0, 64, 20, memoryview(payload + b"behind its length")
    )
    assert udp.parse(packet, vouched=False) == (port, to, memoryview(data))
    assert payload[6:8] != bytes(2)


def udp_packet(payload: bytes) -> ipv4.Packet:
    return ipv4.Packet(1, 2, 17, 0, 0, 64, 20, memoryview(payload))


def test_udp_without_a_checksum_is_taken() -> None:
    payload = udp.build(1, 2, 2, 3, b"data")[:6] + bytes(2) + b"data"
    assert bytes(udp.parse(udp_packet(payload), vouched=False).payload) == b"data"


def test_udp_with_a_wrong_checksum_is_taken_if_the_card_vouches_for_it() -> None:
    payload = udp.build(1, 2, 2, 3, b"data")[:-1] + b"o"
    with pytest.raises(Malformed, match="checksum"):
        udp.parse(udp_packet(payload), vouched=False)
    assert bytes(udp.parse(udp_packet(payload), vouched=True).payload) == b"dato"


def test_udp_checksum_that_adds_up_to_zero_is_sent_as_ones() -> None:
    plain = udp.build(1, 2, 2, 3, bytes(2))
    text = udp.build(1, 2, 2, 3, plain[6:8])
    assert text[6:8] == b"\xff\xff"
    assert udp.parse(udp_packet(text), vouched=False).payload == plain[6:8]


@pytest.mark.parametrize(
    "payload", [bytes(7), bytes(5) + b"\x07" + bytes(2), b"\0\0\0\0\0\x09\0\0"]
)
def test_no_udp(payload: bytes) -> None:
    with pytest.raises(Malformed):
        udp.parse(udp_packet(payload), vouched=True)


@given(st.integers(0, 255), st.integers(0, 255), WORD, WORD, st.binary(max_size=64))
def test_icmp(kind: int, code: int, first: int, second: int, data: bytes) -> None:
    message = icmp.parse(memoryview(icmp.build(kind, code, first, second, data)))
    assert message == (kind, code, first, second, memoryview(data))


@given(WORD, WORD, st.binary(max_size=64))
def test_icmp_reply_is_the_request_with_another_type(
    ident: int, sequence: int, data: bytes
) -> None:
    request = icmp.build(icmp.ECHO_REQUEST, 0, ident, sequence, data)
    message = icmp.parse(memoryview(icmp.reply(memoryview(request))))
    assert message == (icmp.ECHO_REPLY, 0, ident, sequence, memoryview(data))


@pytest.mark.parametrize("data", [b"", bytes(7), b"\x08\0\0\0\0\0\0\0"])
def test_no_icmp(data: bytes) -> None:
    with pytest.raises(Malformed):
        icmp.parse(memoryview(data))
