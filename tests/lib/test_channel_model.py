"""Every interleaving of a client's and a server's end of a channel: nobody sleeps who has to do."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

from tests.lib.tso import Explorer, Program, State, Tape
from ukernel.abi import wire
from ukernel.abi.recorder import SIZE
from ukernel.abi.services import Echo
from ukernel.abi.tally import Tally
from ukernel.lib import channel, door, loop, ring
from ukernel.lib.channel import Channel, Closed, Parts
from ukernel.lib.door import Door
from ukernel.lib.loop import Loop
from ukernel.lib.server import Server

CLIENT, SERVER, NOBODY = 0, 1, -1
SLOTS = 4  # of a ring, so that it is full at once
WORDS = [n * ring.LINE for n in range(8)]
OWN_TAIL = {CLIENT: ring.REQUEST_TAIL, SERVER: ring.REPLY_TAIL}
REPLIES = ring.REPLY_TAIL, ring.REPLY_HEAD
NOTHING = (0, b"")  # a word, and what lies in the ring below a tail
ECHO = Echo.ops[1]


class Words:
    """The words of a channel as one end sees them; a tail comes with what it says is there."""

    def __init__(self, tape: Tape, who: int) -> None:
        self._tape = tape
        self._who = who
        self.data = {tail: bytearray(SLOTS * ring.SLOT) for tail in OWN_TAIL.values()}

    def __getitem__(self, at: int) -> int:
        value, data = self._tape.ask("load", at // ring.LINE)
        if data and at != OWN_TAIL[self._who]:
            self.data[at][:] = data
        return int(value)

    def __setitem__(self, at: int, value: int) -> None:
        data = bytes(self.data[at]) if at == OWN_TAIL[self._who] else b""
        self._tape.do("store", at // ring.LINE, (int(value), data))


class Page:
    """The kernel's page."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def __getitem__(self, at: int) -> int:
        page: int = self._tape.ask("page")
        return page


class Story(NamedTuple):
    """What the client says before it waits for anything, and who may die or close meanwhile. It
    waits for each outcome, or is `told` of them in a loop, which sees to other things as well."""

    sizes: tuple[int, ...]
    window: int = 2
    mortal: int = NOBODY
    closes: bool = False
    slots: int = SLOTS
    told: bool = False


STORIES = {
    "one after the other": Story((1,)),
    "two at once": Story((1, 1)),
    "a request in parts": Story((150,), slots=1),
    "no room": Story((1, 1, 150), slots=1),
    "closed": Story((1,), closes=True),
    "client dies": Story((150,), slots=1, mortal=CLIENT),
    "server dies": Story((150,), slots=1, mortal=SERVER),
}
LOOPS = ("one after the other", "two at once", "a request in parts", "closed", "server dies")
STORIES |= {f"told: {name}": STORIES[name]._replace(told=True) for name in LOOPS}


class ModelChannel(Channel):
    """A client's end that waits in the model."""

    def __init__(self, tape: Tape, words: Words) -> None:
        tally = Tally(memoryview(bytearray(SIZE)))
        connection: Any = SimpleNamespace(fd=0, tally=tally, finished=deque())
        super().__init__(connection, 1, _parts(tape, words), 0)
        self._tape = tape

    awake = False  # it has been told that there is no need to wait

    def _await_bell(self, deadline_ns: int, number: int) -> bool:
        assert not self.awake
        self._tape.ask("wait")
        return False


class ModelLoop(Loop):
    """A loop that waits in the model."""

    def __init__(self, tape: Tape, member: Member | Client) -> None:
        self._tape = tape
        self.members = [cast(Server, member)]

    def _sleep(self, until_ns: int) -> None:
        self._tape.ask("wait")


class Member:
    """A server with one door, as far as its loop knows it. Refuses all that it is asked."""

    busy = False
    alarm_ns = 0
    watched: frozenset[int] = frozenset()

    def __init__(self, tape: Tape, door: Door) -> None:
        self._tape = tape
        self.doors = [door]
        self.returns: list[Channel] = []

    def look(self) -> None:
        cast(Any, Server)._look_behind(self, self.doors[0])

    def serve_one(self, way: Door, _: Any, number: int, __: int, body: bytes, ___: Any) -> None:
        self._tape.do("mark", number)  # from now on it has been begun
        way.reply(ECHO, number, wire.unpack(body)[0])

    def dismiss(self, door: Door) -> None:
        assert not door.wrong, door.wrong
        self.doors.remove(door)


class Client:
    """A task that is told of outcomes, as far as its loop knows it."""

    busy = False
    alarm_ns = 0
    watched: frozenset[int] = frozenset()

    def __init__(self, channel: ModelChannel) -> None:
        self.doors: list[Door] = []
        self.returns = [channel]
        self.finished = cast(Any, channel)._connection.finished

    def look(self) -> None:
        cast(Any, Server)._tell_outcomes(self)

    @property
    def connection(self) -> Client:
        return self


def _parts(tape: Tape, words: Words) -> Parts:
    rings = [memoryview(words.data[tail]) for tail in OWN_TAIL.values()]
    memory = ring.Rings(cast(Any, words), *rings)
    return Parts(cast(Any, Page(tape)), cast(Any, memory), SERVER, CLIENT)


class Ends:
    """The tape of the run under way, for what the code calls without saying who it is."""

    tape: Tape
    without: str = ""  # the function whose fence is taken out

    def client(self, story: Story) -> Any:
        collected = self.told if story.told else self.waited_for

        def run(tape: Tape) -> Any:
            self.tape = tape
            end = ModelChannel(tape, Words(tape, CLIENT))
            said = [wire.pack([bytes([n]) * size]) for n, size in enumerate(story.sizes, 1)]
            got: dict[int, bytes] = {}
            numbers: list[int] = []
            try:
                numbers += [0]
                for body in said:
                    numbers[-1:] = [end.post(ECHO.number, body, 0), 0]
                collected(tape, end, numbers[:-1], got)
            except Closed:
                pass
            for number, body in got.items():
                assert body == wire.pack(wire.unpack(said[number - 1])[0])
            if len(got) == len(said):
                return "done", tuple(sorted(got)), ()
            never = list(range(len(numbers), len(said) + 1))
            for number in numbers[:-1]:
                if number not in got and not end.taken(number):
                    never.append(number)
            return "closed", tuple(sorted(got)), tuple(sorted(never))

        return run

    def waited_for(
        self, tape: Tape, end: ModelChannel, numbers: list[int], got: dict[int, bytes]
    ) -> None:
        """One after the other, the last one first. Raises Closed."""
        for number in reversed(numbers):
            got[number] = end.collect(number, 0).body

    def told(
        self, tape: Tape, end: ModelChannel, numbers: list[int], got: dict[int, bytes]
    ) -> None:
        """All of them in a loop, once each, without waiting for any."""
        member = Client(end)
        turns = ModelLoop(tape, member)
        left = set(numbers)

        def done(number: int) -> None:
            left.remove(number)
            end.awake = True
            with contextlib.suppress(Closed):
                got[number] = end.collect(number, 0).body
            end.awake = False

        for number in numbers:
            end.tell(number, partial(done, number))
        member.look()
        while left:
            turns._wait(0)
            member.look()

    def server(self, story: Story) -> Any:
        def run(tape: Tape) -> Any:
            self.tape = tape
            end = Door(1, 0, 0, _parts(tape, Words(tape, SERVER)), 0, story.window)
            member = Member(tape, end)
            turns = ModelLoop(tape, member)
            member.look()
            while member.doors:
                turns._wait(0)
                member.look()

        return run

    def fence(self) -> None:
        if sys._getframe(1).f_code.co_qualname != self.without:
            self.tape.ask("fence")

    def ring(self, bell: int) -> None:
        self.tape.ask("ring", bell)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    made = Ends()
    for module in (channel, door, loop):
        monkeypatch.setattr(module, "fence", made.fence)
    for module in (channel, door):
        monkeypatch.setattr(module, "ring_bell", made.ring)
    monkeypatch.setattr(ring, "rings", lambda memory: memory)
    nothing = SimpleNamespace(register=lambda *_: None)
    monkeypatch.setattr(channel, "select", SimpleNamespace(epoll=lambda: nothing, EPOLLIN=1))
    return made


def wrong(ends: Ends, story: Story, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What is wrong in any of the states that the story can end with."""
    half = max(1, story.slots // 2)
    sizes = {"SLOTS": story.slots, "MASK": story.slots - 1, "HALF": half, "LONGEST_PART": half}
    for name, value in sizes.items():
        monkeypatch.setattr(ring, name, value)
    programs = Program(ends.client(story)), Program(ends.server(story))
    explorer = Explorer(programs, len(WORDS), NOTHING, story.mortal, story.closes)
    explorer.explore()
    assert explorer.last
    return {why for state in explorer.last for why in _wrong(explorer, story, state)}


def _wrong(explorer: Explorer, story: Story, state: State) -> list[str]:
    client, server = (explorer.op(state, who) for who in (CLIENT, SERVER))
    found = []
    if state.ends[CLIENT].alive:
        if client[0] != "end":
            found.append("the client sleeps")
        else:
            how, got, never = client[1]
            if how == "done" and len(got) != len(story.sizes):
                found.append("a reply is lost")
            if state.marks & set(never):
                found.append("begun, and said not to be")
            tail, head = (state.memory[at // ring.LINE][0] for at in REPLIES)
            if not state.ends[SERVER].alive and tail != head:
                found.append("a reply was there, and is not heard")
    if state.ends[SERVER].alive and state.page and server[0] != "end":
        found.append("the server does not see that it is closed")
    return found


@pytest.mark.parametrize("name", STORIES)
def test_whoever_has_something_to_do_is_awake(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert not wrong(ends, STORIES[name], monkeypatch)


FENCES = [  # and a story in which each is missed
    ("Channel.post", "one after the other"),
    ("Channel._sleep", "one after the other"),
    ("Channel._make_room", "a request in parts"),
    ("Door.take", "closed"),
    ("Door._answer", "one after the other"),
    ("Door.flush", "a request in parts"),
    ("Loop._wait", "one after the other"),
    ("Loop._wait", "told: one after the other"),
]


@pytest.mark.parametrize(("where", "story"), FENCES)
def test_no_fence_can_be_spared(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, where: str, story: str
) -> None:
    ends.without = where
    assert wrong(ends, STORIES[story], monkeypatch)
