"""calls: those that have no answer yet, and those that get it when the store knows why.

What the kernel has delivered counts until it is answered, and no more than the window do so at
once: so calls that wait may take a part of it only, whoever makes them. A client may have twice as
many as there is room left for: one that wants everything leaves some for the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from ukernel.abi.errors import Answer, CallError, DeadlinePassed, Overload
from ukernel.lib.server import Server
from ukernel.lib.way import Pending

PARKED = 75  # per cent of the window for calls that wait; others are answered at once


R = TypeVar("R")


class Asked(NamedTuple, Generic[R]):
    """A call without an answer, for those parts that know nothing of windows."""

    calls: Calls
    pending: Pending[R]

    @property
    def wanted(self) -> bool:
        return self.pending.wanted

    def answer(self, value: R) -> None:
        self.calls.answer(self.pending, value)

    def fail(self, error: Answer) -> None:
        self.calls.fail(self.pending, error)


class Calls:
    """The calls of a server. `send_away` answers those that can be made again at no cost."""

    def __init__(self, server: Server, send_away: Callable[[], None]) -> None:
        self._server = server
        self._send_away = send_away
        self._most = server.connection.info.window * PARKED // 100
        self._open: set[Pending[Any]] = set()
        self._parked: dict[Pending[Any], int] = {}  # that the kernel has delivered, and of whom
        self._of: Counter[int] = Counter()  # clients, how many
        self._promises: list[tuple[Pending[Any], Any]] = []

    @property
    def waiting(self) -> int:
        """How many have no answer yet."""
        return len(self._open)

    def park(self) -> Pending[Any]:
        """The call under way, to be answered later. Raises Overload."""
        pending = self._server.pending()
        if self._server.by_kernel:
            client = self._server.caller.client
            if self._full(client):
                self._sift()
            if self._full(client):
                raise Overload("too many calls wait here: use `ready`, or a larger window")
            self._parked[pending] = client
            self._of[client] += 1
        self._open.add(pending)
        return pending

    def _full(self, client: int) -> bool:
        """Whether this client has as many as it may have while the others have theirs."""
        return self._of[client] >= 2 * (self._most - len(self._parked))

    def _done(self, pending: Pending[Any]) -> bool:
        """Whether it had no answer yet: a second one would be a fault of ours."""
        if pending not in self._open:
            return False
        self._open.remove(pending)
        client = self._parked.pop(pending, None)
        if client is not None:
            self._of[client] -= 1
            if not self._of[client]:
                del self._of[client]
        return True

    def asked(self) -> Asked[Any]:
        """The same, as one thing."""
        return Asked(self, self.park())

    def _sift(self) -> None:
        """Let go of calls whose callers are not there any more, as far as can be known."""
        self._send_away()
        for parked in [parked for parked in self._parked if not parked.wanted]:
            self.give_up(parked)

    def answer(self, pending: Pending[Any], value: Any) -> None:
        if self._done(pending):
            pending.answer(value)

    def fail(self, pending: Pending[Any], error: Answer | CallError) -> None:
        if self._done(pending):
            pending.fail(error)

    def give_up(self, pending: Pending[Any]) -> None:
        """Nobody waits for it any more, but it still counts."""
        self.fail(pending, DeadlinePassed("it has waited until its deadline"))

    def promise(self, pending: Pending[Any], value: Any) -> None:
        """Answer when what has just changed is in the store. Nothing can come in between: who gets
        a socket gets it, or the kernel says that nobody holds it."""
        if self._done(pending):
            self._promises.append((pending, value))

    def keep_promises(self) -> None:
        """It is."""
        promises, self._promises = self._promises, []
        for pending, value in promises:
            pending.answer(value)
