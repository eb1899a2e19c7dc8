"""How a connection begins: RFC 9293 §3.5, RFC 7323 §2, RFC 6691."""

from __future__ import annotations

from itertools import pairwise

import pytest

from servers.net.tcp.block import Config, Error, State, window_scale
from servers.net.tcp.segment import ACK, FIN, PSH, RST, SYN, Options, parse
from tests.servers.net.tcp.pair import SECOND, End, Pair, frames, segment
from tests.servers.net.tcp.peer import OFFER, WINDOW, Peer, in_state


def test_a_syn_offers_what_we_can() -> None:
    end = End(Config(mss=8960), 1 << 18)
    end.connection.active(7, SECOND, ts_offset=5)
    syn = parse(memoryview(frames(end.commit(), end.send, False)[0]))
    assert (syn.seq, syn.flags, syn.window) == (7, SYN, 65_535)
    assert syn.options == Options(8960, window_scale(1 << 18), True, (1005, 0))


def test_a_syn_is_answered_with_what_both_can() -> None:
    peer = Peer(options=Options(mss=1000))
    peer.c.passive(peer.syn, peer.iss, peer.now)
    (o,) = peer.take()
    assert (o.flags, peer.at(o), peer.acks(o)) == (SYN | ACK, -1, 0)
    answer = parse(memoryview(frames([o], peer.end.send, False)[0]))
    assert answer.options == Options(mss=1460)
    peer.gets(ACK)
    assert (peer.c.state, peer.c.mss) == (State.ESTABLISHED, 1000)


@pytest.mark.parametrize(("offered", "mss"), [(0, 536), (536, 536), (9000, 1460), (1, 88)])
def test_the_segment_size_is_the_smaller_one(offered: int, mss: int) -> None:
    peer = Peer(options=OFFER._replace(mss=offered)).open()
    assert peer.c.mss == mss
    assert max(o.length for o in peer.writes(10_000)) == mss


def test_options_are_not_counted_by_the_mss() -> None:
    peer = Peer(options=OFFER._replace(timestamp=(9, 0))).open()
    assert max(o.length + len(o.options) for o in peer.writes(10_000)) == 1460


@pytest.mark.parametrize("mss", [536, 8960])
def test_streams_pass_with_small_and_jumbo_segments(mss: int) -> None:
    pair = Pair(End(Config(mss=mss)), End(Config(mss=mss))).open()
    a, b = pair.ends
    a.connection.queued(a.write(bytes(100_000)), pair.now)
    pair.commit(0)
    pair.run(lambda: b.connection.received == 100_000)
    assert max(o.length for o in a.sent) == mss - 12


def test_a_syn_that_is_not_answered_is_sent_again_more_and_more_slowly() -> None:
    peer = Peer()
    peer.c.active(peer.iss, peer.now)
    times = [peer.now]
    while peer.c.state != State.CLOSED:
        peer.ends()
        times.append(peer.now)
    assert [b - a for a, b in pairwise(times)][:7] == [n * SECOND for n in (1, 2, 4, 8, 16, 32, 60)]
    assert peer.c.error == Error.TIMED_OUT
    assert peer.c.deadline == 0


def test_a_retransmitted_syn_is_answered_again_at_once() -> None:
    peer = in_state(State.SYN_RECEIVED)
    peer.c.arrived(peer.syn, peer.now)
    (o,) = peer.take()
    assert (o.flags, peer.at(o), peer.acks(o)) == (SYN | ACK, -1, 0)


def test_our_answer_to_a_syn_is_sent_again() -> None:
    peer = in_state(State.SYN_RECEIVED)
    (o,) = peer.ends()
    assert (o.flags, peer.at(o)) == (SYN | ACK, -1)
    peer.gets(ACK)
    assert peer.c.cwnd == peer.c.mss  # RFC 5681 §3.1
    assert peer.c.rto == 3 * SECOND  # RFC 6298 §5.7


def test_a_syn_ack_that_comes_again_is_acknowledged_again() -> None:
    peer = in_state(State.SYN_SENT)
    answer = segment(SYN | ACK, peer.irs, peer.iss + 1, options=OFFER)
    for _ in range(2):
        peer.c.arrived(answer, peer.now)
        (o,) = peer.take()
        assert (o.flags, peer.at(o), peer.acks(o)) == (ACK, 0, 0)
    assert peer.c.state == State.ESTABLISHED


def test_text_and_fin_may_come_with_the_syn_ack() -> None:
    peer = in_state(State.SYN_SENT)
    answer = segment(SYN | ACK | FIN, peer.irs, peer.iss + 1, payload=b"all of it")
    peer.c.arrived(answer, peer.now)
    assert peer.acks(peer.take()[0]) == 10
    assert (peer.c.state, peer.c.received, peer.c.peer_done) == (State.CLOSE_WAIT, 9, True)


def test_text_may_come_with_the_third_segment() -> None:
    peer = in_state(State.SYN_RECEIVED)
    peer.gets(ACK | PSH, payload=b"hello")
    assert (peer.c.state, peer.c.received) == (State.ESTABLISHED, 5)


def test_both_may_open_at_once() -> None:
    a, b = End(), End()
    pair = Pair(a, b)
    a.connection.active(2**32 - 1, pair.now)
    b.connection.active(9, pair.now)
    pair.commit(0)
    pair.commit(1)
    pair.run(lambda: all(e.connection.state == State.ESTABLISHED for e in pair.ends))
    assert any(o.flags == SYN | ACK for o in a.sent)
    a.connection.queued(a.write(b"x" * 99), pair.now)
    pair.commit(0)
    pair.run(lambda: b.connection.received == 99)


def test_a_wrong_answer_to_our_syn_is_reset() -> None:
    peer = in_state(State.SYN_SENT)
    peer.c.arrived(segment(SYN | ACK, 1, peer.iss + 2), peer.now)
    (o,) = peer.take()
    assert (o.flags, o.seq) == (RST, peer.iss + 2)
    assert peer.c.state == State.SYN_SENT


def test_a_wrong_third_segment_is_reset() -> None:
    peer = in_state(State.SYN_RECEIVED)
    (o,) = peer.gets(ACK, ack=1)
    assert (o.flags, peer.at(o)) == (RST, 1)
    assert peer.c.state == State.SYN_RECEIVED


def test_a_handshake_of_which_nothing_was_kept_is_completed() -> None:
    peer = Peer()
    third = peer.made(ACK, payload=b"hi")._replace(options=Options(timestamp=(77, 3)))
    peer.c.from_cookie(third, peer.now, Options(1000, 5, True), ts_offset=3)
    c = peer.c
    assert (c.state, c.received, c.mss, c.snd_scale) == (State.ESTABLISHED, 2, 988, 5)
    assert (c.stamps, c.sack_ok, c.ts_recent) == (True, True, 77)


def test_unreachable_ends_only_a_connection_that_is_not_there_yet() -> None:
    peer = in_state(State.SYN_SENT)
    peer.c.unreachable(peer.now)
    assert (peer.c.state, peer.c.error) == (State.CLOSED, Error.UNREACHABLE)
    peer = in_state(State.ESTABLISHED)
    peer.c.unreachable(peer.now)
    assert peer.c.state == State.ESTABLISHED


@pytest.mark.parametrize(
    ("size", "scale"),
    [(1, 0), (65_535, 0), (65_536, 1), (131_070, 1), (131_071, 2), (1 << 18, 3), (1 << 40, 14)],
)
def test_the_scale_is_the_least_that_will_do(size: int, scale: int) -> None:
    assert window_scale(size) == scale


def test_windows_are_scaled_except_in_a_syn() -> None:
    peer = Peer(size=1 << 20, options=OFFER._replace(scale=4))
    peer.window = 500
    peer.open()
    assert peer.c.snd_edge == 500 << 4
    (o,) = peer.gets(ACK, payload=bytes(3000))
    assert 0 <= (1 << 20) - 3000 - (o.window << window_scale(1 << 20)) < 32
    plain = Peer(size=1 << 20, options=OFFER._replace(scale=-1)).open()
    (o,) = plain.gets(ACK, payload=bytes(3000))
    assert (o.window, plain.c.snd_edge) == (65_535, WINDOW)
