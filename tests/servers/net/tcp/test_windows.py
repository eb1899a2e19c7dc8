"""Windows and acknowledgements: RFC 9293 §3.8.6, RFC 5681 §4.2, RFC 2018, RFC 7323 §5."""

from __future__ import annotations

import pytest

from servers.net.tcp.block import ISLANDS, Config, Error, State
from servers.net.tcp.segment import ACK, FIN, PSH, RST, parse
from tests.servers.net.tcp.pair import MS, SECOND, End, Pair, frames
from tests.servers.net.tcp.peer import OFFER, Peer, spans

M = 1460
STAMPED = OFFER._replace(timestamp=(1000, 0))


def test_a_small_segment_is_acknowledged_after_40_ms() -> None:
    peer = Peer().open()
    assert peer.gets(payload=b"x") == []
    assert peer.c.deadline == peer.now + 40 * MS
    (o,) = peer.waits(40 * MS)
    assert (o.flags, peer.acks(o)) == (ACK, 1)


def test_every_second_full_segment_is_acknowledged_at_once() -> None:
    peer = Peer().open()
    acks = [len(peer.gets(at=n * M, payload=bytes(M))) for n in range(6)]
    assert acks[1:] == [1, 0, 1, 0, 1] or acks == [0, 1, 0, 1, 0, 1]


def test_a_long_segment_is_acknowledged_at_once() -> None:
    peer = Peer().open()
    (o,) = peer.gets(payload=bytes(30_000))
    assert peer.acks(o) == 30_000


def test_text_carries_the_ack_that_is_due() -> None:
    peer = Peer().open()
    peer.gets(payload=b"question")
    (o,) = peer.writes(6)
    assert (o.flags, peer.acks(o)) == (ACK | PSH, 8)
    peer.gets(at=8, ack=6)
    assert peer.c.deadline == 0


def test_text_out_of_order_is_acknowledged_at_once_and_told_of() -> None:
    peer = Peer().open()
    told = []
    for at in (2000, 6000, 4000, 7000, 3000):
        (o,) = peer.gets(at=at, payload=bytes(1000))
        assert peer.acks(o) == 0
        sack = parse(memoryview(frames([o], peer.end.send, False)[0])).options.sack
        told.append([tuple((e - peer.irs - 1) % 2**32 for e in b) for b in sack])
    assert told == [
        [(2000, 3000)],
        [(6000, 7000), (2000, 3000)],
        [(4000, 5000), (6000, 7000), (2000, 3000)],
        [(6000, 8000), (4000, 5000), (2000, 3000)],
        [(2000, 5000), (6000, 8000)],
    ]
    (o,) = peer.gets(payload=bytes(2000))  # a hole is filled
    assert peer.acks(o) == 5000
    (o,) = peer.gets(at=5000, payload=bytes(1000))
    assert (peer.acks(o), peer.c.islands) == (8000, [])


def test_islands_are_not_forgotten_and_no_more_than_there_is_room_for() -> None:
    peer = Peer().open()
    for n in range(ISLANDS + 3):
        peer.gets(at=1000 + 20 * n, payload=bytes([n]) * 10)
    assert len(peer.c.islands) == ISLANDS
    held = sorted(peer.c.islands)
    peer.end.die(peer.now)
    peer.take()
    assert sorted(peer.c.islands) == held
    peer.gets(payload=bytes(1000))
    assert peer.c.received == 1010


def test_overlapping_text_is_taken_once() -> None:
    peer = Peer().open()
    peer.gets(payload=b"abcdef")
    peer.gets(at=3, payload=b"DEFGHI")
    peer.gets(at=20, payload=b"uvw")
    peer.gets(at=5, payload=b"..........JKLMNOPQRST"[1:])
    peer.reads()
    assert peer.end.taken[:9] == b"abcdefGHI"
    assert peer.c.received == 26 - 1
    (o,) = peer.gets(at=0, payload=b"old")
    assert peer.acks(o) == peer.c.received


def test_nothing_is_taken_beyond_the_window() -> None:
    peer = Peer(size=4000).open()
    (o,) = peer.gets(payload=bytes(5000))
    assert (peer.c.received, o.window) == (4000, 0)
    (o,) = peer.gets(at=4000, payload=b"probe")
    assert (peer.acks(o), o.window) == (4000, 0)


def test_an_ack_counts_even_when_our_window_is_shut() -> None:
    peer = Peer(size=4000).open()
    peer.writes(10)
    peer.gets(payload=bytes(4000))
    peer.gets(at=4000, ack=10, payload=b"x")
    assert (peer.c.acked, peer.c.received) == (10, 4000)


def test_the_window_opens_by_no_less_than_two_segments_or_half_of_the_ring() -> None:
    peer = Peer(size=64_000).open()
    peer.gets(payload=bytes(64_000))
    assert peer.reads(2 * M - 1) == []
    (o,) = peer.reads(1)
    assert o.window == 2 * M
    small = Peer(size=1000).open()
    small.gets(payload=bytes(1000))
    assert small.reads(499) == []
    (o,) = small.reads(1)
    assert o.window == 500


def test_a_crumb_of_room_is_not_told() -> None:
    peer = Peer(size=64_000).open()
    peer.gets(payload=bytes(64_000))
    peer.reads(M - 1)
    (o,) = peer.gets(at=-1)
    assert o.window == 0
    peer.reads(1)
    (o,) = peer.gets(at=-1, after=SECOND)
    assert o.window == M


def test_the_right_edge_goes_back_by_rounding_only_and_what_was_promised_is_kept() -> None:
    """RFC 7323 §2.4."""
    peer = Peer(size=(1 << 20) - 3, options=OFFER._replace(scale=0)).open()
    edge = 0
    for n in range(300):
        for o in peer.gets(at=n * 1001, payload=bytes(1001)):
            now = peer.acks(o) + (o.window << peer.c.rcv_scale)
            assert edge - (1 << peer.c.rcv_scale) < now <= peer.c.adv
            edge = peer.c.adv
            assert edge <= peer.c.consumed_to + peer.end.receive.size
        if n % 7 == 0:
            peer.reads(3000)


def test_small_segments_wait_while_something_is_under_way() -> None:
    peer = Peer().open()
    assert spans(peer, peer.writes(10)) == [(0, 10)]
    assert peer.writes(10) == peer.writes(10) == []
    assert spans(peer, peer.gets(ack=10)) == [(10, 20)]
    quick = Peer(Config(nodelay=True)).open()
    assert spans(quick, [*quick.writes(10), *quick.writes(10)]) == [(0, 10), (10, 10)]


def test_no_crumbs_are_sent_into_a_large_window_that_is_nearly_full() -> None:
    peer = Peer(options=OFFER._replace(scale=0))
    peer.window = 5000
    peer.open()
    assert sum(n for _, n in spans(peer, peer.writes(9000))) == 3 * M
    peer.window = 5000 - 3 * M + 100
    assert peer.gets(ack=3 * M) == []  # 720 bytes
    (o,) = peer.ends()  # until waiting any longer makes no sense
    assert (peer.at(o), o.length) == (3 * M, 720)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_peer_with_a_tiny_window_gets_everything(size: int) -> None:
    pair = Pair(End(), End(size=size)).open()
    a, b = pair.ends
    a.connection.queued(a.write(bytes(range(40))), pair.now)
    pair.commit(0)

    def read() -> bool:
        b.connection.consumed(b.read(), pair.now)
        pair.commit(1)
        return len(b.taken) == 40

    pair.run(read)
    assert b.taken == bytes(range(40))


def test_a_shut_window_is_probed_for_as_long_as_the_peer_answers() -> None:
    peer = Peer().open()
    peer.window = 0
    peer.gets()
    assert peer.writes(5000) == []
    waits: list[int] = []
    while sum(waits) < 1000 * SECOND:
        before = peer.now
        (o,) = peer.ends()
        waits.append(peer.now - before)
        assert (o.flags, peer.at(o), o.length) == (ACK, -1, 0)
        peer.gets()
    assert waits[:3] == [peer.c.rto, 2 * peer.c.rto, 4 * peer.c.rto]
    assert max(waits) == 60 * SECOND
    peer.window = 1000
    assert spans(peer, peer.gets())[0] == (0, M)


def test_a_peer_that_does_not_answer_probes_is_given_up() -> None:
    peer = Peer().open()
    peer.window = 0
    peer.gets()
    peer.writes(5000)
    out = peer.waits(200 * SECOND)
    assert out[-1].flags & RST
    assert peer.c.error == Error.TIMED_OUT


def test_a_shut_window_does_not_last_when_the_user_is_gone() -> None:
    peer = Peer().open()
    peer.window = 0
    peer.waits(3600 * SECOND)
    peer.gets()
    peer.writes(5000)
    peer.c.close(peer.now)
    begun = peer.now
    while peer.c.state != State.CLOSED:
        peer.gets()
        peer.ends()
    assert 120 * SECOND <= peer.now - begun < 240 * SECOND


def test_a_fin_waits_for_the_window_as_well() -> None:
    peer = Peer().open()
    peer.window = 0
    peer.gets()
    assert peer.shuts() == []
    (o,) = peer.ends()
    assert o.flags == ACK
    peer.window = 1
    (o,) = peer.gets()
    assert o.flags == FIN | ACK


def test_a_window_that_shrinks_to_nothing_under_way_is_survived() -> None:
    peer = Peer().open()
    peer.writes(3 * M)
    peer.window = 0
    for _ in range(20):
        peer.gets()
        peer.ends()
    peer.window = 1000
    while peer.c.una < 3 * M:
        peer.gets(ack=peer.c.max)
    assert peer.c.state == State.ESTABLISHED


def test_an_old_segment_does_not_change_the_window() -> None:
    peer = Peer().open()
    peer.gets(at=100, payload=b"late")
    edge = peer.c.snd_edge
    peer.window = 1
    peer.gets(at=50, payload=b"early")
    assert peer.c.snd_edge == edge


def test_segments_with_old_timestamps_are_acknowledged_and_dropped() -> None:
    peer = Peer(options=STAMPED).open()
    peer.stamp = (2000, 0)
    peer.gets(payload=b"new")
    peer.waits(SECOND)
    peer.stamp = (1999, 0)
    (o,) = peer.gets(at=3, payload=b"old")
    assert (peer.acks(o), peer.c.received) == (3, 3)
    peer.gets(RST, at=3)  # but a reset need not be in time
    assert peer.c.state == State.CLOSED


def test_timestamps_that_are_missing_are_missed() -> None:
    peer = Peer(options=STAMPED).open()
    peer.stamp = None
    peer.gets(payload=b"plain")
    assert peer.c.received == 0


def test_after_24_days_any_timestamp_is_new() -> None:
    peer = Peer(options=STAMPED).open()
    peer.stamp = (999, 0)
    peer.gets(payload=b"x", after=25 * 24 * 3600 * SECOND)
    assert peer.c.received == 1


def test_the_timestamp_of_the_first_unacknowledged_segment_is_echoed() -> None:
    peer = Peer(options=STAMPED).open()
    for n in range(2):
        peer.stamp = (2000 + n, 0)
        peer.gets(at=n, payload=b"x")
    (o,) = peer.waits(SECOND)
    assert o.options[8:] == (2000).to_bytes(4)
    assert o.options[4:8] == ((peer.now - SECOND + 40 * MS) // 1000).to_bytes(4)


@pytest.mark.parametrize("iss", [2**32 - 1, 2**32 - 2, 2**32 - 30_000, 2**31 - 1])
def test_sequence_numbers_go_round(iss: int) -> None:
    pair = Pair(End(), End()).open((iss, 2**32 - 1 - iss))
    for end in pair.ends:
        end.connection.queued(end.write(bytes(100_000)), pair.now)
    pair.commit(0)
    pair.commit(1)
    pair.run(lambda: all(e.connection.received == e.connection.acked == 100_000 for e in pair.ends))
    assert all(e.connection.retransmits == 0 for e in pair.ends)
