"""A connection goes on from its record, whatever it was doing."""

from __future__ import annotations

import pytest

from servers.net.tcp.block import Config, Error, State
from servers.net.tcp.connection import RECORD_BYTES
from servers.net.tcp.record import FIELDS, FLAGS
from servers.net.tcp.segment import ACK, FIN, RST, SYN
from tests.servers.net.tcp.fuzz import run
from tests.servers.net.tcp.pair import MS, SECOND, End, Pair
from tests.servers.net.tcp.peer import LIVE, OFFER, Peer, in_state, spans

M = 1460


def dies(peer: Peer) -> Peer:
    peer.end.die(peer.now)
    return peer


def test_a_record_is_small() -> None:
    assert RECORD_BYTES <= 384
    assert len(Peer().open().c.pack()) == RECORD_BYTES


@pytest.mark.parametrize("state", [State.CLOSED, State.SYN_SENT, *LIVE])
def test_everything_in_the_record_comes_back(state: State) -> None:
    peer = in_state(state)
    before = peer.c
    dies(peer)
    moved = {"lives", "since", "adv", "retransmits"}
    kept = set(FIELDS) - moved | set(FLAGS) | {"error", "islands"}
    for name in sorted(kept):
        assert getattr(peer.c, name) == getattr(before, name), name
    assert peer.c.lives == 2


@pytest.mark.parametrize("state", [State.SYN_SENT, *LIVE])
def test_in_every_state_the_peer_is_told_at_once(state: State) -> None:
    out = dies(in_state(state)).take()
    flags = {State.SYN_SENT: [SYN], State.SYN_RECEIVED: [SYN | ACK]}
    fin = (State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK)
    assert [o.flags for o in out] == flags.get(state, [FIN | ACK if state in fin else ACK])


def test_what_is_under_way_goes_out_again_at_once() -> None:
    peer = Peer().open()
    peer.writes(8 * M)
    peer.gets(ack=3 * M)
    dies(peer)
    assert spans(peer, peer.take()) == [(n * M, M) for n in range(3, 8)]
    assert 0 < peer.c.deadline - peer.now <= SECOND
    peer.gets(ack=8 * M)
    assert (peer.c.acked, peer.c.deadline) == (8 * M, 0)


def test_what_was_not_committed_has_not_happened() -> None:
    peer = Peer().open()
    peer.c.arrived(peer.made(payload=b"text"), peer.now)
    dies(peer)
    assert peer.c.received == 0
    assert [peer.acks(o) for o in peer.take()] == [0]
    peer.gets(payload=b"text")
    peer.reads()
    assert peer.end.taken == b"text"


def test_an_error_is_remembered() -> None:
    peer = Peer().open()
    peer.gets(RST)
    dies(peer)
    assert (peer.c.state, peer.c.error, peer.take()) == (State.CLOSED, Error.RESET, [])
    assert peer.c.deadline == 0


def test_a_shut_window_is_probed_by_the_next_life() -> None:
    peer = Peer().open()
    peer.window = 0
    peer.gets()
    peer.writes(100)
    dies(peer)
    assert spans(peer, peer.take()) == [(0, 0)]
    assert spans(peer, peer.ends()) == [(-1, 0)]
    peer.window = 1
    assert spans(peer, peer.gets()) == [(0, 100)]


def test_time_wait_goes_on() -> None:
    peer = in_state(State.TIME_WAIT)
    until = peer.c.deadline
    assert dies(peer).c.deadline == until


def test_old_segments_are_still_old() -> None:
    peer = Peer(options=OFFER._replace(timestamp=(1000, 0))).open()
    peer.gets(payload=b"x")
    dies(peer).take()
    peer.stamp = (999, 0)
    peer.gets(at=1, payload=b"y")
    assert peer.c.received == 1


def test_both_ends_may_die_during_the_handshake() -> None:
    pair = Pair(End(), End())
    a, b = pair.ends
    a.connection.active(1, pair.now)
    b.connection.active(2, pair.now)
    for who, end in enumerate(pair.ends):
        end.commit()
        end.die(pair.now + MS)
        pair.commit(who)
    pair.run(lambda: all(e.connection.state == State.ESTABLISHED for e in pair.ends))


def test_keep_alive_goes_on() -> None:
    peer = Peer(Config(keepalive=SECOND)).open()
    dies(peer).take()
    assert spans(peer, peer.ends()) == [(-1, 0)]


def test_nothing_that_arrives_breaks_anything() -> None:
    seen = run(20_000, 5)
    assert min(seen[state] for state in State if state != State.LISTEN) > 0
