"""door: a server's end of a channel: a way that requests come in, and that outcomes go out.

The client at the other end is not trusted: what it writes is copied first and checked then, and
nothing here ever waits for it. Outcomes that it does not take out of the ring wait in this process;
as long as they do, no more of its requests are taken, so their number is bounded.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from ukernel.abi.errors import Answer, CallError, Code, Protocol
from ukernel.abi.interface import Operation, is_interface
from ukernel.abi.wire import MAX_BODY, pack
from ukernel.lib import ring
from ukernel.lib.bell import fence
from ukernel.lib.bell import ring as ring_bell
from ukernel.lib.channel import MOST_REGISTERED, Parts, Spin
from ukernel.lib.connection import refusal
from ukernel.lib.ring import (
    CLIENT_SLEEPS,
    CLIENT_WANTS_ROOM,
    REQUEST_TAIL,
    SERVER_SLEEPS,
    SERVER_WANTS_ROOM,
    Garbage,
)

OK = int(Code.OK)


class Door:
    """One channel. `badge` and `client` are those of the capability that it stands for."""

    def __init__(
        self, number: int, badge: int, client: int, parts: Parts, spin_ns: int, window: int
    ) -> None:
        self.number = number
        self.badge = badge
        self.client = client
        self.bell = parts.server_bell
        self.lent: list[bytes] = []  # regions that it names by their index
        self.spin = Spin(spin_ns)
        self.taken = 0  # requests
        self._window = window
        self._limit = window  # of `taken`, until one more has its outcome
        self._page = parts.page
        self._client_bell = parts.client_bell
        words, requests, replies = ring.rings(parts.memory)
        self._words = words
        self._requests = ring.Receiver(words, requests, ring.REQUEST_TAIL, ring.REQUEST_HEAD)
        self._replies = ring.Sender(words, replies, ring.REPLY_TAIL, ring.REPLY_HEAD)
        self._outbox: deque[tuple[int, int, bytes]] = deque()  # status, number, body
        self._sent = 0  # bytes of the first of them
        self.wrong = ""  # what the client did that no client does
        self._gone = False

    @property
    def closed(self) -> bool:
        """The kernel has closed it, or the client breaks the rules: nobody is served here."""
        return self._page[0] != 0 or bool(self.wrong)

    @property
    def in_hand(self) -> int:
        """Requests without an outcome."""
        return self.taken - self._limit + self._window

    @property
    def ready(self) -> bool:
        """Whether a request may be taken, or a part of one; or an outcome may go on."""
        if self._outbox:
            return not self._replies.stuck
        return self._words[REQUEST_TAIL] != self._requests.head and self.taken < self._limit

    def take(self) -> tuple[int, int, int, bytes] | None:
        """The next request: opcode, number, deadline, body; None when there is no whole one, when
        too many have no outcome yet, or when it is `closed`."""
        words, requests = self._words, self._requests
        if words[REQUEST_TAIL] == requests.head or self.taken >= self._limit or self._outbox:
            return None
        if self._page[0]:  # what is not taken by now has not begun, and can be told so
            return None
        try:
            got = requests.receive()
        except Garbage as error:
            self.wrong = str(error)
            return None
        if got is not None:
            self.taken += 1
        fence()  # first it is seen to be taken; then, unless the channel is closed, it is begun
        if words[CLIENT_WANTS_ROOM]:
            ring_bell(self._client_bell)
        return None if self._page[0] else got

    def reply(self, operation: Operation, number: int, value: Any) -> None:
        """The result of a request."""
        if not operation.plain_result and is_interface(operation.result):
            self.refuse(number, Protocol(f"{operation.name} gives a capability: ask by the kernel"))
            return
        body = pack(value)
        if len(body) > MAX_BODY:
            text = f"a result of {len(body)} bytes, at most {MAX_BODY}: lend memory instead"
            self.refuse(number, Protocol(text))
        else:
            self._answer(OK, number, body)

    def refuse(self, number: int, error: Answer | CallError) -> None:
        """What there is in place of a result."""
        status, body = refusal(error)
        self._answer(status, number, body)

    def _answer(self, status: int, number: int, body: bytes) -> None:
        self._limit += 1
        if self._outbox or self._gone or self._send(status, number, body) < len(body):
            self._outbox.append((status, number, body))
            self.flush()
            return
        fence()
        if self._words[CLIENT_SLEEPS]:
            ring_bell(self._client_bell)

    def _send(self, status: int, number: int, body: bytes) -> int:
        """Go on with the first outcome; how far it is sent."""
        sent = self._sent
        try:
            sent = self._replies.send(status, number, 0, body, sent)
        except Garbage as error:
            self.wrong = str(error)
        self._sent = 0 if sent == len(body) else sent
        return sent

    def flush(self) -> None:
        """Send what has waited for room, as far as there is some now."""
        if not self._outbox or self._gone:
            return
        self._words[SERVER_WANTS_ROOM] = True
        fence()
        while self._outbox and self._send(*self._outbox[0]) == len(self._outbox[0][2]):
            self._outbox.popleft()
        if not self._outbox:
            self._words[SERVER_WANTS_ROOM] = False
        fence()
        if self._words[CLIENT_SLEEPS]:
            ring_bell(self._client_bell)

    def sleep(self) -> None:
        """Say that this end has to be woken. Look once more after a `fence`, with `nudge`."""
        self._words[SERVER_SLEEPS] = True

    def nudge(self) -> bool:
        """Whether there is something to do before sleeping."""
        return self._page[0] != 0 or self.ready

    def wake(self) -> None:
        """Say that this end looks by itself."""
        self._words[SERVER_SLEEPS] = False

    def register(self, token: bytes) -> int:
        """Remember a region; its index."""
        if token not in self.lent:
            self.lent.append(token)
        return self.lent.index(token)

    @property
    def full(self) -> bool:
        return len(self.lent) >= MOST_REGISTERED

    def close(self) -> None:
        """Outcomes that are still to come are for nobody."""
        self._gone = True
        os.close(self.bell)
        os.close(self._client_bell)
