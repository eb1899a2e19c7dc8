"""How a connection ends: RFC 9293 §3.6, resets in every state, and who may send them."""

from __future__ import annotations

import pytest

from servers.net.tcp.block import Config, Error, State
from servers.net.tcp.segment import ACK, FIN, PSH, RST, SYN
from tests.servers.net.tcp.pair import SECOND, End, Pair, segment
from tests.servers.net.tcp.peer import LIVE, Peer, in_state

SYNCHRONIZED = [s for s in LIVE if s >= State.ESTABLISHED]


def test_one_end_closes_and_then_the_other() -> None:
    pair = Pair(End(), End()).open()
    a, b = (end.connection for end in pair.ends)
    a.shutdown(pair.now)
    pair.commit(0)
    pair.run(lambda: a.state == State.FIN_WAIT_2)
    assert (b.state, b.peer_done) == (State.CLOSE_WAIT, True)
    b.shutdown(pair.now)
    pair.commit(1)
    pair.run(lambda: a.state == State.TIME_WAIT)
    pair.run(lambda: b.state == State.CLOSED)
    pair.run()
    assert a.state == State.CLOSED
    assert a.error is b.error is None


def test_both_may_close_at_once() -> None:
    pair = Pair(End(), End()).open()
    a, b = (end.connection for end in pair.ends)
    for who, c in enumerate((a, b)):
        c.shutdown(pair.now)
        pair.commit(who)
    pair.run(lambda: State.CLOSING in (a.state, b.state))
    pair.run(lambda: a.state == b.state == State.TIME_WAIT)


def test_a_half_closed_connection_goes_on_the_other_way() -> None:
    peer = in_state(State.FIN_WAIT_2)
    (o,) = peer.gets(ACK, ack=1, payload=bytes(3000))
    assert (peer.at(o), peer.acks(o)) == (1, 3000)
    peer.waits(3600 * SECOND)  # as long as its user is there
    assert peer.c.state == State.FIN_WAIT_2
    peer.gets(FIN | ACK, 3000, ack=1)
    assert (peer.c.state, peer.c.received) == (State.TIME_WAIT, 3000)


def test_text_goes_out_after_the_peers_fin() -> None:
    peer = in_state(State.CLOSE_WAIT)
    (o,) = peer.writes(100)
    assert (peer.at(o), o.length, peer.acks(o)) == (0, 100, 1)
    (o,) = peer.shuts()
    assert (o.flags, peer.at(o)) == (FIN | ACK, 100)
    peer.gets(ACK, 1, ack=101)
    assert peer.c.state == State.CLOSED
    assert peer.c.acked == 100


def test_the_fin_goes_with_the_last_text_and_is_sent_again() -> None:
    peer = Peer().open()
    peer.writes(20_000)
    peer.shuts()
    peer.gets(ACK, ack=14_600)
    out = peer.ends()
    assert out[0].flags == ACK
    last = peer.gets(ACK, ack=20_000 - 100)[-1]
    assert (last.flags, peer.at(last), last.length) == (FIN | PSH | ACK, 19_900, 100)
    peer.gets(ACK, ack=20_000)
    (o,) = peer.ends()
    assert (o.flags, peer.at(o), o.length) == (FIN | ACK, 20_000, 0)


def test_a_fin_that_comes_before_the_text_waits_for_it() -> None:
    peer = Peer().open()
    peer.gets(FIN | ACK, 1000, payload=bytes(500))
    assert (peer.c.received, peer.c.peer_done) == (0, False)
    peer.end.die(peer.now)  # it is not forgotten
    peer.take()
    (o,) = peer.gets(ACK, 0, payload=bytes(1000))
    assert (peer.acks(o), peer.c.state) == (1501, State.CLOSE_WAIT)


def test_nothing_counts_beyond_a_fin() -> None:
    peer = Peer().open()
    peer.gets(FIN | ACK, 1000)
    peer.gets(ACK, 900, payload=bytes(200))
    assert peer.c.islands == [(900, 1000)]
    peer.gets(FIN | ACK, 800)
    peer.gets(ACK, 0, payload=bytes(900))
    assert (peer.c.received, peer.c.state) == (1000, State.CLOSE_WAIT)


def test_a_fin_that_comes_again_is_acknowledged_and_time_wait_begins_again() -> None:
    peer = in_state(State.TIME_WAIT)
    until = peer.c.deadline
    (o,) = peer.gets(FIN | ACK, ack=1, after=SECOND)
    assert (o.flags, peer.acks(o)) == (ACK, 1)
    assert peer.c.deadline == until + SECOND
    rest = peer.c.residue()
    assert rest.send_next == (peer.iss + 2) % 2**32
    assert rest.receive_next == (peer.irs + 2) % 2**32
    peer.ends()
    assert peer.c.state == State.CLOSED


def test_fin_wait_2_does_not_last_when_the_user_is_gone() -> None:
    peer = in_state(State.FIN_WAIT_2)
    peer.c.close(peer.now)
    assert peer.waits(60 * SECOND) == []
    assert (peer.c.state, peer.c.error) == (State.CLOSED, None)


def test_text_for_a_user_who_is_gone_is_reset() -> None:
    peer = Peer().open()
    peer.c.close(peer.now)
    peer.take()
    (o,) = peer.gets(ACK, ack=1, payload=b"is anybody there?")
    assert o.flags & RST
    assert peer.c.state == State.CLOSED


def test_who_goes_without_having_read_everything_resets() -> None:
    peer = Peer().open()
    peer.gets(ACK, payload=b"read me")
    peer.c.close(peer.now)
    assert peer.take()[-1].flags & RST


@pytest.mark.parametrize("state", LIVE)
def test_abort_resets_where_there_is_somebody_to_tell(state: State) -> None:
    peer = in_state(state)
    peer.c.abort(peer.now)
    out = peer.take()
    assert [o.flags for o in out] == ([] if state == State.TIME_WAIT else [RST | ACK])
    assert (peer.c.state, peer.c.deadline) == (State.CLOSED, 0)


ERRORS = {
    State.SYN_RECEIVED: Error.RESET,
    State.ESTABLISHED: Error.RESET,
    State.FIN_WAIT_1: Error.RESET,
    State.FIN_WAIT_2: Error.RESET,
    State.CLOSE_WAIT: Error.RESET,
    State.CLOSING: None,
    State.LAST_ACK: None,
    State.TIME_WAIT: None,
}


@pytest.mark.parametrize("state", LIVE)
def test_a_reset_where_it_is_expected_ends_it(state: State) -> None:
    peer = in_state(state)
    assert peer.gets(RST, peer.c.received + peer.c.peer_done) == []
    assert (peer.c.state, peer.c.error) == (State.CLOSED, ERRORS[state])
    assert peer.c.deadline == 0


@pytest.mark.parametrize("state", LIVE)
def test_a_reset_elsewhere_in_the_window_is_challenged(state: State) -> None:
    peer = in_state(state)
    expected = peer.c.received + peer.c.peer_done
    if peer.c.peer_done:
        return  # there is no window any more
    (o,) = peer.gets(RST, expected + 9)
    assert (o.flags, peer.acks(o), peer.c.state) == (ACK, expected, state)
    assert peer.gets(RST, expected + 9) == []  # once in a while only


@pytest.mark.parametrize("state", LIVE)
def test_a_reset_outside_of_the_window_is_nothing(state: State) -> None:
    peer = in_state(state)
    assert peer.gets(RST, -9) == []
    assert peer.gets(RST, 1 << 30) == []
    assert peer.c.state == state


@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_a_syn_is_challenged(state: State) -> None:
    peer = in_state(state)
    for at in (peer.c.received + 5, 1 << 30):
        peer.now += SECOND
        (o,) = peer.gets(SYN, at)
        assert (o.flags, peer.c.state) == (ACK, state)


def test_our_syn_is_refused_by_a_reset_that_acknowledges_it() -> None:
    peer = in_state(State.SYN_SENT)
    for flags, ack in ((RST, peer.iss + 1), (RST | ACK, peer.iss + 2)):
        peer.c.arrived(segment(flags, 0, ack), peer.now)
        assert peer.c.state == State.SYN_SENT
    peer.c.arrived(segment(RST | ACK, 0, peer.iss + 1), peer.now)
    assert (peer.c.state, peer.c.error, peer.take()) == (State.CLOSED, Error.REFUSED, [])


@pytest.mark.parametrize("ack", [1, 1 << 30, -200_000])
def test_acks_of_what_was_never_sent_or_long_ago_are_challenged(ack: int) -> None:
    peer = Peer().open()
    (o,) = peer.gets(ACK, ack=ack, payload=b"injected")
    assert (o.flags, peer.c.received) == (ACK, 0)


def test_the_hosts_budget_is_asked() -> None:
    class Poor:
        def take(self, now: int) -> bool:
            return False

    peer = Peer().open()
    peer.c.challenges = Poor()
    assert peer.gets(SYN, 5) == []


def test_keep_alive_finds_a_peer_gone_and_leaves_one_that_answers() -> None:
    config = Config(keepalive=10 * SECOND, keepalive_interval=SECOND, keepalive_probes=3)
    peer = Peer(config).open()
    for _ in range(5):
        (o,) = peer.waits(10 * SECOND)
        assert (o.flags, peer.at(o), o.length) == (ACK, -1, 0)
        assert peer.gets() == []
    out = peer.waits(13 * SECOND)
    assert [o.flags for o in out] == [ACK] * 3 + [RST | ACK]
    assert (peer.c.state, peer.c.error) == (State.CLOSED, Error.TIMED_OUT)


def test_without_keep_alive_silence_lasts() -> None:
    peer = Peer().open()
    assert peer.waits(10**12) == []
    assert peer.c.deadline == 0
