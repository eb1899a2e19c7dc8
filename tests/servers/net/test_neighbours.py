"""ARP: who is believed, who is asked and how often, and what happens to those who wait."""

from __future__ import annotations

import pytest

from servers.net import addresses, arp, ethernet, ipv4, udp
from servers.net.events import Conflict, Unreachable
from servers.net.host import Host
from servers.net.neighbours import FRESH_US, MOST_ENTRIES, MOST_WAITING, MOST_WAITING_FOR_ONE
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
    answers,
    arp_frame,
    arp_of,
    arrive,
    asks,
    ip_of,
    make_host,
)


def say(host: Host, now: int = 0, destination: int = PEER, data: bytes = b"data") -> None:
    host.send_udp(5, destination, 53, data, now)


def requests(host: Host) -> list[bytes]:
    """Whom the host asks; everything it has to send is taken."""
    return [arp_of(frame)[0] for frame in host.take()]


def test_a_request_for_us_is_answered_and_learned_from() -> None:
    host = make_host()
    arrive(host, asks())
    (frame,) = host.out
    assert arp_of(frame) == (PEER_MAC, (arp.REPLY, OUR_MAC, US, PEER_MAC, PEER))
    assert host.route(PEER, 0) == PEER_MAC


def test_a_request_for_others_is_neither() -> None:
    host = make_host()
    arrive(host, asks(target=PEER + 7))
    assert not host.out
    assert not host.neighbours.entries


def test_unknown_is_asked_and_packets_wait() -> None:
    host = make_host()
    say(host, data=b"first")
    say(host, data=b"second")
    (frame,) = host.take()
    assert arp_of(frame) == (ethernet.BROADCAST, (arp.REQUEST, OUR_MAC, US, ethernet.UNKNOWN, PEER))
    arrive(host, answers())
    texts = [bytes(ip_of(frame).payload[8:]) for frame in host.take()]
    assert texts == [b"first", b"second"]
    say(host)
    assert len(host.take()) == 1


def test_a_frame_that_waited_keeps_its_cargo() -> None:
    host = make_host()
    host.send(ipv4.TCP, PEER, bytes(20), 0, Piece(4096, 100), gso=50, unchecked=True)
    host.out.clear()
    arrive(host, answers())
    (frame,) = host.out
    assert frame[1:] == (Piece(4096, 100), 50, 34)
    assert ethernet.parse(frame.header).destination == PEER_MAC


def test_withdrawn_cargo_is_never_sent() -> None:
    host = make_host()
    for offset in (4096, 8192):
        host.send(ipv4.TCP, PEER, bytes(20), 0, Piece(offset, 100))
    host.out.clear()
    host.withdraw(4000, 4097)
    arrive(host, answers())
    assert [frame.cargo.offset for frame in host.out] == [8192]
    assert host.neighbours.waiting == 0


def test_three_questions_then_those_who_wait_are_told() -> None:
    host = make_host()
    say(host)
    for second in (1, 2):
        assert host.deadline == second * SECOND
        host.tick(second * SECOND)
    assert requests(host) == [ethernet.BROADCAST] * 3
    assert not host.events
    host.tick(3 * SECOND)
    assert host.events == [Unreachable(ipv4.UDP, (US, 5, PEER, 53), 3, 1, 0)]
    assert (host.deadline, host.neighbours.waiting) == (0, 0)
    say(host, 4 * SECOND)
    assert requests(host) == [ethernet.BROADCAST]


def test_a_neighbour_is_asked_again_by_unicast_while_it_is_used() -> None:
    host = acquainted()
    say(host, FRESH_US - 1)
    assert len(host.take()) == 1
    say(host, FRESH_US)
    question, data = host.take()
    assert arp_of(question)[0] == PEER_MAC
    assert ip_of(data).protocol == ipv4.UDP
    arrive(host, answers(), FRESH_US + 1)
    assert host.neighbours.entries[PEER].ask_at == 0
    say(host, FRESH_US + SECOND)
    assert len(host.take()) == 1


def test_a_neighbour_that_moved_without_a_word_is_found_again() -> None:
    host = acquainted()
    say(host, FRESH_US)
    host.take()
    for second in (1, 2):
        host.tick(FRESH_US + second * SECOND)
    assert requests(host) == [PEER_MAC] * 2
    host.tick(FRESH_US + 3 * SECOND)
    assert requests(host) == [ethernet.BROADCAST]
    say(host, FRESH_US + 3 * SECOND)
    assert not host.out
    arrive(host, answers(OTHER_MAC), FRESH_US + 3 * SECOND)
    assert ethernet.parse(host.out[0].header).destination == OTHER_MAC


def test_gratuitous_arp_moves_an_entry_but_makes_none() -> None:
    host = acquainted()
    arrive(host, asks(OTHER_MAC, PEER, PEER))
    arrive(host, asks(OTHER_MAC, PEER + 9, PEER + 9))
    assert host.route(PEER, 0) == OTHER_MAC
    assert list(host.neighbours.entries) == [PEER]
    say(host)
    assert ethernet.parse(host.out[0].header).destination == OTHER_MAC


def test_an_answer_that_nobody_asked_for_is_not_believed() -> None:
    host = make_host()
    arrive(host, answers(sender=PEER + 9))
    assert not host.neighbours.entries


@pytest.mark.parametrize(
    "sender", [FAR, addresses.EVERYBODY, US | 0xFF, addresses.number("224.0.0.1")]
)
def test_who_is_not_on_the_link_is_not_a_neighbour(sender: int) -> None:
    host = make_host()
    arrive(host, asks(sender=sender))
    assert not host.neighbours.entries
    assert not host.out
    assert host.counts.martian == 1


def test_packets_for_afar_go_to_the_gateway() -> None:
    host = acquainted()
    say(host, destination=FAR)
    assert ip_of(host.out[0]).destination == FAR


def test_without_a_gateway_there_is_no_way() -> None:
    host = make_host(gateway=0)
    for destination in (FAR, US, addresses.number("127.0.0.1"), 0):
        say(host, destination=destination)
        assert host.route(destination, 0) is None
    assert [event[2:] for event in host.events] == [(3, 0, 0)] * 4
    assert not host.out


def test_an_address_conflict_is_told_and_defended_once_in_ten_seconds() -> None:
    host = make_host()
    for now in (0, 1, 9 * SECOND):
        arrive(host, asks(OTHER_MAC, US, US), now + 1)
    assert host.events == [Conflict(US, OTHER_MAC)]
    ((to, packet),) = [arp_of(frame) for frame in host.take()]
    assert (to, packet) == (ethernet.BROADCAST, (arp.REQUEST, OUR_MAC, US, ethernet.UNKNOWN, US))
    arrive(host, asks(OTHER_MAC, US, US), 11 * SECOND)
    assert len(host.out) == 1
    assert host.counts.conflicts == 4
    assert not host.neighbours.entries


def test_a_probe_for_our_address_is_answered_and_not_learned_from() -> None:
    host = make_host()
    arrive(host, asks(OTHER_MAC, 0, US))
    assert arp_of(host.out[0])[1].operation == arp.REPLY
    assert not host.neighbours.entries


def test_our_own_frames_come_back_and_mean_nothing() -> None:
    host = make_host()
    host.announce()
    arrive(host, host.take()[0].header)
    assert not host.out
    assert not host.events


def test_a_restored_link_announces_and_doubts_but_forgets_nobody() -> None:
    host = acquainted()
    say(host, destination=PEER + 3)
    host.out.clear()
    host.link_restored(SECOND // 2)
    assert [arp_of(frame)[1].target for frame in host.take()] == [US, PEER + 3]
    say(host, SECOND)
    question, data = host.take()
    assert arp_of(question)[0] == PEER_MAC
    assert ip_of(data).destination == PEER


def test_waiting_packets_are_bounded_for_one_and_in_all() -> None:
    host = make_host()
    for number in range(MOST_WAITING_FOR_ONE + 4):
        say(host, data=b"%d" % number)
    assert len(host.neighbours.entries[PEER].waiting) == MOST_WAITING_FOR_ONE
    assert host.neighbours.dropped == 4
    for number in range(100):
        say(host, destination=PEER + 10 + number)
    assert host.neighbours.waiting == MOST_WAITING
    host.out.clear()
    arrive(host, answers())
    first = ip_of(host.out[0])
    assert bytes(first.payload[8:]) == b"4"  # the latest are kept


def test_a_long_datagram_waits_as_a_whole() -> None:
    host = make_host()
    say(host, data=bytes(udp.MOST_BYTES))
    host.out.clear()
    arrive(host, answers())
    assert len(host.out) == 45


def test_the_table_is_bounded_and_the_oldest_has_to_go() -> None:
    host = make_host(prefix=16)
    for number in range(MOST_ENTRIES + 1):
        arrive(host, asks(sender=PEER + 0x100 + number))
    assert len(host.neighbours.entries) == MOST_ENTRIES
    assert PEER + 0x100 not in host.neighbours.entries


def test_arp_for_another_station_is_dropped() -> None:
    host = make_host()
    frame = arp_frame(arp.Arp(arp.REQUEST, PEER_MAC, PEER, ethernet.UNKNOWN, US), OTHER_MAC)
    arrive(host, frame)
    assert not host.out
    assert host.counts.not_ours == 1
