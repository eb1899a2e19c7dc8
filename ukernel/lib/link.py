"""link: which way the calls on one capability go: by the kernel, or through a channel.

The first call opens the channel, and so does the first after it was closed; on an object that was
handed out, such as a file, only when it is called often. Where a server or its machine offers no
channel, and for operations that pass capabilities, calls go by the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ukernel.abi import wire
from ukernel.abi.channels import Channels, Opened
from ukernel.abi.errors import Code
from ukernel.abi.interface import Lent, Operation
from ukernel.abi.tally import STRANGER, Callee
from ukernel.abi.wire import MAX_BODY, pack
from ukernel.lib.channel import LATE, Channel, Closed, Late, NoParts, take_parts
from ukernel.lib.connection import Connection, Outcome
from ukernel.lib.ring import ORDERED, Garbage

OPEN, REGISTER = sorted(Channels.ops)
SELDOM = 16  # calls of an object by the kernel before it gets a channel of its own
LATER = 4096  # calls by the kernel before a channel is asked for again where there was none
NO_CHANNEL = frozenset((Code.E_PROTO, Code.E_OVERLOAD, Code.E_NO_MEMORY))


class Refused(Exception):
    """There is no channel, for a reason that is the call's outcome too."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class Link:
    """The calls on one capability of this task."""

    def __init__(
        self,
        connection: Connection,
        token: bytes,
        spin_ns: int,
        seldom: bool,
        callee: Callee = STRANGER,
    ) -> None:
        self.spin_ns = spin_ns
        self._callee = callee
        self._connection = connection
        self._token = token
        self._left = SELDOM if seldom else 0
        self._channel: Channel | None = None

    def call(self, operation: Operation, args: tuple[Any, ...], deadline_ns: int) -> Outcome | None:
        """The outcome of a call; None when it must go by the kernel."""
        while True:
            number = 0
            try:
                channel = self._channel or self._open(deadline_ns)
                if channel is None:
                    return None
                body = self._pack(channel, operation, args, deadline_ns)
                if body is None:
                    return None
                number = channel.post(operation.number, body, deadline_ns)
                return channel.collect(number, deadline_ns)
            except Refused as refused:
                return refused.outcome
            except Late:
                return LATE
            except Garbage:
                self.distrust(self._channel)
                return UNKNOWN if number else None
            except Closed:
                if self.closed(self._channel, number):
                    return UNKNOWN

    def post(self, operation: Operation, args: tuple[Any, ...], deadline_ns: int) -> Posted | None:
        """Begin a call; None when it must go by the kernel, or by `call`. To a server that has died
        unnoticed it goes by the kernel, which keeps it for the next life: nobody waits for that."""
        try:
            if self._channel is not None and self._channel.deserted:
                self.drop()
                return None
            channel = self._channel or self._open(deadline_ns)
            if channel is None:
                return None
            body = self._pack(channel, operation, args, deadline_ns)
            if body is None:
                return None
            return Posted(self, channel, channel.post(operation.number, body, deadline_ns))
        except (Refused, Closed, Late):
            return None
        except Garbage:
            self.distrust(self._channel)
            return None

    def distrust(self, channel: Channel | None) -> None:
        """The server has written what no server writes. What it does with requests that it may
        have, nobody knows; the next ones go by the kernel."""
        if channel is self._channel:
            self.drop()
            self._left = LATER

    def closed(self, channel: Channel | None, number: int) -> bool:
        """Let go of a channel that leads nowhere. Whether the server had taken this request."""
        taken = channel is not None and number > 0 and channel.taken(number)
        if channel is self._channel:
            self.drop()
        return taken

    def _pack(
        self, channel: Channel, operation: Operation, args: tuple[Any, ...], deadline_ns: int
    ) -> bytes | None:
        """The body of a request; None for what only the kernel's way can take, or refuse."""
        if operation.lends:
            named = [self._named(channel, value, deadline_ns) for value in args]
            if None in named:
                return None
            args = tuple(named)
        body = pack(args)
        return body if len(body) <= MAX_BODY else None

    def _named(self, channel: Channel, value: Any, deadline_ns: int) -> Any:
        """An argument; lent memory by the index that the server knows it by."""
        if type(value) is not Lent:
            return value
        index = channel.registered(value.token)
        if index is None:
            index = self._register(channel, value.token, deadline_ns)
        return None if index is None else (index, value.offset, value.length)

    def _register(self, channel: Channel, token: bytes, deadline_ns: int) -> int | None:
        """Make a region known to the server, by the kernel. Raises Closed, Refused."""
        body = wire.pack((channel.number, (0, 0, 0)))
        reply = self._connection.call(self._token, REGISTER, body, (token,), deadline_ns)
        if reply.status in (Code.E_PROTO, Code.E_DEAD_UNKNOWN):
            raise Closed  # another life has it
        if reply.status == Code.E_OVERLOAD:
            return None
        index: int = wire.unpack(_good(reply))
        channel.register(token, index)
        return index

    def _open(self, deadline_ns: int) -> Channel | None:
        """A channel for this capability, if there can be one. Raises Refused."""
        if self._left:
            self._left -= 1
            return None
        if not ORDERED:
            return None
        body = wire.pack((self.spin_ns, sorted(os.sched_getaffinity(0))))
        reply = self._connection.call(self._token, OPEN, body, (), deadline_ns)
        if reply.status == Code.E_DEAD_UNKNOWN:
            return self._open(deadline_ns)
        if reply.status in NO_CHANNEL:
            self._left = LATER
            return None
        opened = Opened(*wire.unpack(_good(reply)))
        try:
            parts = take_parts(self._connection.descriptors(opened.tag, wait=False))
        except (BlockingIOError, NoParts):  # it has told the wrong tag, or there is no room here
            self._left = LATER
            return None
        spin_ns = min(opened.spin_ns, self.spin_ns)
        self._channel = Channel(self._connection, opened.channel, parts, spin_ns, self._callee)
        return self._channel

    def unregister(self, token: bytes) -> None:
        """A capability of this task is gone."""
        if self._channel is not None:
            self._channel.unregister(token)

    def unregister_all(self) -> None:
        """Capabilities to memory may have been revoked."""
        if self._channel is not None:
            self._channel.unregister_all()

    def drop(self) -> None:
        """Let go of the channel."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


class Posted:
    """A request on its way through a channel."""

    def __init__(self, link: Link, channel: Channel, number: int) -> None:
        self._link = link
        self._channel = channel
        self._number = number

    def outcome(self, deadline_ns: int) -> Outcome | None:
        """The outcome; None when nobody has begun with it, nor will."""
        try:
            return self._channel.collect(self._number, deadline_ns)
        except Closed:
            return UNKNOWN if self._link.closed(self._channel, self._number) else None
        except Garbage:
            self._link.distrust(self._channel)
            return UNKNOWN

    def tell(self, teller: Callable[[], None]) -> Channel:
        """Have `teller` finished when there is an outcome; the channel by which it comes."""
        self._channel.tell(self._number, teller)
        return self._channel

    def forget(self) -> None:
        self._channel.forget(self._number)


def _good(reply: Any) -> bytes:
    if reply.status:
        raise Refused(Outcome(reply.status, reply.body))
    body: bytes = reply.body
    return body


UNKNOWN = Outcome(
    Code.E_DEAD_UNKNOWN, wire.pack(["the channel was closed while the server had the call", {}])
)
