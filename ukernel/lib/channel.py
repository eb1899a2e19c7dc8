"""channel: calls through memory that a client shares with a server, once the kernel has agreed.

    client                                        server
    call `Channels.open` on the endpoint  ----->  has the call in hand, so it may ask for a channel
                                                  kernel: channel(call) -> memory and bells for both
    maps what the answer names            <-----
    request -> ring ------------------------------> ring -> the same dispatch as for any call
    reply   <- ring <------------------------------

A channel stands for one capability. The kernel alone closes it: when that capability is revoked,
deleted or moved, or when either end dies; it says so in a page that both can only read. What the
server had not taken out of the ring by then goes to its next life through a new channel; of what
it had taken nobody knows the outcome: E_DEAD_UNKNOWN, as ever.

This file is the client's end, `door` the server's; `link` decides which way a call goes.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import NamedTuple

from ukernel.abi import wire
from ukernel.abi.errors import Code
from ukernel.abi.tally import BY_CHANNEL, CHANNEL, NOTED_S, STRANGER, Callee
from ukernel.lib import ring
from ukernel.lib.bell import RUNG, fence
from ukernel.lib.bell import ring as ring_bell
from ukernel.lib.connection import Connection, Outcome
from ukernel.lib.mapping import map_shared
from ukernel.lib.ring import (
    CLIENT_SLEEPS,
    CLIENT_WANTS_ROOM,
    REPLY_TAIL,
    SERVER_SLEEPS,
    SERVER_WANTS_ROOM,
    Garbage,
)

SPINS_PER_US = 20  # looks at a word in a microsecond, about
IN_VAIN = 8  # spins one after the other that brought nothing, after which
PAUSE = 64  # so many waits are slept through from their beginning
MOST_REGISTERED = 256  # regions that one channel knows: a request names one by a u8


class Parts(NamedTuple):
    """A channel as a process has it. `page[0]` is not 0 when it is closed."""

    page: memoryview
    memory: memoryview
    server_bell: int
    client_bell: int


class NoParts(Exception):
    """These descriptors are not what a channel is made of, or this process has no room for it."""


def take_parts(fds: list[int]) -> Parts:
    """Map what the kernel handed over; the bells are the caller's to close. Raises NoParts."""
    try:
        page, memory, server_bell, client_bell = fds
        if os.fstat(memory).st_size != ring.CHANNEL_BYTES:
            raise OSError("this is no channel")
        seen = map_shared(page, ring.PAGE, writable=False)
        shared = map_shared(memory, ring.CHANNEL_BYTES, writable=True)
    except (OSError, ValueError) as error:
        for fd in fds:
            os.close(fd)
        raise NoParts from error
    os.close(page)
    os.close(memory)
    return Parts(seen, shared, server_bell, client_bell)


class Closed(Exception):
    """The channel leads nowhere any more."""


class Late(Exception):
    """There was no room before the deadline."""


class Spin:
    """How long to look for the other end before going to sleep: not at all while it is in vain."""

    def __init__(self, ns: int) -> None:
        self.most = ns * SPINS_PER_US // 1000
        self.looks = self.most
        self.vain = 0
        self._pause = 0

    def waited(self, in_vain: bool) -> None:
        """It was spun, or slept at once."""
        if self.looks:
            self.vain = self.vain + 1 if in_vain else 0
            if self.vain >= IN_VAIN:
                self.looks, self._pause = 0, PAUSE
        elif self.most:
            self._pause -= 1
            if not self._pause:
                self.looks, self.vain = self.most, IN_VAIN - 1  # one more attempt


class Channel:
    """A client's end of an open channel."""

    def __init__(
        self,
        connection: Connection,
        number: int,
        parts: Parts,
        spin_ns: int,
        callee: Callee = STRANGER,
    ) -> None:
        self.number = number
        self._connection = connection
        self._tally = connection.tally
        self._callee = callee
        self._page = parts.page
        self._bell, self._own_bell = parts.server_bell, parts.client_bell
        words, requests, replies = ring.rings(parts.memory)
        self._words = words
        self._requests = ring.Sender(words, requests, ring.REQUEST_TAIL, ring.REQUEST_HEAD)
        self._replies = ring.Receiver(words, replies, ring.REPLY_TAIL, ring.REPLY_HEAD)
        self._ends: dict[int, int] = {}  # of a request without an outcome: where it ends
        self._outcomes: dict[int, Outcome] = {}
        self._unwanted: set[int] = set()
        self._rest: tuple[int, int, int, bytes, int] | None = None  # of a request half in the ring
        self._let_go = False
        self._wrong = False  # the loop has met garbage
        self._tellers: dict[int, Callable[[], None]] = {}  # of requests: see `tell`
        self.leaving: Callable[[Channel], None] = _nobody_minds  # said before it is let go of
        self._registered: dict[bytes, int] = {}
        self._spin = self.spin = Spin(spin_ns)
        self._poll = select.epoll()
        self._poll.register(self._own_bell, RUNG)
        self._poll.register(connection.fd, select.EPOLLIN)

    # --- calls ----------------------------------------------------------------------------------

    def post(self, opcode: int, body: bytes, deadline_ns: int) -> int:
        """Send a request and go on; its number, for `collect`. Raises Closed, Late: it was not
        begun, and will not be."""
        if self._rest:
            self._send_rest(deadline_ns)
        tally = self._tally
        number = tally.calls = tally.calls + 1  # of all channels of this task
        tally.words[BY_CHANNEL] = number
        sender = self._requests
        sent = sender.send(opcode, number, deadline_ns, body)
        if sent < len(body):
            self._rest = opcode, number, deadline_ns, body, sent
            self._send_rest(deadline_ns)
        self._ends[number] = sender.tail
        fence()
        if self._words[SERVER_SLEEPS]:
            ring_bell(self._bell)
        return number

    def _send_rest(self, until_ns: int) -> None:
        """Go on with a request that there was no room for. What is half in the ring when it is
        too late stays there: the next request goes on with it, and the server refuses it."""
        assert self._rest is not None
        opcode, number, deadline_ns, body, sent = self._rest
        while sent < len(body):
            if self._make_room(until_ns, number):
                self._rest = (opcode, number, deadline_ns, body, sent) if sent else None
                raise Late
            sent = self._requests.send(opcode, number, deadline_ns, body, sent)
        self._rest = None

    def collect(self, number: int, deadline_ns: int) -> Outcome:
        """The outcome of a request. Raises Closed when that is not to be had here any more."""
        replies, words, outcomes = self._replies, self._words, self._outcomes
        while number not in outcomes:
            head, looks = replies.head, self._spin.looks
            while words[REPLY_TAIL] == head and looks:
                looks -= 1
            if words[REPLY_TAIL] == head:
                if self._sleep(deadline_ns, number):
                    self.forget(number)
                    return LATE
                continue
            got = replies.receive()
            if got is None:  # a part of one
                self._offer_room()
                continue
            if got[1] == number and number in self._ends:  # nearly always
                del self._ends[number]
                self._spin.vain = 0
                if words[SERVER_WANTS_ROOM]:
                    self._offer_room()
                return _new(Outcome, (got[0], got[3], ()))
            self._settle(*got)
        return outcomes.pop(number)

    def _settle(self, status: int, number: int, _: int, body: bytes) -> None:
        """A reply that was not waited for just now."""
        self._offer_room()
        if self._ends.pop(number, None) is None:
            return  # nobody asked
        if number in self._unwanted:
            self._unwanted.remove(number)
            return
        self._outcomes[number] = Outcome(status, body)
        if number in self._tellers:
            self._connection.finished.append(self._tellers.pop(number))

    def _offer_room(self) -> None:
        """Something has been read: whoever waits for that can go on."""
        if self._words[SERVER_WANTS_ROOM] and not self._let_go:
            ring_bell(self._bell)

    def forget(self, number: int) -> None:
        """Nobody wants this outcome any more, whenever it comes."""
        self._tellers.pop(number, None)
        if self._outcomes.pop(number, None) is None:
            self._unwanted.add(number)

    def taken(self, number: int) -> bool:
        """Whether the server had taken this request before the kernel closed the channel. When
        only this end has let go of it, the server may take it yet."""
        return not self._page[0] or self._requests.read >= self._ends.get(number, 0)

    # --- calls whose outcome is told in the loop ------------------------------------------------

    def tell(self, number: int, teller: Callable[[], None]) -> None:
        """Put `teller` among what is `finished` when this request has its outcome."""
        if number in self._outcomes or self._closed:
            self._connection.finished.append(teller)
        else:
            self._tellers[number] = teller

    def look(self) -> None:
        """Take in what is here. Of a channel that is closed, all that was asked is finished."""
        replies, words = self._replies, self._words
        try:
            while words[REPLY_TAIL] != replies.head:
                if got := replies.receive():
                    self._settle(*got)
                else:
                    self._offer_room()
        except Garbage:
            self._wrong = True  # and whoever asks for an outcome hears of it
        if self._closed:
            self._finish_all()

    def _finish_all(self) -> None:
        self._connection.finished.extend(self._tellers.values())
        self._tellers.clear()

    @property
    def held(self) -> bool:
        """Whether this end has not let go of it."""
        return not self._let_go

    @property
    def bell(self) -> int:
        """What the server rings."""
        return self._own_bell

    @property
    def ready(self) -> bool:
        """Whether there is something to take in, for those who are to be told."""
        return bool(self._tellers) and self._words[REPLY_TAIL] != self._replies.head

    def sleep(self) -> None:
        """Say that this end has to be woken. Look once more after a `fence`, with `nudge`."""
        self._words[CLIENT_SLEEPS] = 1

    def nudge(self) -> bool:
        """Whether there is something to do before sleeping."""
        self._offer_room()  # looked too early before, perhaps
        return self.ready or (bool(self._tellers) and self._closed)

    def wake(self) -> None:
        """Say that this end looks by itself."""
        self._words[CLIENT_SLEEPS] = 0

    # --- memory ---------------------------------------------------------------------------------

    def registered(self, token: bytes) -> int | None:
        """By which index the server knows a region, if it does."""
        return self._registered.get(token)

    def register(self, token: bytes, index: int) -> None:
        self._registered[token] = index

    def unregister(self, token: bytes) -> None:
        """The capability goes: what the server has of it leads nowhere."""
        self._registered.pop(token, None)

    def unregister_all(self) -> None:
        """Some may have been revoked."""
        self._registered.clear()

    # --- waiting --------------------------------------------------------------------------------

    def _sleep(self, deadline_ns: int, number: int) -> bool:
        """Until there is a reply, or something else to look at; whether the deadline came first.
        Raises Closed."""
        words, late = self._words, False
        words[CLIENT_SLEEPS] = 1
        fence()
        if words[REPLY_TAIL] == self._replies.head:
            if not self._closed:
                self._offer_room()  # looked too early before, perhaps
                late = self._await_bell(deadline_ns, number)
            elif self._wrong:
                raise Garbage("as it was seen in the loop")
            elif words[REPLY_TAIL] == self._replies.head:  # its last one may be here
                raise Closed
        words[CLIENT_SLEEPS] = 0
        if self._spin.most:
            self._spin.waited(in_vain=True)
        return late

    @property
    def deserted(self) -> bool:
        """Closed, and nobody waits for anything who would notice."""
        return self._closed and not self._ends.keys() - self._unwanted

    @property
    def _closed(self) -> bool:
        return self._page[0] != 0 or self._let_go or self._wrong

    def _make_room(self, deadline_ns: int, number: int) -> bool:
        """Until the server has read on; whether the deadline came first. The server may have to
        get rid of replies before. Raises Closed."""
        words, late = self._words, False
        words[CLIENT_SLEEPS] = words[CLIENT_WANTS_ROOM] = 1
        fence()
        if words[SERVER_SLEEPS] or words[SERVER_WANTS_ROOM]:
            ring_bell(self._bell)
        if self._replies.ready:
            while got := self._replies.receive():
                self._settle(*got)
        elif self._requests.stuck:
            if self._closed:
                raise Closed
            late = self._await_bell(deadline_ns, number)
        words[CLIENT_SLEEPS] = words[CLIENT_WANTS_ROOM] = 0
        return late

    def _await_bell(self, deadline_ns: int, number: int) -> bool:
        """Until it rings; whether the deadline came first. What the kernel says is taken in. After
        a while it can be seen whom this waits for."""
        connection = self._connection
        if connection.stirred:
            connection.look()
        patience_s, begun_ns = NOTED_S, time.monotonic_ns()
        if deadline_ns:
            left_s = (deadline_ns - begun_ns) / 1e9
            if left_s <= 0:
                return True
            patience_s = left_s if left_s < NOTED_S else NOTED_S
        for fd, _ in self._poll.poll(patience_s, 2):
            if fd == self._own_bell:
                return False
        opcode = self._requests.code_of(number, self._ends.get(number))
        self._tally.waits(self._callee, opcode, CHANNEL, begun_ns)
        late = self._await_longer(deadline_ns)
        self._tally.over()
        return late

    def _await_longer(self, deadline_ns: int) -> bool:
        """Until it rings; whether the deadline came first."""
        while True:
            self._connection.look()
            left_s = (deadline_ns - time.monotonic_ns()) / 1e9 if deadline_ns else None
            if left_s is not None and left_s <= 0:
                return True
            if any(fd == self._own_bell for fd, _ in self._poll.poll(left_s, 2)):
                return False

    def close(self) -> None:
        """Let go of it: what has not come by now comes no more."""
        self.leaving(self)
        self._let_go = True
        self._finish_all()
        self._poll.close()
        os.close(self._bell)
        os.close(self._own_bell)


def _nobody_minds(channel: Channel) -> None:
    pass


LATE = Outcome(Code.E_DEADLINE, wire.pack(["with the server at its deadline", {}]))
_new = tuple.__new__
