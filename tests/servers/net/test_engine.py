"""Whoever kills `net`, wherever: streams arrive whole, and nothing that was said is taken back.

Each scenario runs once to count the places where the life may end, and then once for each of them,
with SIGKILL there. Its clients do what stubs do: a call without an outcome is made again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from tests.servers.net import machine, play
from tests.servers.net.machine import Killed
from tests.servers.net.play import Client, World

OURS = bytes(n * 7 & 255 for n in range(1900))  # more than a ring has room for
THEIRS = bytes(n * 11 & 255 for n in range(1700))
PAIRS = 20  # of deaths, of each scenario
Scenario = Callable[[World], tuple[Client, Client]]


# --- scenarios -----------------------------------------------------------------------------------


def connecting(world: World) -> tuple[Client, Client]:
    there = Client(world.there, play.accepts(world.there, THEIRS))
    return Client(world.here, play.connects(world.here, OURS)), there


def accepting(world: World) -> tuple[Client, Client]:
    return (
        Client(world.here, play.accepts(world.here, OURS)),
        Client(world.there, play.asks(world.there, THEIRS)),
    )


def watching(world: World) -> tuple[Client, Client]:
    return (
        Client(world.here, play.watches(world.here, OURS)),
        Client(world.there, play.asks(world.there, THEIRS)),
    )


def leaving(world: World) -> tuple[Client, Client]:
    return (
        Client(world.here, play.answers_and_goes(world.here, OURS[:800])),
        Client(world.there, play.asks(world.there, THEIRS[:100])),
    )


def ignoring(world: World) -> tuple[Client, Client]:
    return (
        Client(world.here, play.does_not_listen(world.here, OURS[:800])),
        Client(world.there, play.asks_and_returns(world.there, THEIRS)),
    )


def ending(world: World) -> tuple[Client, Client]:
    return (
        Client(world.here, play.connects(world.here, OURS[:300])),
        Client(world.there, play.hears_out(world.there, THEIRS[:800])),
    )


SAID: dict[Scenario, tuple[bytes, bytes]] = {
    connecting: (THEIRS, OURS),
    accepting: (THEIRS, OURS),
    watching: (THEIRS, OURS),
    leaving: (THEIRS[:100], OURS[:800]),
    ignoring: (b"", OURS[:800]),
    ending: (THEIRS[:800], OURS[:300]),
}


@pytest.fixture(scope="module", autouse=True)
def machines() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        machine.install(patch)
        yield


def played(scenario: Scenario, *fuses: int) -> World:
    world = World(*fuses)
    clients = scenario(world)
    try:
        world.run(*clients)
        assert [client.result for client in clients] == list(SAID[scenario])
        world.ends_empty()
    except (Exception, Killed) as error:
        error.add_note(f"killed after {fuses} steps")
        raise
    return world


@pytest.mark.parametrize("scenario", SAID)
def test_a_life_may_end_anywhere(scenario: Scenario) -> None:
    places = played(scenario).here.fuse.burnt
    assert places > 30
    for place in range(1, places + 1):
        assert played(scenario, place).here.deaths == 1


@pytest.mark.parametrize("scenario", SAID)
def test_two_lives_may_end_anywhere(scenario: Scenario) -> None:
    places = played(scenario).here.fuse.burnt
    chance = random.Random(places)
    for _ in range(PAIRS):
        world = played(scenario, chance.randint(1, places), chance.randint(1, places // 2))
        assert world.here.deaths <= 2


@pytest.mark.parametrize("scenario", SAID)
def test_nothing_is_left_of_a_client_that_dies_too(scenario: Scenario) -> None:
    """With SIGKILL for both, nobody tells the next life that its sockets are not held any more."""
    places = played(scenario).here.fuse.burnt
    for place in range(1, places + 1):
        world = World(place)
        world.here.together = True
        clients = scenario(world)
        world.run(*clients)
        assert world.here.deaths == 1
        world.ends_empty(world.here)
