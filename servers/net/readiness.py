"""readiness: which client is told of which of its sockets, and once (`Network.ready`). Pure.

A socket is worth telling of when it is ready for what its client was not told of. The client says
that it has acted on an event by its next call, which makes the socket worth telling of again. What
was told is not kept for the next life: then everything is told once more.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from ukernel.abi.network import Ready

MOST = 128  # of one answer; and of waiting clients before the dead among them are looked for


class Watched(Protocol):
    """A socket. `tag` 0: nobody wants to be told. `told` are the events that were, and not yet
    acted on."""

    badge: int
    tag: int
    client: int
    told: int

    def events(self) -> int:
        """What it is ready for."""


class Waiter(Protocol):
    """A call of `ready` without an answer."""

    @property
    def wanted(self) -> bool: ...
    def answer(self, value: list[Ready]) -> None: ...


W = TypeVar("W", bound=Waiter)


class Readiness(Generic[W]):
    """The waiting calls, one of each client, and the news for them."""

    def __init__(self) -> None:
        self._waiting: dict[int, W] = {}
        self._news: dict[int, dict[int, Watched]] = {}  # by client and badge

    def ask(self, client: int, call: W) -> None:
        """The client waits; an earlier call of it is answered with nothing."""
        if earlier := self._waiting.pop(client, None):
            earlier.answer([])
        elif len(self._waiting) >= MOST:
            self._clear()
        self._waiting[client] = call

    def _clear(self) -> None:
        """Forget clients that are no more."""
        for client in [each for each, call in self._waiting.items() if not call.wanted]:
            self._waiting.pop(client).answer([])

    def send_away(self) -> None:
        """Answer everybody, with nothing: who is still there asks again."""
        waiting, self._waiting = self._waiting, {}
        for call in waiting.values():
            call.answer([])

    def look(self, socket: Watched) -> None:
        """Something has happened to this socket."""
        if socket.tag and socket.badge and socket.events() & ~socket.told:
            self._news.setdefault(socket.client, {})[socket.badge] = socket

    def forget(self, socket: Watched) -> None:
        """It is closed."""
        news = self._news.get(socket.client)
        if news is not None:
            news.pop(socket.badge, None)
            if not news:
                del self._news[socket.client]

    def tell(self) -> None:
        """Answer those for whom there is news."""
        for client in [client for client in self._news if client in self._waiting]:
            if not self._waiting[client].wanted:
                self._waiting.pop(client).answer([])
            elif rows := self._rows(self._news[client]):
                self._waiting.pop(client).answer(rows)
            if not self._news[client]:
                del self._news[client]

    def _rows(self, news: dict[int, Watched]) -> list[Ready]:
        rows = []
        for badge in list(news)[:MOST]:
            socket = news.pop(badge)
            if events := socket.events() & ~socket.told:
                socket.told |= events
                rows.append(Ready(socket.tag, events))
        return rows
