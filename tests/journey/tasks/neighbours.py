"""neighbours: servers that call each other in every way there is, for tests of where they live.

`low` has every kind of operation, `side` hands out things, `high` calls both and says what came of
it, `top` calls `high`. Which of them a process is, its arguments say.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ukernel.abi.errors import Answer, CallError, Denied
from ukernel.abi.interface import Interface, Lent, op, u8, u32, u64
from ukernel.lib.connection import task_info
from ukernel.lib.server import Server
from ukernel.lib.stub import begin, connect, release
from ukernel.lib.way import Pending

MS = 1_000_000


class Odd(Answer):
    """An answer that the interface lists."""


class Unheard(Answer):
    """One that it does not."""


class Thing(Interface):
    """An object that is handed out."""

    @op(1)
    def name(self) -> str:
        """Its name."""


class Low(Interface):
    """Every kind of operation."""

    answers = (Odd,)

    @op(1, idempotent=True)
    def add(self, a: u32, b: u32) -> u32:
        """The sum."""

    @op(2)
    def decline(self, how: str) -> None:
        """Refuse in one of three ways."""

    @op(3)
    def fill(self, into: Lent, byte: u8) -> u32:
        """Fill lent memory; how much it was."""

    @op(4)
    def later(self, ms: u32) -> u32:
        """Answer after so many milliseconds; never, for 0."""

    @op(5)
    def who(self) -> list[u64]:
        """Badge and number of the caller."""

    @op(6)
    def make(self, name: str) -> Thing:
        """A new thing."""

    @op(7)
    def things(self) -> list[str]:
        """The names of the things that somebody holds."""

    @op(8)
    def ask(self, thing: Thing) -> str:
        """What the thing says."""

    @op(9)
    def turned(self, values: list[u32]) -> list[u32]:
        """The list, backwards."""

    @op(10)
    def bug(self) -> None:
        """End this process by an error of its own."""


class High(Interface):
    """Says what comes of calls."""

    @op(1)
    def tell(self, what: str) -> str:
        """What comes of one of SCENES."""

    @op(2)
    def give(self, name: str) -> Thing:
        """A thing of `low`, passed on."""


class Named(Thing):
    def __init__(self, called: str) -> None:
        self.called = called

    def name(self) -> str:
        return self.called


class LowServer(Server, Low):
    def setup(self) -> None:
        self.count = 0
        self.sleepers: list[tuple[int, int, Pending[int]]] = []

    def add(self, a: int, b: int) -> int:
        return a + b

    def decline(self, how: str) -> None:
        raise {"odd": Odd, "unheard": Unheard, "denied": Denied}[how](f"{how} it is")

    def fill(self, into: Lent, byte: int) -> int:
        view = self.memory(into, write=True)
        view[:] = bytes([byte]) * len(view)
        return len(view)

    def later(self, ms: int) -> int:
        pending: Pending[int] = self.pending()
        if ms:
            self.sleepers.append((time.monotonic_ns() + ms * MS, ms, pending))
            self.alarm_ns = min(due for due, _, _ in self.sleepers)
        return pending.later

    def alarmed(self) -> None:
        for sleeper in sorted(self.sleepers)[:1]:
            self.sleepers.remove(sleeper)
            sleeper[2].answer(sleeper[1])
        self.alarm_ns = min((due for due, _, _ in self.sleepers), default=0)

    def who(self) -> list[int]:
        return [self.caller.badge, self.caller.client]

    def make(self, name: str) -> Thing:
        self.count += 1
        thing = Named(name)
        self.export(thing, self.count)
        return thing

    def things(self) -> list[str]:
        return [thing.called for thing in self.objects.values() if isinstance(thing, Named)]

    def ask(self, thing: Thing) -> str:
        return thing.name()

    def turned(self, values: list[int]) -> list[int]:
        values.reverse()
        return values

    def bug(self) -> None:
        raise KeyError("a bug of low")


class Shelf(Server, Low):
    """Is nothing itself: who calls it has one of its places."""

    def restore(self, badge: int) -> Interface:
        place = Place(self)
        self.export(place, badge)
        return place


class Place(Low):
    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def add(self, a: int, b: int) -> int:
        return a + b + self.badge

    def who(self) -> list[int]:
        return [self.shelf.caller.badge]

    def fill(self, into: Lent, byte: int) -> int:
        self.shelf.memory(into, write=True)[:] = bytes([byte]) * into.length
        return into.length

    def make(self, name: str) -> Thing:
        thing = Named(name)
        self.shelf.export(thing, self.badge + 1)
        return thing


class HighServer(Server, High):
    def setup(self) -> None:
        self.shelf = connect(Low, "shelf")
        self.low = connect(Low, "low")
        self.side = connect(Low, "side")
        self.memory_of_mine = self.region("mine", 4096)

    def tell(self, what: str) -> str:
        try:
            return repr(SCENES[what](self))
        except (Answer, CallError, TypeError) as error:
            return repr(error)

    def give(self, name: str) -> Thing:
        return self.low.make(name)


class TopServer(Server, High):
    def setup(self) -> None:
        self.high = connect(High, "high")

    def tell(self, what: str) -> str:
        return f"top: {self.high.tell(what)}"

    def give(self, name: str) -> Thing:
        return self.high.give(name)


def _filled(server: HighServer) -> object:
    mine = server.memory_of_mine
    count = server.low.fill(mine.lend(8, 16), 7) + server.low.fill(mine.lend(10, 1), 9)
    return count, bytes(mine.view[:32])


def _two_at_once(server: HighServer) -> object:
    slow, quick = begin(server.low.later, 8), begin(server.low.later, 4)
    return slow.result(), quick.result()


def _things(server: HighServer) -> object:
    one, other = server.low.make("one"), server.low.make("other")
    said = [one.name(), server.low.ask(server.side.make("of side"))]
    release(one)
    held = server.low.things()
    said.append(other.name())
    release(other)
    return said, held, server.low.things()


def _place(server: HighServer) -> object:
    place, mine = server.shelf, server.memory_of_mine
    thing = server.low.ask(place.make("kept"))
    return place.add(2, 3), place.who(), place.fill(mine.lend(0, 5), 1), thing


def _late(server: HighServer) -> object:
    connect(Low, "low", timeout_s=0.02).later(0)
    return "it answered"


def _own_list(server: HighServer) -> object:
    values = [1, 2, 3]
    return server.low.turned(values), values


def _bug(server: HighServer) -> object:
    try:
        server.low.bug()
    except Exception as error:  # as careless as anybody
        return type(error).__name__
    return "no bug"


SCENES: dict[str, Callable[[HighServer], object]] = {
    "add": lambda server: server.low.add(2, b=3),
    "too many": lambda server: server.low.add(1, 2, 3),  # type: ignore[call-arg]
    "not a u32": lambda server: server.low.add(-1, 3),
    "not a number": lambda server: server.low.add("1", 3),  # type: ignore[arg-type]
    "an answer": lambda server: server.low.decline("odd"),
    "an answer that is not listed": lambda server: server.low.decline("unheard"),
    "an error": lambda server: server.low.decline("denied"),
    "lent": _filled,
    "lent for reading": lambda server: server.low.fill(server.memory_of_mine.show(0, 4), 1),
    "lent too much": lambda server: server.low.fill(server.memory_of_mine.lend(4000, 200), 1),
    "later": lambda server: server.low.later(3),
    "two at once": _two_at_once,
    "too late": _late,
    "who": lambda server: (server.low.who() == server.low.who(), server.low.who()[0]),
    "things": _things,
    "a list": _own_list,
    "an object that the file gives": _place,
    "bug": _bug,
}

ROLES: dict[str, type[Server]] = {
    "low": LowServer,
    "side": LowServer,
    "shelf": Shelf,
    "high": HighServer,
    "top": TopServer,
}


if __name__ == "__main__":
    ROLES[str(task_info().args["role"])].run()
