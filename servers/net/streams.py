"""streams: TCP in a client's hands: connections, and ports on which they are taken.

What a client was told of is in the record before: what was taken of it, what it was given, and
that it has said that it is done.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple, cast

from servers.net.addresses import dotted
from servers.net.held import Edge, Socket
from servers.net.labels import BoundRecord, Kind, Label
from servers.net.store import Record
from servers.net.tcp.block import Error, State
from servers.net.tcp.entries import Entry
from servers.net.tcp.entries import Listener as Port
from ukernel.abi.errors import Answer, CallError
from ukernel.abi.errors import Protocol as BadCall
from ukernel.abi.interface import Lent
from ukernel.abi.network import (
    READABLE,
    RECEIVE,
    SEND,
    WRITABLE,
    Address,
    ConnectionRefused,
    ConnectionReset,
    Listener,
    NotConnected,
    Stream,
    TimedOut,
    Unreachable,
)
from ukernel.lib.way import Pending

CAN_SEND = (State.SYN_SENT, State.SYN_RECEIVED, State.ESTABLISHED, State.CLOSE_WAIT)
ERRORS: dict[Error, tuple[type[Answer], str]] = {
    Error.RESET: (ConnectionReset, "the other end has broken the connection off"),
    Error.TIMED_OUT: (TimedOut, "the other end does not answer"),
    Error.REFUSED: (ConnectionRefused, "nobody listens there"),
    Error.UNREACHABLE: (Unreachable, "no way leads there"),
}


def answer_to(error: Error) -> Answer:
    """What a client is told of it."""
    kind, text = ERRORS[error]
    return kind(text)


class Transfer(NamedTuple):
    """A call of `send` or `recv` without an answer."""

    pending: Pending[int]
    at: int
    memory: Lent


class Farewell(NamedTuple):
    """A call of `shutdown` or `abort` without an answer."""

    pending: Pending[None]
    directions: int
    abort: bool = False


class OpenStream(Socket, Stream):
    """A connection in a client's hands."""

    def __init__(self, net: Edge, entry: Entry, label: Label) -> None:
        super().__init__(net, label)
        self.entry = entry
        self.fresh = False  # accepted, and perhaps nobody knows: nothing was asked of it yet
        self.connecting: Pending[Stream] | None = None
        self.read_to = 0  # given to the client, whether or not it still needs it
        self.deaf = False
        self.starved = False  # a `send` has found less room than it wanted
        self._receiver: Transfer | None = None
        self._sender: Transfer | None = None
        self._farewells: list[Farewell] = []

    # --- calls ----------------------------------------------------------------------------------

    def send(self, at: int, data: Lent) -> int:
        self.told &= ~WRITABLE
        earlier, self._sender = self._sender, None
        self._sender = self._transfer(earlier, at, data)
        return self._sender.pending.later

    def recv(self, at: int, into: Lent) -> int:
        self.told &= ~READABLE
        earlier, self._receiver = self._receiver, None
        self._receiver = self._transfer(earlier, at, into)
        return self._receiver.pending.later

    def _transfer(self, earlier: Transfer | None, at: int, memory: Lent) -> Transfer:
        if earlier is not None:
            self.net.calls.fail(earlier.pending, BadCall("asked again before it was answered"))
        if not memory.length:
            raise BadCall("no memory was lent: a transfer is of one byte at least")
        transfer = Transfer(self.net.calls.park(), at, memory)
        self._used()
        return transfer

    def shutdown(self, directions: int) -> None:
        return self._say(Farewell(self.net.calls.park(), directions))

    def abort(self) -> None:
        return self._say(Farewell(self.net.calls.park(), 0, abort=True))

    def _say(self, farewell: Farewell) -> None:
        self._farewells.append(farewell)
        self._used()
        return farewell.pending.later

    def _used(self) -> None:
        """Something was asked of it: nobody else is to accept it any more."""
        if self.fresh:
            self.fresh = False
            self.entry.connection.changed = True
        self.net.stir(self)

    def local(self) -> Address:
        return Address(dotted(self.entry.quad.local), self.entry.quad.local_port)

    def peer(self) -> Address:
        return Address(dotted(self.entry.quad.remote), self.entry.quad.remote_port)

    # --- what happens ---------------------------------------------------------------------------

    def events(self) -> int:
        c = self.entry.connection
        over = c.peer_done or c.error is not None or self.deaf
        events = READABLE if over or c.received > max(self.read_to, c.consumed_to) else 0
        room = c.send.size - (c.queued_end - c.acked)
        if self.starved and (4 * room >= c.send.size or c.error is not None):
            events |= WRITABLE
        return events

    def go_on(self, now: int) -> None:
        if self.connecting is not None:
            self._connect(self.connecting)
            return
        for work, transfer in ((self._receive, self._receiver), (self._send, self._sender)):
            if transfer is not None:
                try:
                    work(transfer, now)
                except (Answer, CallError) as error:
                    self._over(transfer)
                    self.net.calls.fail(transfer.pending, error)
        for farewell in self._farewells:
            self._part(farewell, now)
        self._farewells.clear()
        if self.deaf:
            self.entry.connection.consumed(self.entry.connection.received, now)

    def _part(self, farewell: Farewell, now: int) -> None:
        pending, directions, abort = farewell
        c = self.entry.connection
        if abort:
            c.abort(now)
        elif directions & SEND:
            c.shutdown(now)
        if directions & RECEIVE and not self.deaf:
            self.deaf = c.changed = True
        self.net.calls.promise(pending, None)

    def _connect(self, pending: Pending[Stream]) -> None:
        """Hand the connection out when it stands, and let it go when it never will."""
        c = self.entry.connection
        if c.state >= State.ESTABLISHED and pending.wanted:
            self.connecting = None
            self.net.hold(self, self.entry)
            self.net.calls.promise(pending, self)
        elif c.state == State.CLOSED or not pending.wanted:
            self.connecting = None
            self.net.let_go(self)
            self.net.calls.fail(pending, answer_to(c.error or Error.TIMED_OUT))

    def _over(self, transfer: Transfer) -> None:
        if transfer is self._receiver:
            self._receiver = None
        else:
            self._sender = None

    def _receive(self, transfer: Transfer, now: int) -> None:
        pending, at, into = transfer
        c = self.entry.connection
        length = 0
        if not self.deaf:
            if not c.consumed_to <= at <= c.received:
                raise BadCall(f"position {at}: there are {c.consumed_to} to {c.received}")
            c.consumed(at, now)
            # What is given lies in the ring until the next call, which the client may make only
            # when more has come: half a ring is left for that.
            length = min(c.received - at, into.length, c.receive.size >> 1)
            if length:
                c.receive.get(at, length, self.net.memory(into, write=True))
                self._given(at + length)
            elif c.error is not None:
                raise answer_to(c.error)
            elif not c.peer_done and c.state is not State.CLOSED:
                return
        self._receiver = None
        self.net.calls.promise(pending, length)

    def _given(self, end: int) -> None:
        if end > self.read_to:
            self.read_to = end
            self.entry.connection.changed = True

    def _send(self, transfer: Transfer, now: int) -> None:
        pending, at, data = transfer
        c = self.entry.connection
        begun, end = c.queued_end, at + data.length
        if c.error is not None:
            raise answer_to(c.error)
        if at > begun:
            raise BadCall(f"position {at}: what is sent goes up to {begun}")
        if end > begun:
            if c.closing or c.state not in CAN_SEND:
                raise NotConnected("this end was shut down")
            room = c.send.size - (begun - c.acked)
            taken = min(end - begun, room)
            self.starved = taken < end - begun
            if not taken and not self.tag:
                return
            view = self.net.memory(data)
            c.send.put(begun, view[begun - at : begun - at + taken])
            end = begun + taken
            c.queued(end, now)
        self._sender = None
        self.net.calls.promise(pending, end)

    def parked(self) -> list[Pending[Any]]:
        transfers = [t.pending for t in (self._receiver, self._sender) if t is not None]
        return [*transfers, *(farewell.pending for farewell in self._farewells)]


class OpenListener(Socket, Listener):
    """A port on which a client takes connections."""

    def __init__(self, net: Edge, port: Port, label: Label, record: Record) -> None:
        super().__init__(net, label)
        self.port = port
        self.record = record
        self._waiting: deque[tuple[Pending[Stream], int]] = deque()

    @property
    def place(self) -> tuple[int, int]:
        """Port and address, 0: any."""
        return self.port.port, self.port.address

    def remember(self, tag: int) -> None:
        """Put it into the store, to be watched under this tag."""
        self.tag, self.told = tag, 0
        port = self.port
        bound = BoundRecord(self.label, Kind.LISTENER, port.address, port.port, port.backlog)
        self.record.write(bound.pack())
        self.net.stir(self)

    def accept(self, tag: int) -> Stream:
        self.told &= ~READABLE
        pending: Pending[Stream] = self.net.calls.park()
        self._waiting.append((pending, tag))
        self.net.stir(self)
        return pending.later

    def local(self) -> Address:
        return Address(dotted(self.port.address), self.port.port)

    def events(self) -> int:
        return READABLE if self.port.waiting else 0

    def go_on(self, now: int) -> None:
        while self._waiting and self.port.waiting:
            pending, tag = self._waiting.popleft()
            if not pending.wanted:
                self.net.calls.give_up(pending)
                continue
            stream = self.net.accepted(self.port, Label(0, tag, self.client))
            if stream is None:
                self._waiting.appendleft((pending, tag))
                return
            self.net.calls.promise(pending, cast(Stream, stream))

    def parked(self) -> list[Pending[Any]]:
        return [pending for pending, _ in self._waiting]
