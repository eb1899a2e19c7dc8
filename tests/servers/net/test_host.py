"""A host: what it takes, what it answers, what it drops and counts, and what it sends."""

from __future__ import annotations

import struct

import pytest

from servers.net import addresses, checksum, ethernet, icmp, ipv4, udp
from servers.net.events import EchoReply, PathMtu, Unreachable
from servers.net.host import ERRORS_PER_SECOND, Host, Packet
from servers.net.reassembly import PATIENCE_US
from servers.net.ring import Piece
from tests.servers.net.peer import (
    FAR,
    OTHER_MAC,
    OUR_MAC,
    PEER,
    PEER_MAC,
    SECOND,
    US,
    acquainted,
    arrive,
    echo_frame,
    error_of,
    fragment_frames,
    ip_frame,
    ip_of,
    make_host,
    tcp_frame,
    udp_frame,
)

BROADCAST = US | 0xFF
GROUP = addresses.number("224.0.0.251")


# What comes.


def test_tcp_is_given_to_the_caller() -> None:
    frame = tcp_frame(b"segment")
    packet = arrive(make_host(), frame + b"padding of Ethernet")
    assert packet == Packet(ipv4.TCP, PEER, US, memoryview(frame)[34:], True)


def test_a_wrong_tcp_checksum_is_dropped_unless_the_card_vouches() -> None:
    host = make_host()
    assert arrive(host, tcp_frame(b"segment", right=False)) is None
    assert host.counts.malformed == 1
    assert arrive(host, tcp_frame(b"segment", right=False), vouched=True) is not None


def test_a_long_frame_is_taken_whole() -> None:
    text = bytes(65515)
    packet = arrive(make_host(), ip_frame(ipv4.TCP, text), vouched=True)
    assert packet is not None
    assert len(packet.payload) == 65515


def test_tcp_in_fragments_is_added_up_whatever_the_card_says() -> None:
    host = make_host()
    whole = tcp_frame(b"segment" * 9)[34:]
    results = [arrive(host, frame, vouched=True) for frame in fragment_frames(6, whole, 68)]
    assert results == [None, Packet(ipv4.TCP, PEER, US, memoryview(whole), True)]
    wrong = tcp_frame(b"segment" * 9, right=False)[34:]
    for frame in fragment_frames(6, wrong, 68):
        assert arrive(host, frame, vouched=True) is None
    assert host.counts.malformed == 1


def dropped(host: Host) -> dict[str, int]:
    names = ("malformed", "tagged", "foreign", "not_ours", "martian", "unwanted")
    return {name: count for name in names if (count := getattr(host.counts, name))}


@pytest.mark.parametrize(
    ("reason", "frame"),
    [
        ("malformed", b"short"),
        ("malformed", ethernet.build(OUR_MAC, PEER_MAC, ethernet.IPV4) + bytes(20)),
        ("tagged", ethernet.build(OUR_MAC, PEER_MAC, 0x8100) + bytes(46)),
        ("foreign", ethernet.build(OUR_MAC, PEER_MAC, 0x86DD) + bytes(46)),
        ("foreign", ethernet.build(OUR_MAC, PEER_MAC, 46) + bytes(46)),
        ("not_ours", ip_frame(6, bytes(20), to=OTHER_MAC)),
        ("not_ours", ip_frame(6, bytes(20), destination=FAR)),
        ("not_ours", ip_frame(6, bytes(20), destination=BROADCAST, to=ethernet.BROADCAST)),
        ("not_ours", ip_frame(6, bytes(20), to=ethernet.BROADCAST)),
        ("not_ours", echo_frame(b"", destination=BROADCAST)),
        ("not_ours", udp_frame(b"", to=ethernet.BROADCAST)),
        ("martian", udp_frame(b"", source=US)),
        ("martian", udp_frame(b"", source=BROADCAST)),
        ("martian", udp_frame(b"", source=addresses.number("127.0.0.1"))),
        ("martian", udp_frame(b"", source=GROUP)),
        ("martian", udp_frame(b"", source=addresses.EVERYBODY)),
        ("martian", udp_frame(b"", source=0)),
        ("unwanted", udp_frame(b"", destination=BROADCAST, to=ethernet.BROADCAST)),
        ("unwanted", udp_frame(b"", destination=GROUP, to=ethernet.multicast(GROUP))),
    ],
)
def test_dropped_without_a_word(reason: str, frame: bytes) -> None:
    host = acquainted()
    assert arrive(host, frame) is None
    assert dropped(host) == {reason: 1}
    assert host.counts.dropped_in == 1
    assert not host.out
    assert not host.events


@pytest.mark.parametrize("destination", [BROADCAST, addresses.EVERYBODY, GROUP, US])
def test_udp_that_somebody_waits_for(destination: int) -> None:
    host = acquainted()
    socket = host.udp.bind(53)
    to = OUR_MAC if destination == US else ethernet.BROADCAST
    arrive(host, udp_frame(b"data", destination=destination, to=to))
    assert socket.take() == udp.Datagram(PEER, 4000, destination, b"data")
    assert host.udp.changed == {socket}


def test_frames_in_and_out_are_counted() -> None:
    host = acquainted()
    before = host.counts.bytes_in
    frame = echo_frame(b"data")
    arrive(host, frame)
    host.send(ipv4.TCP, PEER, bytes(20), 0, Piece(0, 100))
    host.take()
    assert (host.counts.frames_in, host.counts.bytes_in - before) == (2, len(frame))
    assert (host.counts.frames_out, host.counts.bytes_out) == (2, len(frame) + 54 + 100)
    assert not host.out


# ICMP.


def test_echo_is_answered() -> None:
    host = acquainted()
    arrive(host, echo_frame(b"0123456789"))
    packet = ip_of(host.out[0])
    assert (packet.source, packet.destination, packet.ttl) == (US, PEER, 64)
    message = icmp.parse(packet.payload)
    assert message == (icmp.ECHO_REPLY, 0, 1, 2, memoryview(b"0123456789"))


def test_the_longest_echo_in_fragments_is_answered_in_fragments() -> None:
    host = acquainted()
    request = icmp.build(icmp.ECHO_REQUEST, 0, 1, 2, bytes(icmp.MOST_ECHO_BYTES))
    for frame in reversed(fragment_frames(ipv4.ICMP, request, 1500)):
        arrive(host, frame)
    pieces = [ip_of(frame) for frame in host.out]
    assert len({piece.ident for piece in pieces}) == 1
    answer = b"".join(bytes(piece.payload) for piece in pieces)
    assert icmp.parse(memoryview(answer)).payload == bytes(icmp.MOST_ECHO_BYTES)


def test_ping_and_its_reply() -> None:
    host = acquainted()
    host.ping(PEER, 77, 1, b"data", 0)
    request = ip_of(host.out[0]).payload
    assert icmp.parse(request) == (icmp.ECHO_REQUEST, 0, 77, 1, memoryview(b"data"))
    arrive(host, ip_frame(ipv4.ICMP, icmp.reply(request)), 1234)
    assert host.events == [EchoReply(PEER, 77, 1, b"data", 1234)]


def test_ping_of_somebody_who_is_not_there() -> None:
    host = make_host()
    host.ping(PEER, 77, 1, b"", 0)
    for second in range(1, 4):
        host.tick(second * SECOND)
    assert host.events == [Unreachable(ipv4.ICMP, (US, 77, PEER, 1), 3, 1, 0)]


def test_a_closed_port_is_told_with_what_was_sent() -> None:
    host = acquainted()
    frame = udp_frame(b"data")
    arrive(host, frame)
    message = error_of(host.out[0])
    assert (message.kind, message.code) == (icmp.UNREACHABLE, icmp.PORT_UNREACHABLE)
    assert bytes(message.payload) == frame[14:]


def test_an_error_is_at_most_576_bytes_long() -> None:
    host = acquainted()
    arrive(host, udp_frame(bytes(1400)))
    assert len(host.out[0].header) == 14 + 576


def test_an_unknown_protocol_is_told() -> None:
    host = acquainted()
    arrive(host, ip_frame(132, bytes(20)))
    message = error_of(host.out[0])
    assert (message.kind, message.code) == (icmp.UNREACHABLE, icmp.PROTOCOL_UNREACHABLE)


def test_errors_are_rationed() -> None:
    host = acquainted()
    for _ in range(3 * ERRORS_PER_SECOND):
        arrive(host, udp_frame(b""))
    assert len(host.take()) == ERRORS_PER_SECOND
    arrive(host, udp_frame(b""), SECOND // 2)
    assert len(host.take()) == 1


def test_an_incomplete_datagram_is_told_when_its_time_is_over() -> None:
    host = acquainted()
    first, *_ = fragment_frames(ipv4.UDP, udp.build(PEER, 1, US, 53, bytes(100)), 68)
    arrive(host, first)
    assert host.deadline == PATIENCE_US
    host.tick(PATIENCE_US)
    message = error_of(host.out[0])
    assert (message.kind, message.code) == (icmp.TIME_EXCEEDED, icmp.REASSEMBLY_TIME_EXCEEDED)


def quoting(kind: int, code: int, quoted: bytes, second: int = 0) -> bytes:
    return ip_frame(ipv4.ICMP, icmp.build(kind, code, 0, second, quoted), source=FAR)


def sent(protocol: int = ipv4.TCP, source: int = US, length: int = 1400, cut: int = 0) -> bytes:
    """The beginning of a packet that we have sent."""
    header = ipv4.build(protocol, source, FAR, length, cut=cut)
    return header + struct.pack("!HHI", 1024, 80, 0xABCD)


@pytest.mark.parametrize(("protocol", "sequence"), [(ipv4.TCP, 0xABCD), (ipv4.UDP, 0)])
@pytest.mark.parametrize("kind", [icmp.UNREACHABLE, icmp.TIME_EXCEEDED, icmp.PARAMETER_PROBLEM])
def test_errors_that_come_are_events(protocol: int, sequence: int, kind: int) -> None:
    host = acquainted()
    socket = host.udp.bind(1024)
    arrive(host, quoting(kind, 1, sent(protocol)))
    event = Unreachable(protocol, (US, 1024, FAR, 80), kind, 1, sequence)
    assert host.events == [event]
    assert socket.take_error() == (event if protocol == ipv4.UDP else None)


@pytest.mark.parametrize(
    ("said", "mtu"), [(1400, 1400), (1420, 1006), (0, 1006), (68, 552), (9000, 1006)]
)
def test_fragmentation_needed_is_a_path_mtu_below_what_was_sent(said: int, mtu: int) -> None:
    host = acquainted()
    arrive(host, quoting(3, icmp.FRAGMENTATION_NEEDED, sent(), said))
    assert host.events == [PathMtu(ipv4.TCP, (US, 1024, FAR, 80), mtu, 0xABCD)]


@pytest.mark.parametrize(
    "quoted", [b"", sent()[:27], sent(source=PEER), b"\x65" + sent()[1:], b"\x4f" + sent()[1:]]
)
def test_errors_about_what_we_cannot_have_sent_are_malformed(quoted: bytes) -> None:
    host = acquainted()
    arrive(host, quoting(3, 3, quoted))
    assert host.counts.malformed == 1
    assert not host.events


@pytest.mark.parametrize(
    "frame", [quoting(3, 3, sent(cut=5)), quoting(5, 1, sent()), quoting(4, 0, sent())]
)
def test_later_fragments_redirects_and_source_quench_are_ignored(frame: bytes) -> None:
    host = acquainted()
    arrive(host, frame)
    assert not host.events
    assert not host.out


# What is sent.


def test_tcp_is_never_cut_and_has_its_cargo() -> None:
    host = acquainted()
    host.send(ipv4.TCP, PEER, bytes(32), 0, Piece(512, 1000), 0, True)
    (frame,) = host.out
    assert (len(frame.header), frame.cargo, frame.gso, frame.unchecked) == (66, (512, 1000), 0, 34)
    packet = ipv4.parse(memoryview(frame.header + bytes(1000))[14:])
    assert (packet.cut, len(packet.payload)) == (ipv4.DONT_FRAGMENT, 1032)


def test_a_long_segment_is_left_to_the_card() -> None:
    host = acquainted()
    host.send(ipv4.TCP, PEER, bytes(32), 0, Piece(0, 60000), gso=1448, unchecked=True)
    (frame,) = host.out
    assert frame.gso == 1448
    assert int.from_bytes(frame.header[16:18], "big") == 60052
    assert checksum.verify(frame.header[14:34])


@pytest.mark.parametrize("mtu", [68, 576, 1500, 9000])
def test_a_long_datagram_is_cut(mtu: int) -> None:
    host = acquainted(mtu)
    host.send_udp(5, PEER, 53, bytes(9000), 0)
    pieces = [ip_of(frame) for frame in host.out]
    assert max(len(piece.payload) for piece in pieces) <= mtu - 20
    whole = b"".join(bytes(piece.payload) for piece in pieces)
    packet = ipv4.Packet(US, PEER, ipv4.UDP, 0, 0, 64, 20, memoryview(whole))
    assert udp.parse(packet, vouched=False).payload == bytes(9000)


@pytest.mark.parametrize(
    ("l4", "cargo"), [(bytes(65516), Piece(0, 0)), (bytes(20), Piece(0, 1481))]
)
def test_what_cannot_be_sent_is_dropped(l4: bytes, cargo: Piece) -> None:
    host = acquainted()
    host.send(ipv4.UDP, PEER, l4, 0, cargo)
    assert not host.out


def test_identifications_differ_and_start_where_they_should() -> None:
    host = acquainted()
    host.send_udp(5, PEER, 53, bytes(2000), 0)
    host.send_udp(5, PEER, 53, b"", 0)
    assert [ip_of(frame).ident for frame in host.out] == [7, 7, 8]


@pytest.mark.parametrize(
    ("destination", "mac", "ttl"),
    [
        (BROADCAST, ethernet.BROADCAST, 64),
        (addresses.EVERYBODY, ethernet.BROADCAST, 64),
        (GROUP, ethernet.multicast(GROUP), 1),
    ],
)
def test_udp_to_many_needs_no_neighbour(destination: int, mac: bytes, ttl: int) -> None:
    host = make_host()
    host.send_udp(5, destination, 53, b"data", 0)
    (frame,) = host.out
    assert ethernet.parse(frame.header).destination == mac
    assert ipv4.parse(memoryview(frame.header)[14:]).ttl == ttl
    host.send(ipv4.TCP, destination, bytes(20), 0)
    assert [event[2:4] for event in host.events] == [(3, 0)]


def test_two_hosts_of_a_point_to_point_network_have_no_broadcast() -> None:
    host = Host(OUR_MAC, US, 31)
    host.send_udp(5, US ^ 1, 53, b"", 0)
    assert len(host.out) == 1  # asked for
    assert not host.events


@pytest.mark.parametrize(("prefix", "mtu"), [(33, 1500), (24, 67), (24, 65536)])
def test_no_such_interface(prefix: int, mtu: int) -> None:
    with pytest.raises(ValueError, match="no such interface"):
        Host(OUR_MAC, US, prefix, 0, mtu)
