"""way: where requests come from, and where their outcomes go: back the way they came.

By the kernel, as here; through a channel (`door`); or from within the process (`direct`).
"""

from __future__ import annotations

import time
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

from ukernel.abi import wire
from ukernel.abi.errors import Answer, CallError
from ukernel.abi.errors import Protocol as BadCall
from ukernel.abi.interface import Operation, is_interface
from ukernel.abi.syscalls import CALL, GRANT
from ukernel.lib.connection import Connection, refusal
from ukernel.lib.stub import Stub, kernel

T = TypeVar("T")


class Caller(NamedTuple):
    """Who made the call that is being served, as the kernel stamped it."""

    badge: int
    client: int
    deadline_ns: int


class Way(Protocol):
    """Where requests come from, and where their outcomes go."""

    @property
    def closed(self) -> bool:
        """Whether it is known that nobody is there any more to take an outcome."""

    def reply(self, operation: Operation, number: int, value: Any) -> None:
        """The result of request `number`."""

    def refuse(self, number: int, error: Answer | CallError) -> None:
        """What there is in place of a result."""


class Current(NamedTuple):
    """The call under way."""

    way: Way
    operation: Operation
    number: int
    caller: Caller


class Pending(Generic[T]):
    """A reply that comes later. Return `pending.later` from the method; then `answer` or `fail`."""

    def __init__(self, current: Current) -> None:
        self._current = current

    @property
    def later(self) -> T:
        """What the method returns in place of the result."""
        return cast(T, self)

    @property
    def wanted(self) -> bool:
        """Whether anybody may still wait for it, as far as can be seen from here."""
        way, _, _, caller = self._current
        return not way.closed and not 0 < caller.deadline_ns <= time.monotonic_ns()

    def answer(self, value: T) -> None:
        way, operation, number, _ = self._current
        way.reply(operation, number, value)

    def fail(self, error: Answer | CallError) -> None:
        self._current.way.refuse(self._current.number, error)


class KernelWay:
    """Requests that the kernel delivers, and their outcomes. It drops those of dead clients."""

    closed = False

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def reply(self, operation: Operation, number: int, value: Any) -> None:
        """The result of a request."""
        if not operation.plain_result and is_interface(operation.result):
            caps, flags, value = self._handle_for(value)
            body = wire.pack(value)
            frame = wire.encode(wire.REPLY, flags=flags, seq=number, caps=caps, body=body)
        else:
            frame = wire.encode(wire.REPLY, seq=number, body=wire.pack(value))
        try:
            self.connection.transmit(frame)
        except BadCall as error:  # the caller asked for too much; that must not kill anybody
            self.refuse(number, error)

    def _handle_for(self, obj: Any) -> tuple[tuple[bytes, ...], int, int]:
        """A capability for a result: an own object's is minted and leaves us, another is shared."""
        if isinstance(obj, Stub):
            return (obj.token,), 0, 0
        own = kernel(self.connection, self.connection.named["self"])
        minted = own.mint(CALL | GRANT, obj.badge)
        return (minted,), wire.MOVE, 0

    def refuse(self, number: int, error: Answer | CallError) -> None:
        """What there is in place of a result."""
        status, body = refusal(error)
        self.connection.transmit(wire.encode(wire.REPLY, status=status, seq=number, body=body))


class Nobody:
    """Where the outcome of a one-way message goes."""

    closed = True

    def reply(self, operation: Operation, number: int, value: Any) -> None:
        pass

    def refuse(self, number: int, error: Answer | CallError) -> None:
        pass


NOBODY = Nobody()
