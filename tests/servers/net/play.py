"""play: two machines on one wire, and the programs of their clients."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from servers.net.addresses import dotted, number
from servers.net.store import Store
from tests.servers.net.machine import RING, SECOND, Call, Fuse, Handle, Machine
from ukernel.abi.interface import Lent
from ukernel.abi.network import (
    READABLE,
    RECEIVE,
    SEND,
    WRITABLE,
    Address,
    ConnectionRefused,
    ConnectionReset,
)

HERE, THERE = number("10.0.0.1"), number("10.0.0.2")
ECHO, ASKED = Address(dotted(THERE), 7), Address(dotted(HERE), 7)
SERVICE = Address("0.0.0.0", 7)
TAG = 5
MOST_STEPS = 3000
TOOK, GAVE = Lent(b"", 0, RING), Lent(b"", RING, RING)  # windows of a client's memory


class Ask(NamedTuple):
    """What a client asks for next; `prompt`: it was told that it need not wait."""

    to: Handle | None
    name: str
    args: tuple[Any, ...] = ()
    prompt: bool = False


class Release(NamedTuple):
    what: Handle


Program = Generator[Ask | Release, Any, Any]


class Client:
    """Runs a program; the calls that die with `net` it makes again."""

    def __init__(self, on: Machine, program: Program) -> None:
        self.on, self.program = on, program
        self.over, self.result = False, None
        self._call: Call | None = None
        self._ask: Ask | None = None

    def step(self) -> bool:
        """Go on; whether that was possible."""
        call = self._call
        if self.over:
            return False
        if call is None:
            self._go_on(lambda: next(self.program))
        elif call.done and call.error is not None:
            error = call.error
            self._go_on(lambda: self.program.throw(error))
        elif call.done:
            self._go_on(lambda: self.program.send(call.value))
        elif self.on.lost(call):
            self._make()
        else:
            return False
        return True

    def _go_on(self, then: Callable[[], Ask | Release]) -> None:
        try:
            wanted = then()
            while isinstance(wanted, Release):
                self.on.release(wanted.what)
                wanted = self.program.send(None)
        except StopIteration as end:
            self.over, self.result = True, end.value
        else:
            self._ask = wanted
            self._make()

    def _make(self) -> None:
        ask = self._ask
        assert ask is not None
        self._call = self.on.call(ask.to.badge if ask.to else 0, ask.name, *ask.args)
        if ask.prompt:
            self.on.settle()
            assert self._call.done or self.on.lost(self._call), f"{ask} had to wait"


class World:
    """Two machines and a wire. The first one's lives may end."""

    def __init__(self, *fuses: int) -> None:
        self.clock = [1000 * SECOND]
        self.here = Machine(HERE, b"\x02\0\0\0\0\1", self.clock)
        self.there = Machine(THERE, b"\x02\0\0\0\0\2", self.clock)
        self.machines = (self.here, self.there)
        self.here.fuse = Fuse(*fuses)

    def run(self, *clients: Client, until: int = 0) -> None:
        """Until all have done what they wanted, or nothing happens any more before `until`."""
        for _ in range(MOST_STEPS):
            if clients and self.here.together and self.here.deaths:
                return
            busy = sum(client.step() for client in clients) > 0
            if self.turn() or busy:
                continue
            if not until and all(client.over for client in clients):
                return
            if not self.sleep(until):
                return
        raise AssertionError("it goes on for ever")

    def turn(self) -> bool:
        """Carry frames; whether there were any."""
        busy = False
        for one, other in (self.machines, self.machines[::-1]):
            one.settle()
            busy |= bool(one.sent)
            while one.sent:
                other.frame(one.sent.popleft())
        return busy

    def sleep(self, until: int = 0) -> bool:
        """Until somebody's alarm; False if that is later than `until`."""
        dues = [each.due for each in self.machines if each.due]
        if not dues or 0 < until < min(dues):
            assert until, "nobody has anything to do, and somebody waits"
            return False
        self.clock[0] = max(self.clock[0], min(dues))
        for each in self.machines:
            if 0 < each.due <= self.clock[0]:
                each.alarm()
        return True

    def ends_empty(self, *machines: Machine) -> None:
        """Everybody has gone, and nothing is left of them."""
        self.run(until=self.clock[0] + 300 * SECOND)
        for each in machines or self.machines:
            assert not each.open
            assert not +each.held
            store: Store = each.net.store
            assert not list(store.used())
            assert not list(store.used_sockets())
            assert not each.net.objects
            assert not each.net.calls.waiting
            assert not any(each.net.places.full(client) for client in (0, each.client))
            slots = [each.net.places.take(0) for _ in store.slots]
            assert None not in slots


# --- programs ------------------------------------------------------------------------------------


def listens() -> Program:
    return (yield Ask(None, "listen", (SERVICE, 4, 0)))


def talks(on: Machine, stream: Handle, text: bytes) -> Program:
    """Send it all, hear everything, each piece twice."""
    sent = 0
    while sent < len(text):
        piece = text[sent : sent + 700]
        on.memory[: len(piece)] = piece
        end = yield Ask(stream, "send", (sent, TOOK._replace(length=len(piece))))
        assert sent < end <= sent + len(piece)
        sent = end
    yield Ask(stream, "shutdown", (SEND,))
    got = b""
    while True:
        ask = Ask(stream, "recv", (len(got), GAVE._replace(length=400)))
        count = yield ask
        piece = bytes(on.memory[RING : RING + count])
        count = yield ask
        assert bytes(on.memory[RING : RING + count]).startswith(piece)
        if not piece:
            return got
        got += piece


def connects(on: Machine, text: bytes) -> Program:
    stream = yield Ask(None, "connect", (ECHO, 0))
    got = yield from talks(on, stream, text)
    yield Release(stream)
    return got


def accepts(on: Machine, text: bytes) -> Program:
    """Until somebody says something: who connects may die of it, and connect again."""
    listener = yield from listens()
    got = b""
    while not got:
        stream = yield Ask(listener, "accept", (0,))
        try:
            got = yield from talks(on, stream, text)
        except ConnectionReset:
            assert not got
        yield Release(stream)
    yield Release(listener)
    return got


def watches(on: Machine, text: bytes) -> Program:
    """Accept one connection, and never ask for anything that was not told to be there."""
    listener = yield from listens()
    stream = yield Ask(listener, "accept", (TAG,))
    sent, got, readable, writable, said = 0, b"", False, True, False
    while True:
        if writable and sent < len(text):
            piece = text[sent : sent + RING]
            on.memory[: len(piece)] = piece
            window = TOOK._replace(length=len(piece))
            end = yield Ask(stream, "send", (sent, window), prompt=True)
            writable, sent = end == sent + len(piece), end
        elif sent == len(text) and not said:
            yield Ask(stream, "shutdown", (SEND,))
            said = True
        elif readable:
            count = yield Ask(stream, "recv", (len(got), GAVE), prompt=True)
            got += bytes(on.memory[RING : RING + count])
            readable = False
            if not count:
                break
        else:
            for tag, events in (yield Ask(None, "ready")):
                assert tag == TAG
                readable |= bool(events & READABLE)
                writable |= bool(events & WRITABLE)
    assert said, "the other end has gone before everything was sent"
    yield Release(stream)
    yield Release(listener)
    return got


def says(on: Machine, stream: Handle, text: bytes) -> Program:
    """Something short."""
    on.memory[: len(text)] = text
    assert (yield Ask(stream, "send", (0, TOOK._replace(length=len(text))))) == len(text)


def answers_and_goes(on: Machine, text: bytes) -> Program:
    """Read the question, answer it, and go at once."""
    listener = yield from listens()
    stream = yield Ask(listener, "accept", (0,))
    count = yield Ask(stream, "recv", (0, GAVE))
    got = bytes(on.memory[RING : RING + count])
    yield from says(on, stream, text)
    yield Release(stream)
    yield Release(listener)
    return got


def does_not_listen(on: Machine, text: bytes) -> Program:
    """Answer without having read the question, and stay until somebody else comes."""
    listener = yield from listens()
    stream = yield Ask(listener, "accept", (0,))
    yield Ask(stream, "shutdown", (RECEIVE,))
    yield from says(on, stream, text)
    yield Ask(stream, "shutdown", (SEND,))
    assert (yield Ask(stream, "recv", (0, GAVE))) == 0
    other = yield Ask(listener, "accept", (0,))
    for handle in (stream, other, listener):
        yield Release(handle)
    return b""


def asks(on: Machine, text: bytes) -> Program:
    """Send a question, and read the answer up to its end."""
    while True:
        try:
            stream = yield Ask(None, "connect", (ASKED, 0))
        except ConnectionRefused:  # nobody listens yet
            continue
        got = yield from talks(on, stream, text)
        yield Release(stream)
        return got


def asks_and_returns(on: Machine, text: bytes) -> Program:
    got = yield from asks(on, text)
    yield Release((yield Ask(None, "connect", (ASKED, 0))))
    return got


def hears_out(on: Machine, text: bytes) -> Program:
    """Answer when the question has come to its end."""
    listener = yield from listens()
    got = b""
    while not got:
        stream = yield Ask(listener, "accept", (0,))
        while count := (yield Ask(stream, "recv", (len(got), GAVE))):
            got += bytes(on.memory[RING : RING + count])
        if got:
            yield from says(on, stream, text)
        yield Release(stream)
    yield Release(listener)
    return got
