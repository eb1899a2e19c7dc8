"""tso: every interleaving of two programs that share words of memory, as x86 orders their accesses.

A store becomes visible later, perhaps after a load that follows it; stores stay in order, and a
fence or a system call waits until all are visible. The programs are real code, which meets this
model wherever it touches a shared word. It is run up to the next thing that it has to know, and
again from its beginning with one more answer; so what it does is a function of the answers so far,
and need be found out only once. Two runs that stop at the same place with the same values in all
their variables go on alike, whatever they were told before (`Program`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

MOST_STATES = 400_000  # more is a program without end

Op = tuple[
    Any, ...
]  # ("load", word), ("fence",), ("ring", end), ("wait",), ("page",), ("end", value)
Effect = tuple[Any, ...]  # ("store", word, value) or ("mark", value)


class Suspended(BaseException):
    """The program has to be told something first."""


class Tape:
    """What one run of a program is told, and what it has done since the last of it."""

    def __init__(self, answers: tuple[Any, ...]) -> None:
        self._answers = answers
        self._at = 0
        self.effects: list[Effect] = []
        self.op: Op = ()

    def ask(self, *op: Any) -> Any:
        if self._at == len(self._answers):
            self.op = op
            raise Suspended
        answer = self._answers[self._at]
        self._at += 1
        self.effects.clear()
        return answer

    def do(self, *effect: Any) -> None:
        self.effects.append(effect)


class Node(NamedTuple):
    """A program at one place: answers that lead there, and what it asks now."""

    answers: tuple[Any, ...]
    op: Op


class Program:
    """`run(tape)` is the program; its value is its end. The first node is its beginning."""

    def __init__(self, run: Callable[[Tape], Any]) -> None:
        self._run = run
        self._places: dict[Any, int] = {}
        self._known: dict[tuple[int, Any], tuple[int, tuple[Effect, ...]]] = {}
        self.nodes: list[Node] = []
        self.beginning = self._find(())

    def _find(self, answers: tuple[Any, ...]) -> tuple[int, tuple[Effect, ...]]:
        tape = Tape(answers)
        try:
            op: Op = ("end", self._run(tape))
            place: Any = op
        except Suspended as stop:
            op = tape.op
            place = op, tuple(_places(stop.__traceback__))
        if place not in self._places:
            self._places[place] = len(self.nodes)
            self.nodes.append(Node(answers, op))
        return self._places[place], tuple(tape.effects)

    def after(self, node: int, answer: Any) -> tuple[int, tuple[Effect, ...]]:
        """The node that follows when this is the answer, and what is done on the way."""
        if (node, answer) not in self._known:
            self._known[node, answer] = self._find((*self.nodes[node].answers, answer))
        return self._known[node, answer]


def _places(traceback: TracebackType | None) -> Iterator[Any]:
    """Where each function on the stack is, and all that it can see."""
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_filename != __file__:
            yield frame.f_code.co_qualname, traceback.tb_lasti, _plain(frame.f_locals, ())
        traceback = traceback.tb_next


def _plain(value: Any, above: tuple[int, ...]) -> Any:
    """A value that equals another when all in them is equal."""
    if value is None or isinstance(value, int | str | bytes):
        return value
    if id(value) in above or isinstance(value, Tape) or callable(value):
        return None
    above = (*above, id(value))
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return tuple((_plain(k, above), _plain(v, above)) for k, v in value.items())
    if isinstance(value, tuple | list | set | deque):
        return tuple(_plain(item, above) for item in value)
    return type(value).__name__, _plain(vars(value), above)


class End(NamedTuple):
    """One of the two: where it is in its program, what it has stored that nobody sees yet."""

    node: int
    pending: tuple[tuple[int, Any], ...] = ()
    rung: bool = False
    alive: bool = True


class State(NamedTuple):
    """All that there is at a moment. `page` is what the kernel's page says."""

    ends: tuple[End, End]
    memory: tuple[Any, ...]
    page: int = 0
    told: bool = False  # the bells have rung after the page was written
    marks: frozenset[Any] = frozenset()


class Explorer:
    """Goes everywhere. `mortal` is who may die, once; then, or if it `closes` anyway, the kernel
    says so in the page and rings."""

    def __init__(
        self, programs: tuple[Program, Program], words: int, start: Any, mortal: int, closes: bool
    ) -> None:
        self.programs = programs
        self.mortal = mortal
        self.closes = closes
        blank = State((End(0), End(0)), (start,) * words)
        for who in (0, 1):
            blank = self._moved(blank, who, *programs[who].beginning)
        self._todo = [blank]
        self._seen = {blank}
        self.last: list[State] = []  # states after which nothing happens any more

    def explore(self) -> None:
        """Find all that can happen."""
        while self._todo:
            state = self._todo.pop()
            following = self._following(state)
            if not following:
                self.last.append(state)
            for new in following:
                if new not in self._seen:
                    self._seen.add(new)
                    self._todo.append(new)
            assert len(self._seen) < MOST_STATES, "it goes on for ever"

    def op(self, state: State, who: int) -> Op:
        return self.programs[who].nodes[state.ends[who].node].op

    def _following(self, state: State) -> list[State]:
        found = [self._kernel(state)]
        for who in (0, 1):
            if state.ends[who].alive:
                found += [self._step(state, who), self._show(state, who)]
                if who == self.mortal:
                    found.append(self._dead(state, who))
        return [new for new in found if new is not None]

    def _kernel(self, state: State) -> State | None:
        if not state.page:
            dead = not all(end.alive for end in state.ends)
            return state._replace(page=1) if dead or self.closes else None
        if state.told:
            return None
        first, second = (end._replace(rung=True) for end in state.ends)
        return state._replace(ends=(first, second), told=True)

    def _show(self, state: State, who: int) -> State | None:
        """The oldest store becomes visible."""
        end = state.ends[who]
        if not end.pending:
            return None
        (word, value), *rest = end.pending
        memory = (*state.memory[:word], value, *state.memory[word + 1 :])
        return _with(state, who, end._replace(pending=tuple(rest)))._replace(memory=memory)

    def _dead(self, state: State, who: int) -> State:
        while shown := self._show(state, who):
            state = shown
        return _with(state, who, state.ends[who]._replace(alive=False))

    def _step(self, state: State, who: int) -> State | None:
        end, op = state.ends[who], self.op(state, who)
        match op:
            case ("load", word):
                own = [value for at, value in end.pending if at == word]
                return self._told(state, who, own[-1] if own else state.memory[word])
            case ("page",):
                return self._told(state, who, state.page)
            case ("end", _):
                return None
        if end.pending:
            return None  # the others wait until all is visible
        if op[0] == "ring":
            other = state.ends[op[1]]._replace(rung=True)
            return self._told(_with(state, op[1], other), who, None)
        if op[0] == "wait":
            if not end.rung:
                return None
            state = _with(state, who, end._replace(rung=False))
        return self._told(state, who, None)

    def _told(self, state: State, who: int, answer: Any) -> State:
        return self._moved(state, who, *self.programs[who].after(state.ends[who].node, answer))

    def _moved(self, state: State, who: int, node: int, effects: tuple[Effect, ...]) -> State:
        stores = tuple(effect[1:] for effect in effects if effect[0] == "store")
        marks = {effect[1] for effect in effects if effect[0] == "mark"}
        end = state.ends[who]
        end = end._replace(node=node, pending=end.pending + stores)
        state = _with(state, who, end)._replace(marks=state.marks | marks)
        if not end.pending and self.op(state, who) == ("fence",):
            return self._told(state, who, None)  # which nobody can see
        return state


def _with(state: State, who: int, end: End) -> State:
    first, second = state.ends
    return state._replace(ends=(end, second) if who == 0 else (first, end))
