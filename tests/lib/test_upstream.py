"""Calls that are begun at a server which dies, is given up, refuses, or has no room: a real one."""

from __future__ import annotations

import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.requests import perform
from tests.adversary.world import ROOT, Intruder, World, linked, system_of
from tests.conftest import processes_of
from tests.journey.tasks.clerk import Clerk
from ukernel.abi.syscalls import Quota
from ukernel.lib.channel import Channel
from ukernel.lib.stub import UnderWay
from ukernel.lib.upstream import All, Failure, Patience, Upstream

WINDOW = 16
HELD = 3
WAYS = ("plain", "linked")  # by the kernel; by a channel
SERVERS = f"""
  clerk:
    run: tests.journey.tasks.clerk
    serves: "tests.journey.tasks.clerk:Clerk"
    state: persistent
    window: {WINDOW}
    restart: {{max_restarts: 100, backoff: {{first_ms: 0}}}}
  mortal:
    run: tests.journey.tasks.clerk
    serves: "tests.journey.tasks.clerk:Clerk"
    state: persistent
    restart: {{when: never}}
  one: {{run: servers.client, calls: [clerk, mortal], start: demand}}
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="uk-", dir="/tmp") as folder,
    ):
        patch.setenv("XDG_RUNTIME_DIR", folder)
        patch.chdir(ROOT)
        made = World(system_of(Path(folder), SERVERS))
        try:
            yield made
            made.check()
        finally:
            made.close()
        assert not processes_of(Path(folder))


@pytest.fixture(scope="module")
def one(world: World) -> Intruder:
    return world.intrude("one")


class Here:
    """The test as the server in whose loop an upstream lives."""

    def __init__(self, world: World, one: Intruder, name: str = "clerk", **how: Any) -> None:
        self.world, self.one, self.name = world, one, name
        self.stub = one.stub(Clerk, name)
        self.restored = 0
        self.ends: list[Any] = []
        self.channels: list[Channel] = []
        self.upstream = Upstream(self, self.stub.held, self._restored, **how)  # type: ignore[arg-type]

    def _restored(self) -> None:
        assert self.upstream.up
        self.restored += 1

    def when(self, call: UnderWay[Any], done: Callable[[UnderWay[Any]], None]) -> None:
        channel = call.tell(lambda: done(call))
        if channel is not None and channel not in self.channels:
            self.channels.append(channel)

    def begin(self, method: Any, *args: Any) -> bool:
        return self.upstream.begin(self.ends.append, method, *args)

    def turn(self) -> None:
        """What Server.handle_all does for calls that were begun; what the kernel says is first."""
        self.one.look()
        self._tell()
        for channel in self.channels:
            channel.look()
        self._tell()

    def _tell(self) -> None:
        finished: deque[Callable[[], None]] = self.one.finished
        while finished:
            finished.popleft()()

    def until(self, done: Callable[[], bool], what: str) -> None:
        def come() -> bool:
            self.turn()
            return done()

        self.world.until(come, what)

    def ended(self, count: int) -> list[Any]:
        self.until(lambda: len(self.ends) >= count, f"{count} ends")
        ends = self.ends.copy()
        self.ends.clear()
        return ends

    def kill(self) -> None:
        self.world.system.signal(self.name, signal.SIGKILL)


def by(one: Intruder, way: str) -> Clerk:
    made: Clerk = (
        linked(one, Clerk, one.named["clerk"]) if way == "linked" else one.stub(Clerk, "clerk")
    )
    return made


@pytest.mark.parametrize("way", WAYS)
def test_a_death_cuts_each_call_short_once_and_then_it_serves_again(
    world: World, one: Intruder, way: str
) -> None:
    here, clerk = Here(world, one), by(one, way)
    assert all(here.begin(clerk.hold, deed) for deed in range(HELD))
    world.until(lambda: here.stub.held() == HELD, "them to be taken")
    here.kill()
    assert here.ended(HELD) == [Failure.CUT] * HELD
    here.until(lambda: here.restored == 1, "the next life")
    assert (here.upstream.deaths, here.upstream.wants_retry) == (1, False)
    assert here.begin(clerk.do, 9, b"more", 0)
    assert here.ended(1)[-1] == b"more"


def test_what_an_earlier_life_did_not_answer_is_no_second_death(
    world: World, one: Intruder
) -> None:
    here = Here(world, one)
    assert here.begin(by(one, "linked").hold, 0)
    assert here.begin(here.stub.hold, 1)
    world.until(lambda: here.stub.held() == 2, "them to be taken")
    here.kill()
    late, here.channels = here.channels, []
    here.until(lambda: here.restored == 1, "the next life")
    assert here.ends == [Failure.CUT]
    here.channels = late
    assert here.ended(2) == [Failure.CUT] * 2
    assert (here.upstream.deaths, here.upstream.up, here.restored) == (1, True, 1)


def test_a_refusal_is_the_calls_own(world: World, one: Intruder) -> None:
    here = Here(world, one)
    assert here.begin(here.stub.decline, "no")
    assert here.begin(here.stub.do, 3, b"yes", 0)
    assert here.ended(2) == [Failure.REFUSED, b"yes"]
    assert (here.upstream.up, here.upstream.deaths, here.upstream.wants_retry) == (True, 0, False)


@pytest.mark.parametrize("pauses", [True, False])
def test_without_room_for_a_call_it_pauses_or_refuses_that_one(
    world: World, one: Intruder, pauses: bool
) -> None:
    here, clerk, room = Here(world, one, pauses=pauses), by(one, "linked"), Quota().calls
    assert clerk.held() == 0  # by a channel, it is open now
    assert all(here.begin(here.stub.hold, deed) for deed in range(room + 1))
    assert here.ended(1) == [Failure.CUT if pauses else Failure.REFUSED]
    assert (here.upstream.up, here.upstream.wants_retry) == (not pauses, pauses)
    if here.begin(here.stub.hold, room):
        assert here.ended(1) == [Failure.REFUSED]
    left = room
    while left:
        left -= clerk.let_go()
    assert sorted(here.ended(room)) == list(range(room))
    if pauses:
        here.upstream.retry()
        here.until(lambda: here.restored == 1, "room")
    assert here.begin(here.stub.do, 0, b"again", 0)
    assert here.ended(1) == [b"again"]
    assert here.upstream.deaths == 0


def test_who_was_given_up_is_asked_again_when_somebody_has_started_it(
    world: World, one: Intruder
) -> None:
    here = Here(world, one, "mortal")
    assert here.begin(here.stub.hold, 0)
    here.kill()
    assert here.ended(1) == [Failure.CUT]
    here.until(lambda: here.upstream.wants_retry, "it to be given up")
    assert not here.begin(here.stub.hold, 0)
    here.upstream.retry()
    here.until(lambda: here.upstream.wants_retry, "the same answer")
    assert not here.upstream.up
    other = Here(world, one, "mortal")
    assert other.begin(other.stub.hold, 0)
    assert other.ended(1) == [Failure.CUT]
    assert other.upstream.wants_retry, "who is asked might be there, and call somebody who is not"
    later = perform(world.system, ["restart", "mortal"], [])
    assert world.until(later.outcome, "it to come back") == {"life": 2}
    here.upstream.retry()
    here.until(lambda: here.restored == 1, "the next life")
    assert here.upstream.deaths == 1


def test_another_server_in_its_place_is_a_reason_to_begin_anew(world: World, one: Intruder) -> None:
    here = Here(world, one, was=7)
    assert here.begin(here.stub.hold, 0)
    here.kill()
    with pytest.raises(SystemExit, match="another one: 0, and it was 7"):
        here.until(lambda: bool(here.restored), "the next life")


class Wanting:
    wants_retry = False
    retried = 0

    def retry(self) -> None:
        self.retried += 1


def test_of_several_those_are_asked_again_that_want_it() -> None:
    these = Wanting(), Wanting()
    together = All(lambda: these)
    assert not All(lambda: these[:1]).wants_retry
    these[1].wants_retry = True
    assert together.wants_retry
    together.retry()
    assert [each.retried for each in these] == [0, 1]


def test_patience_is_as_long_as_it_says() -> None:
    what = Wanting()
    patience = Patience(what, 100)
    assert patience.look(5) == 0
    what.wants_retry = True
    assert [patience.look(now) for now in (10, 60, 109)] == [110] * 3
    assert what.retried == 0
    assert patience.look(110) == 210
    assert what.retried == 1
    what.wants_retry = False
    assert patience.look(150) == 0
    assert patience.look(300) == 0
    assert what.retried == 1
