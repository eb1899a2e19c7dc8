"""The table of connections: handshakes, listeners, resets, ports, closing, and another life."""

from __future__ import annotations

import pytest

from servers.net.tcp import ports
from servers.net.tcp.connection import Config, Error, State
from servers.net.tcp.cookies import LIFETIME_US, Features, features
from servers.net.tcp.entries import BadPeer, Entry, NoRoom, PortInUse
from servers.net.tcp.limits import Limits
from servers.net.tcp.listeners import Listeners
from servers.net.tcp.quad import Quad
from servers.net.tcp.segment import ACK, FIN, MASK, PSH, RST, SYN, Options, Segment, diff
from tests.servers.net.tcp.hosts import (
    CLIENT,
    RING,
    SECOND,
    SERVER,
    START,
    Host,
    pump,
    segment,
    stamps,
    syn,
)

NO_STAMPS = Options(1460, 7, True)
WAIT = Config().time_wait


def third(answer: Segment, source: int = 40_000, payload: bytes = b"") -> Segment:
    """What acknowledges a SYN-ACK; the SYN was `syn()`."""
    echo = answer.options.timestamp
    options = stamps(5001, echo[0]) if echo else Options()
    return segment(ACK, answer.ack, answer.seq + 1, payload, options, source)


def served(**kwargs: object) -> Host:
    host = Host(**kwargs)  # type: ignore[arg-type]
    host.table.listen(80, 0, 8)
    return host


def accept(host: Host) -> Entry | None:
    for listener in host.table.listeners:
        return host.table.accepted(listener)
    return None


def established(host: Host, source: int = 40_000) -> Entry:
    """A connection from CLIENT, made by hand and accepted."""
    [answer] = host.get(CLIENT, syn(source))
    assert host.get(CLIENT, third(answer, source)) == []
    entry = accept(host)
    assert entry is not None
    assert entry.connection.state is State.ESTABLISHED
    return entry


def pair(**kwargs: object) -> tuple[Host, Host, Entry, Entry]:
    """A client and a server that are connected."""
    client, server = Host(CLIENT, **kwargs), served()  # type: ignore[arg-type]
    mine = client.table.connect(SERVER, 80, client.now)
    pump(client, server)
    theirs = accept(server)
    assert theirs is not None
    return client, server, mine, theirs


# --- handshakes -----------------------------------------------------------------------------------


def test_two_hosts_connect_talk_and_close() -> None:
    client, server, mine, theirs = pair()
    assert mine.connection.state is theirs.connection.state is State.ESTABLISHED
    client.write(mine, b"question")
    pump(client, server)
    assert server.read(theirs) == b"question"
    server.write(theirs, b"answer")
    server.table.release(theirs, server.now)
    pump(client, server)
    assert client.read(mine) == b"answer"
    assert mine.connection.peer_done
    client.table.release(mine, client.now)
    pump(client, server)
    assert not client.pool.held
    assert not server.pool.held
    assert [past.quad for past in server.table.time_waits] == [theirs.quad]
    assert not server.table.entries
    assert not client.table.entries
    assert server.table.counters.broken == client.table.counters.broken == 0


def test_half_open_it_has_no_slot() -> None:
    host = served()
    [answer] = host.get(CLIENT, syn())
    assert answer.flags == SYN | ACK
    assert answer.ack == 101
    assert answer.options.mss == 1460
    assert (answer.options.scale, answer.options.sack_permitted) == (0, True)
    assert answer.options.timestamp is not None
    assert answer.options.timestamp[1] == 5000
    assert features(answer.options.timestamp[0]) == Features(7, True)
    assert host.table.half_open == 1
    assert not host.pool.held
    assert host.get(CLIENT, third(answer)) == []
    assert host.table.half_open == 0
    assert len(host.pool.held) == 1


def test_what_was_agreed_holds() -> None:
    host = served(ring=1 << 20)
    [answer] = host.get(CLIENT, syn())
    assert answer.options.scale == 5
    assert answer.window == 65_535, "never scaled in a SYN"
    host.get(CLIENT, third(answer))
    entry = accept(host)
    assert entry is not None
    assert entry.connection.snd_scale == 7
    assert entry.connection.rcv_scale == 5


@pytest.mark.parametrize("options", [Options(), Options(536), NO_STAMPS])
def test_a_peer_gets_no_option_that_it_did_not_offer(options: Options) -> None:
    host = served()
    [answer] = host.get(CLIENT, syn(options=options))
    assert answer.options.timestamp is None
    assert (answer.options.scale >= 0) is (options.scale >= 0)
    assert answer.options.sack_permitted is options.sack_permitted
    host.get(CLIENT, third(answer, payload=b"early"))
    entry = accept(host)
    assert entry is not None
    assert host.read(entry) == b"early"
    assert entry.connection.mss == (options.mss or 536)


def test_options_that_are_switched_off_are_not_agreed() -> None:
    host = served(config=Config(timestamps=False, sack=False, scale=False))
    [answer] = host.get(CLIENT, syn())
    assert answer.options == Options(1460)


def test_a_repeated_syn_gets_the_same_answer() -> None:
    host = served()
    [first] = host.get(CLIENT, syn())
    [again] = host.get(CLIENT, syn())
    assert (again.seq, again.ack) == (first.seq, first.ack)
    assert host.table.half_open == 1


def test_the_answer_is_repeated_ever_later_and_then_no_more() -> None:
    host = served()
    host.get(CLIENT, syn())
    times = []
    while host.table.deadline:
        if host.wait(host.table.deadline):
            times.append((host.now - START) // SECOND)
    assert times == [1, 3, 7, 15, 31]
    assert host.table.half_open == 0
    assert host.table.counters.handshakes_expired == 1


def test_a_handshake_that_had_to_be_repeated_begins_slowly() -> None:
    host = served()
    host.get(CLIENT, syn())
    [answer] = host.wait(START + SECOND)
    host.get(CLIENT, third(answer))
    entry = accept(host)
    assert entry is not None
    assert entry.connection.cwnd == entry.connection.mss


def test_the_round_trip_of_the_handshake_is_measured() -> None:
    host = served()
    [answer] = host.get(CLIENT, syn())
    host.now += 30_000
    host.get(CLIENT, third(answer))
    entry = accept(host)
    assert entry is not None
    assert entry.connection.srtt_us == 30_000


def test_a_third_segment_that_acknowledges_something_else_is_reset() -> None:
    host = served()
    [answer] = host.get(CLIENT, syn())
    wrong = segment(ACK, 101, answer.seq + 2, options=stamps(5001, 0))
    [reset] = host.get(CLIENT, wrong)
    assert (reset.flags, reset.seq) == (RST, wrong.ack)
    assert host.table.half_open == 1


def test_data_that_overtook_the_third_segment_establishes_too() -> None:
    host = served()
    [answer] = host.get(CLIENT, syn())
    late = third(answer)
    host.get(CLIENT, late._replace(seq=late.seq + 5, payload=memoryview(b"world")))
    entry = accept(host)
    assert entry is not None
    host.get(CLIENT, late._replace(payload=memoryview(b"hello")))
    assert host.read(entry) == b"helloworld"


def test_a_reset_ends_a_handshake_only_at_its_place() -> None:
    host = served()
    host.get(CLIENT, syn())
    [challenge] = host.get(CLIENT, segment(RST, 102))
    assert (challenge.flags, challenge.ack) == (ACK, 101)
    assert host.get(CLIENT, segment(RST, 101 + RING)) == []
    assert host.table.half_open == 1
    assert host.get(CLIENT, segment(RST, 101)) == []
    assert host.table.half_open == 0
    assert host.table.counters.handshakes_reset == 1


@pytest.mark.parametrize(
    "stray",
    [
        syn(seq=7000),  # the peer has begun anew: it will reset what we say, and SYN again
        segment(ACK, 101, 0, options=stamps(4999, 0)),  # from before the SYN
        segment(ACK, 101, 0),
        segment(ACK, 99, 0, options=stamps(5001, 0)),
    ],
)
def test_what_cannot_be_right_is_told_where_we_are(stray: Segment) -> None:
    host = served()
    [answer] = host.get(CLIENT, syn())
    [challenge] = host.get(CLIENT, stray)
    assert (challenge.flags, challenge.seq, challenge.ack) == (ACK, answer.seq + 1 & MASK, 101)
    assert host.table.half_open == 1


def test_a_segment_without_ack_does_nothing_to_a_handshake() -> None:
    host = served()
    host.get(CLIENT, syn())
    assert host.get(CLIENT, segment(PSH, 101, options=stamps(5001, 0))) == []
    assert host.table.half_open == 1


def test_both_call_at_once() -> None:
    one, two = Host(CLIENT), Host(SERVER)
    mine = one.table.connect(SERVER, 5000, one.now, local_port=5000)
    theirs = two.table.connect(CLIENT, 5000, two.now, local_port=5000)
    pump(one, two)
    assert mine.connection.state is theirs.connection.state is State.ESTABLISHED
    one.write(mine, b"hello")
    pump(one, two)
    assert two.read(theirs) == b"hello"


# --- cookies --------------------------------------------------------------------------------------


def crowded(**kwargs: object) -> Host:
    """A server whose every handshake is by cookie."""
    return served(limits=Limits(half_open=0), **kwargs)


def test_beyond_the_bound_cookies_are_given() -> None:
    host = served(limits=Limits(half_open=3))
    for source in range(10):
        host.get(CLIENT, syn(40_000 + source))
    assert host.table.half_open == 3
    assert host.table.counters.cookies_sent == 7


def test_a_cookie_brings_everything_back() -> None:
    host = crowded(ring=1 << 20)
    [answer] = host.get(CLIENT, syn())
    assert host.table.half_open == 0
    host.get(CLIENT, third(answer, payload=b"first"))
    entry = accept(host)
    assert entry is not None
    connection = entry.connection
    assert host.read(entry) == b"first"
    assert (connection.snd_scale, connection.rcv_scale, connection.sack_ok) == (7, 5, True)
    assert connection.peer_mss == 1460
    assert host.table.counters.cookies_accepted == 1


def test_without_timestamps_a_cookie_has_room_for_the_mss_alone() -> None:
    host = crowded()
    [answer] = host.get(CLIENT, syn(options=Options(1400, 7, True)))
    assert answer.options == Options(1460)
    host.get(CLIENT, third(answer))
    entry = accept(host)
    assert entry is not None
    assert (entry.connection.peer_mss, entry.connection.sack_ok) == (1360, False)


def test_the_timestamps_of_a_cookie_go_on_without_a_step_back() -> None:
    host = crowded()
    [answer] = host.get(CLIENT, syn())
    host.get(CLIENT, third(answer))
    entry = accept(host)
    assert entry is not None
    host.write(entry, b"x")
    [sending] = host.commit()
    value = int.from_bytes(sending.outgoing.options[4:8])
    assert answer.options.timestamp is not None
    assert 0 <= diff(value, answer.options.timestamp[0]) < 32


def test_a_cookie_that_is_too_old_is_refused() -> None:
    host = crowded()
    [answer] = host.get(CLIENT, syn())
    host.now += LIFETIME_US
    host.get(CLIENT, syn(50_000))  # cookies are still given
    [reset] = host.get(CLIENT, third(answer))
    assert reset.flags == RST
    assert host.table.counters.cookies_refused == 1
    assert not host.pool.held


def test_a_cookie_of_another_secret_is_refused() -> None:
    host, other = crowded(), crowded(secret=bytes(32))
    host.get(CLIENT, syn(50_000))
    [answer] = other.get(CLIENT, syn())
    [reset] = host.get(CLIENT, third(answer))
    assert reset.flags == RST
    assert not host.pool.held


def test_where_no_cookie_was_given_none_is_taken() -> None:
    host, other = served(), crowded()
    [answer] = other.get(CLIENT, syn())
    [reset] = host.get(CLIENT, third(answer))
    assert reset.flags == RST
    assert host.table.counters.cookies_refused == 0


def test_data_that_overtook_a_cookie_is_dropped_and_comes_again() -> None:
    host = crowded()
    [answer] = host.get(CLIENT, syn())
    first = third(answer, payload=b"hello")
    second = first._replace(seq=first.seq + 5, payload=memoryview(b"world"))
    assert host.get(CLIENT, second) == []
    host.get(CLIENT, first)
    host.get(CLIENT, second)
    entry = accept(host)
    assert entry is not None
    assert host.read(entry) == b"helloworld"


# --- bounds ---------------------------------------------------------------------------------------


def test_when_the_backlog_is_full_third_segments_are_ignored_and_no_syn_is_answered() -> None:
    host = Host()
    listener = host.table.listen(80, 0, 2)
    answers = {source: host.get(CLIENT, syn(source))[0] for source in range(1, 5)}
    for source, answer in answers.items():
        assert host.get(CLIENT, third(answer, source)) == []
    assert len(listener.waiting) == len(host.pool.held) == 2
    assert host.table.half_open == 2
    assert host.get(CLIENT, syn(9)) == []
    assert host.table.counters.backlog_overflows == 3
    host.table.accepted(listener)
    host.get(CLIENT, third(answers[3], 3))
    assert len(listener.waiting) == 2
    assert host.table.half_open == 1


def test_without_a_slot_the_third_segment_is_ignored_until_there_is_one() -> None:
    host = served(slots=1)
    first = established(host, 1)
    [answer] = host.get(CLIENT, syn(2))
    assert host.get(CLIENT, third(answer, 2)) == []
    assert host.table.counters.slots_missing == 1
    first.connection.abort(host.now)
    host.table.touched(first, host.now)
    host.table.release(first, host.now)
    host.get(CLIENT, third(answer, 2))
    assert host.table.counters.established == 2


def test_the_same_with_a_cookie() -> None:
    host = crowded(slots=0)
    [answer] = host.get(CLIENT, syn())
    assert host.get(CLIENT, third(answer)) == []
    assert host.table.counters.slots_missing == 1
    assert host.table.counters.cookies_accepted == 0


def test_replies_that_nobody_takes_do_not_pile_up() -> None:
    host = served(limits=Limits(half_open=1, replies=10))
    for source in range(1, 100):
        host.table.arrived(CLIENT, SERVER, syn(source), host.now)
    assert len(host.table.take_out()) == 10
    assert host.table.counters.held_back == 89


def test_listeners_are_bounded() -> None:
    host = Host(limits=Limits(listeners=2))
    host.table.listen(1, 0, 1)
    host.table.listen(2, 0, 1)
    with pytest.raises(NoRoom):
        host.table.listen(3, 0, 1)


# --- nobody ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrived", "flags", "seq", "ack"),
    [
        (segment(SYN, 100), RST | ACK, 0, 101),
        (segment(SYN | FIN, 100, payload=b"abc"), RST | ACK, 0, 105),
        (segment(0, 0xFFFF_FFFF, payload=b"abc"), RST | ACK, 0, 2),
        (segment(ACK, 100, 777), RST, 777, 0),
        (segment(SYN | ACK, 100, 777), RST, 777, 0),
        (segment(FIN | ACK, 100, 777, b"abc"), RST, 777, 0),
    ],
)
def test_a_segment_for_nobody_is_reset(arrived: Segment, flags: int, seq: int, ack: int) -> None:
    [reset] = Host().get(CLIENT, arrived)
    assert (reset.flags, reset.seq, reset.ack) == (flags, seq, ack)
    assert (reset.source, reset.destination) == (80, 40_000)


@pytest.mark.parametrize("flags", [RST, RST | ACK, RST | SYN])
def test_a_reset_is_never_reset(flags: int) -> None:
    assert Host().get(CLIENT, segment(flags, 1, 2)) == []
    assert served().get(CLIENT, segment(flags, 1, 2)) == []


def test_at_a_listener_too() -> None:
    assert served().get(CLIENT, segment(ACK, 1, 777))[0].seq == 777
    assert served().get(CLIENT, segment(SYN | ACK, 1, 777))[0].seq == 777
    assert served().get(CLIENT, segment(FIN, 1)) == []


def test_resets_are_limited_by_the_second() -> None:
    host = Host()
    sent = [host.get(CLIENT, segment(ACK, 1, 2, source=source)) for source in range(1, 1001)]
    assert sum(map(len, sent)) == 200
    assert host.table.counters.held_back == 800
    host.now += SECOND // 2
    sent = [host.get(CLIENT, segment(ACK, 1, 2, source=source)) for source in range(1, 1001)]
    assert sum(map(len, sent)) == 100


@pytest.mark.parametrize(
    ("source", "destination", "arrived"),
    [
        (CLIENT, 0x0A0000FF, syn()),  # a broadcast address
        (CLIENT, 0xE0000001, syn()),
        (0xE0000001, SERVER, syn()),
        (0xFFFF_FFFF, SERVER, syn()),
        (0, SERVER, syn()),
        (CLIENT, SERVER, syn(0)),
        (SERVER, SERVER, syn(80)),  # LAND
    ],
)
def test_what_cannot_be_answered_is_dropped(
    source: int, destination: int, arrived: Segment
) -> None:
    host = served()
    host.table.arrived(source, destination, arrived, host.now)
    assert host.commit() == []
    assert host.table.half_open == 0
    assert host.table.counters.foreign == 1


# --- listeners ------------------------------------------------------------------------------------


def test_who_names_the_address_goes_first() -> None:
    host = Host()
    anybody = host.table.listen(80, 0, 4)
    named = host.table.listen(80, SERVER, 4)
    elsewhere = host.table.listen(80, CLIENT, 4)
    [answer] = host.get(CLIENT, syn())
    host.get(CLIENT, third(answer))
    assert [len(each.waiting) for each in (anybody, named, elsewhere)] == [0, 1, 0]
    host.table.unlisten(named, host.now)
    assert [each.outgoing.flags for each in host.commit()] == [RST | ACK]
    [answer] = host.get(CLIENT, syn(40_001))
    host.get(CLIENT, third(answer, 40_001))
    assert len(anybody.waiting) == 1


def test_a_port_is_taken_once() -> None:
    table = Host().table
    table.listen(80, 0, 1)
    with pytest.raises(PortInUse):
        table.listen(80, 0, 1)


def test_a_port_that_is_given_up_can_be_had_again() -> None:
    listeners = Listeners(Limits())
    listeners.remove(listeners.add(80, 0, 0))
    assert not listeners.has(80)
    assert listeners.add(80, 0, 0).backlog == 1


def test_what_nobody_accepted_ends_with_its_listener() -> None:
    host = Host()
    listener = host.table.listen(80, 0, 8)
    [answer] = host.get(CLIENT, syn(1))
    host.get(CLIENT, third(answer, 1))
    host.get(CLIENT, syn(2))
    host.table.unlisten(listener, host.now)
    assert [each.outgoing.flags for each in host.commit()] == [RST | ACK]
    assert not host.pool.held
    assert host.table.half_open == 0
    assert host.table.deadline == 0
    assert host.table.accepted(listener) is None


def test_what_is_reset_before_it_was_accepted_is_not_offered() -> None:
    host = served()
    [answer] = host.get(CLIENT, syn())
    host.get(CLIENT, third(answer))
    host.get(CLIENT, segment(RST, 101))
    assert accept(host) is None
    assert not host.pool.held
    assert host.table.counters.broken == 1


def test_a_new_connection_is_dirty_and_so_is_an_accepted_one() -> None:
    host = Host()
    listener = host.table.listen(80, 0, 8)
    [answer] = host.get(CLIENT, syn())
    host.table.arrived(CLIENT, SERVER, third(answer), host.now)
    found = [(each, each.listener) for each in host.table.take_dirty()]
    assert [where for _, where in found] == [listener]
    assert host.table.accepted(listener) is found[0][0]
    assert [each.listener for each in host.table.take_dirty()] == [None]
    assert host.table.take_dirty() == []


# --- connecting -----------------------------------------------------------------------------------


def test_connections_to_one_peer_have_ports_of_their_own() -> None:
    client, server = Host(CLIENT), served()
    mine = [client.table.connect(SERVER, 80, client.now) for _ in range(5)]
    assert len({entry.quad.local_port for entry in mine}) == 5
    pump(client, server)
    assert all(entry.connection.state is State.ESTABLISHED for entry in mine)
    for number, entry in enumerate(mine):
        client.write(entry, b"%d" % number)
    pump(client, server)
    theirs = [accept(server) for _ in range(5)]
    found = {entry.quad.remote_port: server.read(entry) for entry in theirs if entry}
    assert found == {entry.quad.local_port: b"%d" % number for number, entry in enumerate(mine)}


def test_a_named_port_is_taken_once_for_a_peer() -> None:
    client = Host(CLIENT)
    client.table.connect(SERVER, 80, client.now, local_port=7)
    with pytest.raises(PortInUse):
        client.table.connect(SERVER, 80, client.now, local_port=7)
    client.table.connect(SERVER, 81, client.now, local_port=7)


def test_when_every_port_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "COUNT", 3)
    client = Host(CLIENT)
    client.table.listen(ports.FIRST + 1, 0, 1)
    found = [client.table.connect(SERVER, 80, client.now) for _ in range(2)]
    assert {entry.quad.local_port for entry in found} == {ports.FIRST, ports.FIRST + 2}
    with pytest.raises(PortInUse):
        client.table.connect(SERVER, 80, client.now)
    client.table.connect(SERVER, 81, client.now)


def test_without_a_slot_nothing_is_begun() -> None:
    client = Host(CLIENT, slots=0)
    with pytest.raises(NoRoom):
        client.table.connect(SERVER, 80, client.now)
    assert client.commit() == []


@pytest.mark.parametrize(("remote", "port"), [(0, 80), (SERVER, 0), (0xE0000001, 80)])
def test_where_no_connection_leads(remote: int, port: int) -> None:
    with pytest.raises(BadPeer):
        Host(CLIENT).table.connect(remote, port, START)


def test_nobody_listens_there() -> None:
    client, server = Host(CLIENT), Host()
    entry = client.table.connect(SERVER, 80, client.now)
    pump(client, server)
    assert entry.connection.error is Error.REFUSED
    assert not client.table.entries
    assert client.pool.held, "whoever connected still holds it"
    client.table.release(entry, client.now)
    client.table.release(entry, client.now)
    client.table.touched(entry, client.now)
    assert not client.pool.held


def test_icmp_ends_an_attempt_but_no_connection() -> None:
    client = Host(CLIENT)
    entry = client.table.connect(SERVER, 80, client.now)
    [sending] = client.commit()
    client.table.unreachable(entry.quad, client.now, sending.outgoing.seq + 1 & MASK)
    assert entry.connection.state is State.SYN_SENT, "it speaks of a segment that was never sent"
    client.table.unreachable(entry.quad, client.now, sending.outgoing.seq)
    assert entry.connection.error is Error.UNREACHABLE
    host = served()
    there = established(host)
    host.table.unreachable(there.quad, host.now)
    host.table.unreachable(Quad(1, 2, 3, 4), host.now)
    assert there.connection.state is State.ESTABLISHED


def test_when_the_link_is_back_everything_is_sent_again() -> None:
    host = served()
    entry = established(host)
    host.get(CLIENT, syn(50_000))
    host.write(entry, b"lost")
    host.commit()
    host.table.link_restored(host.now)
    again = host.commit()
    assert {each.outgoing.flags & (SYN | ACK | PSH) for each in again} == {SYN | ACK, ACK | PSH}


# --- closing --------------------------------------------------------------------------------------


def test_what_is_queued_is_sent_by_a_connection_that_nobody_holds() -> None:
    client, server, mine, theirs = pair()
    server.write(theirs, b"x" * RING)
    server.table.release(theirs, server.now)
    assert server.pool.held
    got = b""
    while not mine.connection.peer_done or mine.connection.consumed_to < mine.connection.received:
        pump(client, server)
        got += client.read(mine)
    assert got == b"x" * RING


def test_who_goes_without_having_read_resets() -> None:
    host = served()
    entry = established(host)
    host.get(CLIENT, segment(ACK, 101, entry.connection.iss1, b"data", stamps(5002, 0)))
    host.table.release(entry, host.now)
    assert [each.outgoing.flags for each in host.commit()] == [RST | ACK]
    assert not host.pool.held


def test_what_comes_when_nobody_reads_is_reset() -> None:
    host = served()
    entry = established(host)
    host.table.release(entry, host.now)
    host.commit()
    data = segment(ACK, 101, entry.connection.iss1 + 1, b"data", stamps(5002, 0))
    [reset] = host.get(CLIENT, data)
    assert reset.flags & RST
    assert not host.pool.held


def test_nobody_waits_for_ever_for_the_peer_to_close() -> None:
    host = served()
    entry = established(host)
    host.table.release(entry, host.now)
    host.commit()
    host.get(CLIENT, segment(ACK, 101, entry.connection.iss1 + 1, options=stamps(5002, 0)))
    assert entry.connection.state is State.FIN_WAIT_2
    host.wait(host.now + Config().fin_wait_2)
    assert not host.pool.held
    assert host.table.deadline == 0


def test_a_peer_that_is_gone_does_not_keep_a_slot() -> None:
    host = served()
    entry = established(host)
    host.write(entry, b"unheard")
    host.table.release(entry, host.now)
    host.wait(host.now + 600 * SECOND)
    assert not host.pool.held
    assert host.table.counters.broken == 1


def test_a_segment_with_a_payload_is_not_sent_out_of_a_slot_that_was_given_back() -> None:
    host = served()
    entry = established(host)
    host.write(entry, b"to be sent")
    entry.connection.abort(host.now)
    host.table.release(entry, host.now)
    assert [each.outgoing.flags for each in host.commit()] == [RST | ACK]


def test_held_in_time_wait_it_keeps_its_slot_but_not_its_quad() -> None:
    client, server, mine, theirs = pair()
    theirs.connection.shutdown(server.now)
    server.table.touched(theirs, server.now)
    pump(client, server)
    client.write(mine, b"last words")
    client.table.release(mine, client.now)
    pump(client, server)
    assert theirs.connection.state is State.TIME_WAIT
    assert not server.table.entries
    assert server.read(theirs) == b"last words"
    server.table.release(theirs, server.now)
    assert not server.pool.held


# --- TIME-WAIT ------------------------------------------------------------------------------------


def ended(host: Host) -> tuple[Segment, Segment]:
    """A connection whose end we have begun: our FIN, and the peer's last segment."""
    entry = established(host)
    host.table.release(entry, host.now)
    [fin] = [each.outgoing for each in host.commit()]
    last = segment(FIN | ACK, 101, fin.seq + 1, options=stamps(6000, 0))
    [answer] = host.get(CLIENT, last)
    assert entry.gone
    assert (answer.flags, answer.ack) == (ACK, 102)
    return answer, last


def test_a_fin_that_comes_again_is_acknowledged_again() -> None:
    host = served()
    answer, last = ended(host)
    host.now += WAIT - 1
    [again] = host.get(CLIENT, last)
    assert again._replace(options=Options()) == answer._replace(options=Options())
    assert host.table.deadline == host.now + WAIT, "the wait begins again"
    host.wait(host.now + WAIT)
    assert len(host.table.time_waits) == 0
    [reset] = host.get(CLIENT, last)
    assert reset.flags == RST


def test_a_reset_does_not_end_it() -> None:
    host = served()
    ended(host)
    assert host.get(CLIENT, segment(RST, 102)) == []
    assert len(host.table.time_waits) == 1


def test_a_later_syn_begins_anew_beyond_the_old_numbers() -> None:
    host = served()
    answer, _ = ended(host)
    [again] = host.get(CLIENT, syn(seq=50, options=Options(1460, 7, True, (6001, 0))))
    assert again.flags == SYN | ACK
    assert diff(again.seq, answer.seq) > 0
    assert len(host.table.time_waits) == 0
    options = stamps(6002, 0)
    host.get(CLIENT, segment(ACK, 51, again.seq + 1, options=options))
    entry = accept(host)
    assert entry is not None
    assert entry.connection.state is State.ESTABLISHED


def test_an_earlier_syn_does_not() -> None:
    host = served()
    ended(host)
    [again] = host.get(CLIENT, syn(seq=500, options=Options(1460, 7, True, (5999, 0))))
    assert (again.flags, again.ack) == (ACK, 102)
    assert len(host.table.time_waits) == 1


def test_nor_does_one_when_nobody_listens_any_more() -> None:
    host = served()
    ended(host)
    for listener in list(host.table.listeners):
        host.table.unlisten(listener, host.now)
    [again] = host.get(CLIENT, syn(seq=500, options=Options(1460, 7, True, (6001, 0))))
    assert again.flags == ACK


def test_many_that_are_over_hold_nothing_but_their_places() -> None:
    host = served(limits=Limits(time_waits=4))
    for source in range(1, 11):
        entry = established(host, source)
        host.table.release(entry, host.now)
        [fin] = [each.outgoing for each in host.commit()]
        options = stamps(6000, 0)
        host.get(CLIENT, segment(FIN | ACK, 101, fin.seq + 1, options=options, source=source))
    assert [past.quad.remote_port for past in host.table.time_waits] == [7, 8, 9, 10]
    assert not host.pool.held


def test_we_begin_again_at_a_quad_in_time_wait_when_a_second_has_passed() -> None:
    client, server = Host(CLIENT), served()
    mine = client.table.connect(SERVER, 80, client.now, local_port=7)
    pump(client, server)
    theirs = accept(server)
    assert theirs is not None
    client.table.release(mine, client.now)
    pump(client, server)
    server.table.release(theirs, server.now)
    pump(client, server)
    assert len(client.table.time_waits) == 1
    with pytest.raises(PortInUse):
        client.table.connect(SERVER, 80, client.now, local_port=7)
    client.now += SECOND + 1
    again = client.table.connect(SERVER, 80, client.now, local_port=7)
    assert diff(again.connection.iss1, mine.connection.iss1) > 1
    pump(client, server)
    assert again.connection.state is State.ESTABLISHED


def test_a_port_in_time_wait_is_chosen_only_when_no_other_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ports, "COUNT", 1)
    client, server = Host(CLIENT), served()
    mine = client.table.connect(SERVER, 80, client.now)
    pump(client, server)
    theirs = accept(server)
    assert theirs is not None
    client.table.release(mine, client.now)
    server.table.release(theirs, server.now)
    pump(client, server)
    with pytest.raises(PortInUse):
        client.table.connect(SERVER, 80, client.now)
    client.now += SECOND + 1
    assert client.table.connect(SERVER, 80, client.now).quad == mine.quad


# --- time -----------------------------------------------------------------------------------------


def test_a_thousand_connections_are_woken_each_at_its_time() -> None:
    client = Host(CLIENT, slots=1000, ring=64)
    for number in range(1000):
        client.now = START + number * 1000
        client.table.connect(SERVER, 80, client.now)
    client.commit()
    assert client.table.deadline == START + SECOND
    again = client.wait(START + SECOND + 499_500)
    assert len(again) == 500
    assert client.table.deadline == START + SECOND + 500_000


# --- another life ---------------------------------------------------------------------------------


def test_another_life_goes_on_with_everything() -> None:
    host = served()
    held = established(host, 1)
    held.user = "held"
    host.write(held, b"unacknowledged")
    host.commit()
    closing = established(host, 2)
    host.write(closing, b"farewell")
    host.table.release(closing, host.now)
    calling = host.table.connect(CLIENT, 99, host.now)
    host.commit()
    ended(host)
    [answer] = host.get(CLIENT, syn(3))
    host.get(CLIENT, third(answer, 3))
    [pending] = host.get(CLIENT, syn(4))
    host.commit()

    entries = {entry.quad.remote_port: entry for entry in host.die([(80, 8)])}

    assert set(entries) == {1, 2, 3, 99}
    assert entries[1].connection.state is State.ESTABLISHED
    assert entries[2].connection.state is State.FIN_WAIT_1
    assert entries[2].released
    assert entries[99].connection.state is State.SYN_SENT
    assert entries[99].quad == calling.quad
    assert entries[1].connection.lives == 2
    assert [past.quad.remote_port for past in host.table.time_waits] == [40_000]
    sent = {each.quad.remote_port: each.outgoing for each in host.commit()}
    assert sent[1].length == len(b"unacknowledged")
    assert sent[2].length == len(b"farewell")
    assert sent[2].flags & FIN
    assert sent[99].flags == SYN
    assert accept(host) is entries[3]
    host.get(CLIENT, third(pending, 4, b"the handshake outlived it"))
    last = accept(host)
    assert last is not None
    assert host.read(last) == b"the handshake outlived it"
    assert len(host.pool.held) == 5


def test_another_life_gives_back_what_nobody_held() -> None:
    host = served()
    entry = established(host)
    host.table.release(entry, host.now)
    host.commit()
    [again] = host.die([(80, 8)])
    fin = [each.outgoing for each in host.commit()][-1]
    host.get(CLIENT, segment(ACK, 101, fin.seq + 1, options=stamps(5002, 0)))
    assert again.connection.state is State.FIN_WAIT_2
    host.wait(host.now + Config().fin_wait_2)
    assert not host.pool.held


def test_whose_holder_has_gone_meanwhile_is_closed() -> None:
    host = served()
    established(host)
    host.commit()
    [stored] = host._stored.values()
    host.table = host._make()
    [entry] = host.table.restore([stored._replace(released=True)], [], host.now)
    assert entry.connection.state is State.FIN_WAIT_1
    assert any(each.outgoing.flags & FIN for each in host.commit())


def test_what_waited_where_nobody_listens_any_more_is_broken_off() -> None:
    host = served()
    [answer] = host.get(CLIENT, syn())
    host.get(CLIENT, third(answer))
    host.die()
    assert RST | ACK in [each.outgoing.flags for each in host.commit()]
    assert not host.pool.held


def test_what_had_ended_is_still_held() -> None:
    host = served()
    entry = established(host)
    host.get(CLIENT, segment(RST, 101))
    [again] = host.die([(80, 8)])
    assert again.connection.error is Error.RESET
    assert host.commit() == []
    assert host.pool.held
    host.table.release(again, host.now)
    assert not host.pool.held
    assert entry.quad == again.quad


def test_held_in_time_wait_another_life_knows_it_too() -> None:
    host = served()
    entry = established(host)
    entry.connection.shutdown(host.now)
    host.table.touched(entry, host.now)
    [fin] = [each.outgoing for each in host.commit()]
    host.get(CLIENT, segment(FIN | ACK, 101, fin.seq + 1, options=stamps(6000, 0)))
    assert entry.connection.state is State.TIME_WAIT
    for kept in (True, False):  # with the records of TIME-WAIT, and without
        if not kept:
            host.past.clear()
        [again] = host.die([(80, 8)])
        assert not host.table.entries
        assert [past.quad for past in host.table.time_waits] == [again.quad]
        host.commit()
    host.table.release(again, host.now)
    assert not host.pool.held


def test_of_two_records_with_one_quad_one_goes_on() -> None:
    host = served()
    established(host)
    host.commit()
    [first] = host._stored.values()
    place = host.pool.take(0)
    assert place is not None
    send, receive, handle = place
    second = first._replace(send=send, receive=receive, handle=handle, released=True)
    host.table = host._make()
    one, two = host.table.restore([first, second], [], host.now)
    assert host.table.entries == [one]
    assert two.gone
    assert len(host.pool.held) == 1
