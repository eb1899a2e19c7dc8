"""What the sender does about losses: RFC 5681, 6298, 6582, 6675, 2018 §8, 3042, and Karn."""

from __future__ import annotations

import pytest

from servers.net.tcp.block import Config, Error, Mode, State
from servers.net.tcp.connection import Outgoing
from servers.net.tcp.segment import ACK, RST
from tests.servers.net.tcp.pair import MS, SECOND
from tests.servers.net.tcp.peer import OFFER, Peer, spans

M = 1460
PLAIN = OFFER._replace(sack_permitted=False)


def sending(count: int = 10 * M, queued: int = 60 * M, plain: bool = False) -> Peer:
    """Ten segments are under way, and more wait; a round trip takes 10 ms."""
    peer = Peer(options=PLAIN if plain else OFFER).open()
    peer.now += 10 * MS
    out = peer.writes(queued)
    assert spans(peer, out) == [(at, M) for at in range(0, count, M)]
    peer.now += 10 * MS
    return peer


def test_slow_start_doubles_the_window_each_round_trip() -> None:
    peer = sending()
    for _ in range(2):
        peer.gets(ack=peer.c.max)
    assert peer.c.cwnd == 40 * M
    assert peer.c.max - peer.c.una == 30 * M  # everything that there was


def test_congestion_avoidance_adds_a_segment_each_round_trip() -> None:
    peer = sending()
    peer.c.ssthresh = peer.c.cwnd
    for _ in range(3):
        una, before = peer.c.max, peer.c.cwnd
        while peer.c.una < una:
            peer.gets(ack=min(peer.c.una + 2 * M, una))
        assert before <= peer.c.cwnd <= before + M
    assert peer.c.cwnd >= 12 * M


def test_a_window_that_is_not_used_does_not_grow() -> None:
    peer = Peer().open()
    for _ in range(9):
        peer.writes(M)
        peer.gets(ack=peer.c.max)
    assert peer.c.cwnd == 10 * M


def test_after_a_pause_the_window_is_the_initial_one() -> None:
    peer = sending()
    while peer.c.una < peer.c.queued_end:
        peer.gets(ack=peer.c.max)
    assert peer.c.cwnd > 20 * M
    peer.waits(10 * SECOND)
    peer.writes(60 * M)
    assert peer.c.cwnd == 10 * M


def test_two_duplicates_let_new_segments_out() -> None:
    peer = sending(plain=True)
    assert spans(peer, peer.gets()) == [(10 * M, M)]
    assert spans(peer, peer.gets()) == [(11 * M, M)]
    assert peer.c.cwnd == 10 * M


def test_the_third_duplicate_brings_a_retransmission_at_once() -> None:
    peer = sending(plain=True)
    out = [*peer.gets(), *peer.gets(), *peer.gets()]
    assert spans(peer, out) == [(10 * M, M), (11 * M, M), (0, M)]
    assert peer.c.cwnd == peer.c.ssthresh == 6 * M
    for _ in range(6):
        peer.gets()
    out = peer.gets(ack=10 * M)  # a partial one: the next is lost as well
    assert spans(peer, out)[0] == (10 * M, M)
    peer.gets(ack=peer.c.max)
    assert (peer.c.mode, peer.c.deadline > 0) == (Mode.OPEN, True)


def test_a_window_update_is_no_duplicate() -> None:
    peer = sending(plain=True)
    for _ in range(5):
        peer.window += 1
        assert peer.gets() == []
    assert peer.c.dupacks == 0


def test_an_ack_with_text_is_no_duplicate() -> None:
    peer = sending(plain=True)
    for at in range(5):
        peer.gets(at=at, payload=b"x")
    assert peer.c.dupacks == 0


def test_several_holes_are_filled_within_one_round_trip() -> None:
    peer = sending()
    lost = (0, 2, 5)
    out: list[Outgoing] = []
    sack: list[tuple[int, int]] = []
    for number in range(10):
        if number not in lost:
            sack.insert(0, (number * M, (number + 1) * M))
            out += peer.gets(sack=tuple(sack[:3]))
    again = [at for at, _ in spans(peer, out) if at < 10 * M]
    assert again == [n * M for n in lost]
    peer.gets(ack=12 * M)
    assert peer.c.mode == Mode.OPEN
    assert peer.c.retransmits == 3
    assert peer.c.cwnd == peer.c.ssthresh


def test_what_is_sacked_is_not_sent_again_after_a_timeout() -> None:
    peer = sending()
    peer.gets(sack=((4 * M, 5 * M),))
    out = peer.ends()
    assert spans(peer, out) == [(0, M)]
    sent = []
    while peer.c.una < 10 * M:
        out = peer.gets(ack=min(10 * M, peer.c.high_rxt))
        sent += [at for at, _ in spans(peer, out) if at < 10 * M]
    assert sent == [n * M for n in (1, 2, 3, 5, 6, 7, 8, 9)]


def test_a_peer_that_throws_away_what_it_has_sacked_gets_it_again() -> None:
    peer = sending(queued=10 * M)
    peer.gets(sack=((2 * M, 10 * M),))
    peer.gets(ack=2 * M)  # and not 10 * M, as it would if it still had the rest
    sent = []
    for _ in range(30):
        out = peer.ends()
        sent += spans(peer, out)
        for at, length in spans(peer, out):
            if at == peer.c.una:
                sent += spans(peer, peer.gets(ack=at + length))
        if peer.c.una == 10 * M:
            break
    assert {at for at, _ in sent} >= {n * M for n in range(2, 10)}


def test_sack_blocks_that_cannot_be_are_nothing() -> None:
    peer = sending()
    for block in ((0, 0), (5 * M, 4 * M), (9 * M, 99 * M), (-9, -5), (1 << 31, 5)):
        peer.gets(sack=(block,))
    assert (peer.c.sacked, peer.c.mode) == ([], Mode.OPEN)


def test_the_timeout_doubles_up_to_its_cap_and_then_the_peer_is_given_up() -> None:
    config = Config(rto_max=2 * SECOND, user_timeout=9 * SECOND)
    peer = Peer(config).open()
    peer.writes(M)
    times, begun = [], peer.now
    while peer.c.state == State.ESTABLISHED:
        before = peer.now
        out = peer.ends()
        times.append((peer.now - before) // MS)
        assert spans(peer, out)[0][0] in (0, M)
    assert times[:4] == [200, 400, 800, 1600]
    assert set(times[4:]) == {2000}
    assert out[-1].flags & RST
    assert peer.c.error == Error.TIMED_OUT
    assert peer.now - begun >= 9 * SECOND


def test_a_timeout_leaves_a_window_of_one_segment() -> None:
    peer = sending()
    assert spans(peer, peer.ends()) == [(0, M)]
    assert (peer.c.cwnd, peer.c.ssthresh) == (M, 5 * M)
    assert spans(peer, peer.ends()) == [(0, M)]
    assert peer.c.ssthresh == 5 * M  # what is sent twice halves it once
    assert spans(peer, peer.gets(ack=M)) == [(M, M), (2 * M, M)]


def test_what_was_sent_twice_is_not_timed() -> None:
    peer = Peer().open()
    peer.writes(M)
    for _ in range(3):
        peer.ends()
    srtt, rto = peer.c.srtt_us, peer.c.rto
    peer.gets(ack=M, after=SECOND)
    assert (peer.c.srtt_us, peer.c.rto, peer.c.backoff) == (srtt, rto, 2)
    peer.writes(M)
    peer.gets(ack=2 * M, after=30 * MS)
    assert peer.c.backoff == 0
    assert peer.c.srtt_us != srtt


def test_timestamps_tell_which_copy_has_arrived() -> None:
    peer = Peer(options=OFFER._replace(timestamp=(1, 0))).open()
    peer.writes(M)
    peer.ends()
    sent = peer.now
    peer.now += 50 * MS
    peer.stamp = (2, sent // 1000)
    peer.gets(ack=peer.c.max)
    assert peer.c.backoff == 0
    assert 0 < peer.c.srtt_us <= 50 * MS


def test_the_timeout_follows_the_round_trips() -> None:
    peer = Peer().open()
    for _ in range(50):
        peer.writes(100)
        peer.gets(ack=peer.c.max, after=150 * MS)
    assert abs(peer.c.srtt_us - 150 * MS) < 2 * MS
    assert peer.c.rto == 200 * MS
    peer.writes(100)
    peer.gets(ack=peer.c.max, after=190 * MS)
    assert peer.c.rto > 190 * MS


@pytest.mark.parametrize("plain", [False, True])
def test_a_card_that_is_back_retransmits_at_once_with_the_same_window(plain: bool) -> None:
    peer = sending(plain=plain)
    peer.gets(ack=2 * M)
    window, flight = peer.c.cwnd, peer.c.max - peer.c.una
    peer.c.link_restored(peer.now)
    out = peer.take()
    assert spans(peer, out) == [(at, M) for at in range(2 * M, 2 * M + flight, M)]
    assert (peer.c.cwnd, peer.c.ssthresh) == (window, 1 << 30)
    assert peer.c.deadline > peer.now


def test_a_card_that_is_back_says_where_we_are() -> None:
    peer = Peer().open()
    peer.gets(payload=b"text")
    peer.c.link_restored(peer.now)
    (o,) = peer.take()
    assert (o.flags, peer.acks(o)) == (ACK, 4)


def test_one_ack_for_a_long_segment_opens_the_window_by_as_much() -> None:
    peer = Peer(Config(longest=65_000), size=1 << 20)
    peer.window = 8000
    peer.open()
    peer.writes(1 << 20)
    rounds = 0
    while max(o.length for o in peer.end.sent) < 60_000:
        peer.gets(ack=peer.c.max)
        rounds += 1
    assert rounds <= 4


def test_long_segments_are_cut_where_the_ring_begins_again() -> None:
    peer = Peer(Config(longest=65_000, nodelay=True), size=50_000)
    peer.open()
    peer.c.cwnd, peer.c.sent_at = 1 << 20, peer.now
    peer.writes(40_000)
    peer.gets(ack=40_000)
    out = peer.writes(30_000)
    assert spans(peer, out) == [(40_000, 10_000), (50_000, 20_000)]
    assert [o.gso for o in out] == [M, M]
    assert [bool(o.flags & 8) for o in out] == [False, True]
