"""errands: several calls of servers, one after the other or at once, that the launcher makes.

What is to be asked next is said by a plan, a generator: it yields calls and is sent their outcomes.
So a plan is pure and tested without a system, and the launcher never waits for a server: it goes
on between the events of `System.pump`. When whoever wanted it is gone, it still comes to its end:
a plan that has stopped something starts it again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

from launcher.asks import Ask, called
from launcher.system import System
from ukernel.abi.errors import CallError
from ukernel.abi.interface import Interface

PATIENCE_S = 10.0  # with a server


class Asking(NamedTuple):
    """A call that a plan wants made. Memory in `args` is the root task's."""

    server: str
    operation: str
    args: tuple[Any, ...] = ()


class Declined(Exception):
    """A server's own refusal; `name` is that of the interface's Answer."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name


Clock = Callable[[], float]  # seconds, for plans that say how long something took
Plan = Generator[Sequence[Asking], Sequence[Any], Any]  # is sent a value or an exception for each


def each(*askings: Asking) -> Generator[Sequence[Asking], Sequence[Any], list[Any]]:
    """Calls made at once: their values. Raises the first Declined or CallError among them."""
    outcomes = list((yield askings))
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


def one(server: str, operation: str, *args: Any) -> Generator[Sequence[Asking], Sequence[Any], Any]:
    """One call: its value. Raises Declined, CallError."""
    (value,) = yield from each(Asking(server, operation, args))
    return value


class Errand:
    """A plan being carried out, of calls of one interface."""

    def __init__(self, system: System, interface: type[Interface], plan: Plan) -> None:
        self._system, self._interface, self._plan = system, interface, plan
        self._asks: list[Ask] = []
        self._outcomes: list[Any] = []
        self._error: BaseException | None = None
        self._result: Any = None
        self._over = False
        self._send(None)

    def outcome(self) -> Any:
        """What the plan comes to, None while it goes on. Raises what the plan raises."""
        self._go_on()
        if self._error is not None:
            raise self._error
        return self._result

    def leave(self) -> None:
        """Nobody wants to know any more: let it come to its end by itself."""
        if not self._over:
            self._system.after_events.append(self._by_itself)

    def _by_itself(self) -> None:
        self._go_on()
        if self._over:
            self._system.after_events.remove(self._by_itself)

    def _go_on(self) -> None:
        while not self._over:
            for at, ask in enumerate(self._asks):
                if self._outcomes[at] is None:
                    self._outcomes[at] = _taken(ask)
            if any(outcome is None for outcome in self._outcomes):
                return
            self._send([o if isinstance(o, Exception) else o["result"] for o in self._outcomes])

    def _send(self, outcomes: Sequence[Any] | None) -> None:
        """Let the plan say what is next."""
        try:
            wanted = next(self._plan) if outcomes is None else self._plan.send(outcomes)
            self._asks = [self._ask(asking) for asking in wanted]
        except StopIteration as end:
            self._over, self._result = True, end.value
        except Exception as error:
            self._over, self._error = True, error
        self._outcomes = [None] * len(self._asks)

    def _ask(self, asking: Asking) -> Ask:
        what = called(asking.server, self._interface, asking.operation)
        return Ask(self._system, what, list(asking.args), PATIENCE_S)


def _taken(ask: Ask) -> Any:
    """`{"result": value}`, the exception in its place, or None while there is neither."""
    try:
        told = ask.outcome()
    except CallError as error:
        return error
    if told is not None and "answer" in told:
        return Declined(told["answer"], told["text"])
    return told
