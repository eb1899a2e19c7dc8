"""relay: calls that a server passes on to the one below it: so many at once, the others in turn.

Only what may be done twice is passed on: what a death of the server below cuts short is begun again
with its next life. Who waits no more is told that: a call counts until it has its outcome.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from ukernel.abi.errors import Answer, CallError, DeadlinePassed, DeadNotRun, DeadUnknown
from ukernel.lib.stub import UnderWay
from ukernel.lib.way import Pending

R = TypeVar("R")


class Loop(Protocol):
    """The server that is called."""

    def pending(self) -> Pending[Any]: ...
    def when(self, call: UnderWay[Any], done: Callable[[UnderWay[Any]], None]) -> None: ...


class Request(NamedTuple):
    """A call for somebody who waits."""

    pending: Pending[Any]
    start: Callable[[], UnderWay[Any]]
    taken: Callable[[Any], Any]


class Relay:
    """`at_once` calls below. `refused` says what the caller is told in place of an error; None: it
    is to be begun again. While `held`, nothing is begun."""

    def __init__(
        self,
        loop: Loop,
        at_once: int,
        refused: Callable[[Answer | CallError], Answer | CallError | None] = lambda error: error,
    ) -> None:
        self._loop = loop
        self._at_once = at_once
        self._refused = refused
        self._waiting: deque[Request] = deque()
        self._under_way = 0
        self.held = False

    def ask(
        self, start: Callable[[], UnderWay[R]], taken: Callable[[R], R] = lambda found: found
    ) -> Pending[R]:
        """Have `start` begin a call for the caller under way, whose answer is what `taken` makes of
        the result; it may raise an Answer."""
        pending: Pending[R] = self._loop.pending()
        self._waiting.append(Request(pending, start, taken))
        self.go_on()
        return pending

    def go_on(self) -> None:
        """Begin what waits, as far as there is room."""
        while self._waiting and self._under_way < self._at_once and not self.held:
            self._begin(self._waiting.popleft())

    def give_up(self, why: Answer | CallError) -> None:
        """Tell all who wait that."""
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            request.pending.fail(why)

    def _begin(self, request: Request) -> None:
        if not request.pending.wanted:
            request.pending.fail(DeadlinePassed("it has waited here until its deadline"))
            return
        try:
            call = request.start()
        except (Answer, CallError) as error:
            self._fail(request, error)
        else:
            self._under_way += 1
            self._loop.when(call, lambda call: self._done(request, call))

    def _done(self, request: Request, call: UnderWay[Any]) -> None:
        self._under_way -= 1
        try:
            request.pending.answer(request.taken(call.result()))
        except (DeadNotRun, DeadUnknown):
            self._waiting.appendleft(request)
        except (Answer, CallError) as error:
            self._fail(request, error)
        self.go_on()

    def _fail(self, request: Request, error: Answer | CallError) -> None:
        told = self._refused(error)
        if told is None:
            self._waiting.appendleft(request)
        else:
            request.pending.fail(told)
