"""What clients may do to `net`: ask nonsense, twice, or not wait for the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from servers.net.addresses import dotted
from servers.net.settings import BadSettings, Settings
from servers.net.store import Store
from tests.servers.net import machine
from tests.servers.net.machine import FEW, RING, SECOND, WINDOW, Call, Handle, Machine
from tests.servers.net.play import ASKED, ECHO, GAVE, HERE, SERVICE, THERE, TOOK, World
from ukernel.abi.errors import Overload, Revoked
from ukernel.abi.errors import Protocol as BadCall
from ukernel.abi.interface import Lent
from ukernel.abi.network import (
    READABLE,
    SEND,
    WRITABLE,
    Address,
    AddressInUse,
    BadAddress,
    ConnectionRefused,
    ConnectionReset,
    NoBuffers,
    NotConnected,
    Ready,
    TimedOut,
    Unreachable,
)

NOWHERE = "10.0.0.77"
FAR = "192.0.2.1"


@pytest.fixture(scope="module", autouse=True)
def machines() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        machine.install(patch)
        yield


@pytest.fixture
def world() -> World:
    return World()


def asked(on: Machine, name: str, *args: Any, to: Handle | None = None) -> Call:
    call = on.call(to.badge if to else 0, name, *args)
    on.settle()
    return call


def value(call: Call) -> Any:
    assert call.done
    if call.error is not None:
        raise call.error
    return call.value


def done(world: World, call: Call) -> Any:
    """What comes of a call in the end."""
    for _ in range(1000):
        if call.done:
            return value(call)
        if not world.turn() and not call.done:
            world.sleep()
    raise AssertionError(f"{call.name} has no end")


def quiet(world: World) -> None:
    """Until everything has arrived, and a bit longer."""
    world.run(until=world.clock[0] + SECOND)


def connected(world: World, tag: int = 0) -> tuple[Handle, Handle, Handle]:
    """A listener, a connection that it has given, whose tag that is, and its other end."""
    listener = value(asked(world.here, "listen", SERVICE, 4, 0))
    accepted = asked(world.here, "accept", tag, to=listener)
    other = done(world, asked(world.there, "connect", ASKED, 0))
    return listener, done(world, accepted), other


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("listen", (Address("0.0.0.0", 0), 1, 0)),
        ("listen", (Address(NOWHERE, 7), 1, 0)),
        ("listen", (Address("here", 7), 1, 0)),
        ("bind", (Address(NOWHERE, 7), 0)),
        ("connect", (Address("0.0.0.0", 7), 0)),
        ("connect", (Address(dotted(THERE), 0), 0)),
        ("connect", (Address("224.0.0.1", 7), 0)),
        ("ping", ("there", 8, 1)),
        ("ping", (dotted(THERE), 65000, 1)),
    ],
)
def test_what_was_asked_in_vain_costs_nothing(
    world: World, name: str, args: tuple[Any, ...]
) -> None:
    for _ in range(2 * max(FEW, WINDOW)):
        with pytest.raises(BadAddress):
            value(asked(world.here, name, *args))
    value(asked(world.here, "listen", SERVICE, 1, 0))
    assert not world.here.net.calls.waiting


def test_a_port_has_one_holder_and_nobody_has_all_of_them(world: World) -> None:
    value(asked(world.here, "bind", SERVICE, 0))
    with pytest.raises(AddressInUse):
        value(asked(world.here, "bind", SERVICE, 0))
    got = [asked(world.here, "listen", Address("0.0.0.0", 100 + n), 1, 0) for n in range(FEW)]
    refused = [call for call in got if call.error is not None]
    assert 0 < len(refused) < FEW // 2
    for call in refused:
        with pytest.raises(NoBuffers):
            value(call)
    world.here.release(got[0].value)
    value(asked(world.here, "listen", Address("0.0.0.0", 99), 1, 0))


HONEST = 8  # another client


def test_who_has_many_connections_leaves_some_to_others(world: World) -> None:
    on, there = world.here, world.there
    on.per_client = 3
    on.start()
    for client in (there, on):
        value(asked(client, "listen", SERVICE, 4, 0))
    had = [done(world, asked(on, "connect", ECHO, 0)) for _ in range(3)]
    for _ in range(2):
        with pytest.raises(NoBuffers, match="3 connections"):
            value(asked(on, "connect", ECHO, 0))
        on.start()  # its next life knows whose they are
    on.release(had[0])
    with pytest.raises(NoBuffers, match="3 connections"):
        value(asked(on, "connect", ECHO, 0))  # which is not over yet
    on.client = HONEST
    done(world, asked(on, "connect", ECHO, 0))


def test_how_many_a_client_may_have_is_said_in_the_system_file() -> None:
    said = {"address": "10.0.0.2/24", "connections": 8}
    assert Settings.of(said).per_client >= 8
    assert Settings.of({**said, "per_client": 5}).per_client == 5
    for wrong in (0, -1, "5", True, 4097):
        with pytest.raises(BadSettings, match="per_client"):
            Settings.of({**said, "per_client": wrong})


def test_nor_can_those_have_them_all_who_call_at_its_port(world: World) -> None:
    on, there = world.here, world.there
    on.per_client = 2
    on.start()
    greedy = value(asked(on, "listen", SERVICE, 4, 0))
    for _ in range(3):
        done(world, asked(there, "connect", ASKED, 0))
    quiet(world)
    taken = [asked(on, "accept", 0, to=greedy) for _ in range(3)]
    assert [call.done for call in taken] == [True, True, False]
    on.start()
    on.client = HONEST
    listener = value(asked(on, "listen", Address("0.0.0.0", 8), 4, 0))
    other = asked(there, "connect", Address(dotted(HERE), 8), 0)
    done(world, asked(on, "accept", 0, to=listener))
    done(world, other)


def test_a_listener_that_is_asked_for_again_is_known_by_its_new_tag(world: World) -> None:
    first = value(asked(world.here, "listen", SERVICE, 4, 1))
    assert value(asked(world.here, "listen", SERVICE, 4, 2)) == first
    world.here.start()
    ready = asked(world.here, "ready")
    done(world, asked(world.there, "connect", ASKED, 0))
    assert done(world, ready) == [Ready(2, READABLE)]


def test_transfers_of_nothing_and_from_nowhere(world: World) -> None:
    _, stream, _ = connected(world)
    for name in ("send", "recv"):
        for at, length in ((0, 0), (1, 1), (1 << 63, 1), ((1 << 64) - 1, RING)):
            with pytest.raises(BadCall):
                value(asked(world.here, name, at, Lent(b"", 0, length), to=stream))
    assert value(asked(world.here, "send", 0, Lent(b"", 0, 5), to=stream)) == 5


def test_what_was_sent_is_not_changed_by_sending_it_again(world: World) -> None:
    _, stream, other = connected(world)
    on = world.here
    on.memory[:8] = b"abcdefgh"
    assert value(asked(on, "send", 0, Lent(b"", 0, 4), to=stream)) == 4
    on.memory[:8] = b"ABCDEFGH"
    assert value(asked(on, "send", 0, Lent(b"", 0, 2), to=stream)) == 2
    assert value(asked(on, "send", 2, Lent(b"", 2, 6), to=stream)) == 8
    quiet(world)
    got = asked(world.there, "recv", 0, GAVE, to=other)
    assert bytes(world.there.memory[RING : RING + value(got)]) == b"abcdEFGH"


def test_of_two_receivers_the_later_one_counts(world: World) -> None:
    _, stream, other = connected(world)
    first = asked(world.here, "recv", 0, GAVE, to=stream)
    second = asked(world.here, "recv", 0, GAVE, to=stream)
    with pytest.raises(BadCall):
        value(first)
    done(world, asked(world.there, "send", 0, Lent(b"", 0, 3), to=other))
    assert done(world, second) == 3
    assert not world.here.net.calls.waiting


def test_who_lets_go_of_a_socket_gets_his_calls_back(world: World) -> None:
    """At once, and nothing of what they asked for happens any more."""
    listener, stream, other = connected(world)
    done(world, asked(world.there, "send", 0, Lent(b"", 0, 3), to=other))
    quiet(world)
    on, kept = world.here, bytes(world.here.memory)
    calls = [
        on.call(stream.badge, "recv", 0, GAVE),
        on.call(stream.badge, "send", 0, TOOK),
        on.call(stream.badge, "shutdown", SEND),
        on.call(listener.badge, "accept", 0),
    ]
    on.release(stream)
    on.release(listener)
    on.settle()
    for call in calls:
        with pytest.raises(Revoked):
            value(call)
    assert bytes(on.memory) == kept
    with pytest.raises(ConnectionReset):  # what has come was not read
        done(world, asked(world.there, "recv", 0, GAVE, to=other))


def test_more_calls_than_may_wait_are_refused_and_the_others_are_served(world: World) -> None:
    socket = value(asked(world.here, "bind", Address("0.0.0.0", 9), 0))
    calls = [asked(world.here, "recvfrom", GAVE, to=socket) for _ in range(2 * WINDOW)]
    refused = [call for call in calls if call.done]
    for call in refused:
        with pytest.raises(Overload):
            value(call)
    assert 0 < len(refused) < len(calls)
    assert value(asked(world.here, "local", to=socket)) == Address("0.0.0.0", 9)
    source = value(asked(world.there, "bind", Address("0.0.0.0", 10), 0))
    to = Address(dotted(HERE), 9)
    for _ in range(WINDOW):
        value(asked(world.there, "sendto", to, Lent(b"", 0, 5), to=source))
        quiet(world)
    waiting = [call for call in calls if call not in refused]
    assert [value(call).length for call in waiting] == [5] * len(waiting)


@pytest.mark.parametrize(
    ("to", "why"), [(dotted(THERE), ConnectionRefused), (NOWHERE, Unreachable), (FAR, Unreachable)]
)
def test_who_cannot_connect_is_told_why_and_keeps_no_slot(
    world: World, to: str, why: type[Exception]
) -> None:
    store: Store = world.here.net.store
    for _ in range(2 * len(store.slots)):
        with pytest.raises(why):
            done(world, asked(world.here, "connect", Address(to, 7), 0))
    assert not list(store.used())


def test_a_ping_is_measured_from_when_it_was_asked(world: World) -> None:
    """However long nothing had happened before."""
    done(world, asked(world.here, "ping", dotted(THERE), 8, 1000))
    world.clock[0] += 60 * SECOND
    assert done(world, asked(world.here, "ping", dotted(THERE), 8, 1000)) < 1_000_000
    with pytest.raises((TimedOut, Unreachable)):
        done(world, asked(world.here, "ping", NOWHERE, 8, 500))


def test_after_the_end_nothing_is_sent(world: World) -> None:
    _, stream, other = connected(world)
    assert value(asked(world.here, "send", 0, Lent(b"", 0, 4), to=stream)) == 4
    value(asked(world.here, "shutdown", SEND, to=stream))
    assert value(asked(world.here, "send", 0, Lent(b"", 0, 4), to=stream)) == 4, "it was taken"
    with pytest.raises(NotConnected):
        value(asked(world.here, "send", 4, Lent(b"", 0, 4), to=stream))
    value(asked(world.here, "abort", to=stream))
    assert value(asked(world.here, "recv", 0, GAVE, to=stream)) == 0
    quiet(world)
    with pytest.raises(ConnectionReset):
        done(world, asked(world.there, "send", 0, Lent(b"", 0, 4), to=other))


def test_a_watched_stream_takes_nothing_rather_than_let_its_client_wait(world: World) -> None:
    _, stream, other = connected(world, tag=3)
    on, sent = world.here, 0
    while True:
        end = value(asked(on, "send", sent, Lent(b"", 0, RING), to=stream))
        if end == sent:
            break
        sent = end
        quiet(world)
    assert sent == 2 * RING, "one ring here and one there"
    ready = asked(on, "ready")
    assert not ready.done
    got = value(asked(world.there, "recv", 0, GAVE, to=other))
    asked(world.there, "recv", got, GAVE, to=other)
    assert done(world, ready) == [Ready(3, WRITABLE)]
    assert value(asked(on, "send", sent, Lent(b"", 0, 1), to=stream)) == sent + 1


def test_an_accepted_connection_that_was_used_is_not_given_to_anybody_else(world: World) -> None:
    """Not even when its client has let go of it while nobody was there to be told."""
    listener, stream, other = connected(world)
    done(world, asked(world.there, "send", 0, Lent(b"", 0, 3), to=other))
    quiet(world)
    assert value(asked(world.here, "recv", 0, GAVE, to=stream)) == 3
    world.here.held[stream.badge] = 0
    world.here.start()
    again = asked(world.here, "accept", 0, to=listener)
    assert done(world, asked(world.there, "recv", 0, GAVE, to=other)) == 0
    assert not again.done
