"""tally: what a task says of itself where the kernel does not see it: calls past it, and waits.

A part of its flight recorder's page, so the launcher has it whatever becomes of the task. Counts go
on from life to life. All of it is the task's own word: a wait is believed as far as the task may
call whom it names, and what it says of itself concerns nobody else.

    by channel  direct  doors  in hand  since  opcode  badge  way, length    callee
    u64         u64     u64    u64      u64    u64     u64    u32, u32       of so many bytes

Calls by channel are stored one by one, since a client may do anything next; direct calls, and what
came through doors, when the loop goes to sleep (`doors` and `in hand` also at a ping): then all of
it is exact. `since` (CLOCK_MONOTONIC, ns) is stored last and is 0 while nobody is waited for.
"""

from __future__ import annotations

from typing import NamedTuple

from ukernel.abi.recorder import TALLY

BY_CHANNEL, DIRECT, DOORS, IN_HAND, SINCE, OPCODE, BADGE, NAMED = range(8)
WORDS_END = TALLY + 64
MOST_NAME = 32  # bytes, as a system file has it
UNKNOWN = (1 << 64) - 1  # a badge that is not known
NOTED_S = 0.1  # who has slept in a channel for so long says so

CHANNEL, BEGUN, WITHIN = range(3)  # ways
WAYS = ("by channel", "", "direct")  # a call that was begun goes by the kernel


class Callee(NamedTuple):
    """Whom calls of a stub go to, as its task calls it: a server, or (no badge) an object of it."""

    name: str = ""
    badge: int | None = None

    def handed_out(self) -> Callee:
        """An object of the same server."""
        return Callee(self.name)


STRANGER = Callee()  # who was got to know otherwise than by name


class Waiting(NamedTuple):
    """A call that the kernel knows nothing of, or not that anybody waits for it."""

    callee: Callee
    opcode: int
    way: str
    since_ns: int


class Counts(NamedTuple):
    """Over all lives of a slot."""

    by_channel: int  # calls that it made through channels
    direct: int  # calls that it made within its process
    doors: int  # requests that it took from the server's ends of channels
    in_hand: int  # of these, those without an outcome


class Tally:
    """The page, from either side."""

    def __init__(self, page: memoryview) -> None:
        self._page = page
        self.words = page[TALLY:WORDS_END].cast("Q")
        self.calls = _sane(self.words[BY_CHANNEL])  # who adds to it stores it
        self._doors = _sane(self.words[DOORS])  # of lives before
        self._last: tuple[Callee, int, int] | None = None  # what is written of a wait

    # --- the task's side ------------------------------------------------------------------------

    def add_direct(self, calls: int) -> None:
        self.words[DIRECT] = _sane(self.words[DIRECT]) + calls

    def tell_doors(self, taken: int, in_hand: int) -> None:
        """So many requests this life has taken from doors; so many have no outcome yet."""
        self.words[DOORS], self.words[IN_HAND] = self._doors + taken, in_hand

    def waits(self, callee: Callee, opcode: int, way: int, since_ns: int) -> None:
        """The task waits. Of whom it has no name for, nothing is told."""
        if (callee, opcode, way) != self._last:
            self._write(callee, opcode, way)
        self.words[SINCE] = since_ns if callee.name else 0

    def _write(self, callee: Callee, opcode: int, way: int) -> None:
        name, words = callee.name.encode()[:MOST_NAME], self.words
        words[SINCE] = 0
        self._page[WORDS_END : WORDS_END + len(name)] = name
        words[OPCODE], words[NAMED] = opcode, way << 32 | len(name)
        words[BADGE] = UNKNOWN if callee.badge is None else callee.badge
        self._last = callee, opcode, way

    def over(self) -> None:
        """The wait is over."""
        self.words[SINCE] = 0

    # --- the launcher's side --------------------------------------------------------------------

    def counts(self) -> Counts:
        return Counts(*self.words[: IN_HAND + 1])

    def waiting(self) -> Waiting | None:
        """Whom the task waits for, if for long; what is half written is nothing."""
        since_ns, opcode, badge, named = self.words[SINCE:]
        way, length = named >> 32, named & 0xFFFFFFFF
        name = bytes(self._page[WORDS_END : WORDS_END + min(length, MOST_NAME)])
        if not since_ns or self.words[SINCE] != since_ns or way >= len(WAYS):
            return None
        callee = Callee(name.decode(errors="replace"), None if badge == UNKNOWN else badge)
        return Waiting(callee, opcode & 0xFFFF, WAYS[way], since_ns)

    def buried(self) -> None:
        """The life is over, and with it what it waited for and had in hand."""
        self.words[SINCE] = self.words[IN_HAND] = 0


def _sane(count: int) -> int:
    """A count that a life has left, to go on with. It may have left anything."""
    return count if count < 1 << 62 else 0
