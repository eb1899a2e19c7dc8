"""direct: the stub of a server that lives in the same process: its calls are method calls.

    disk = connect(Block, "disk")    # a `Direct`, when the launcher has placed disk here

Same signatures, same results, same exceptions as over the kernel; what differs is the price, and
that a bug in the callee ends the caller too. The right to call is still a capability: `connect`
asks for it, and the kernel sees it used once, when the caller is introduced to the callee. After
that a call costs the kernel nothing. Lent memory is handed over through the kernel at the first
loan of a region: from then on the callee holds a capability of its own, which works for whatever
it does with the memory (map it, let a device reach it). That a loan was taken back is noticed
where the callee uses that capability, and not at the call.

An object that the callee opens for the caller (a file) is called directly as well. It gets a
capability only when it is passed on to somebody outside.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ukernel.abi.errors import Answer, CallError, Deadlock, Protocol
from ukernel.abi.interface import (
    Interface,
    Lent,
    Operation,
    Param,
    interface_of,
    is_interface,
    is_plain,
)
from ukernel.lib.stub import Stub, bind, in_order

if TYPE_CHECKING:
    from ukernel.lib.household import Household
    from ukernel.lib.server import Server

LOANS = 256  # regions of a caller that a callee holds; beyond that the first is handed over again


class Line:
    """How one member reaches another. `root` is the caller's capability for the callee: empty when
    it has none, but was given an object of it; `client` is the caller as the kernel numbers it.
    """

    def __init__(
        self, house: Household, caller: Server, callee: Server, root: bytes, client: int
    ) -> None:
        self.house = house
        self.caller = caller
        self.callee = callee
        self.root = root
        self.client = client
        self._handed: OrderedDict[bytes, bytes] = OrderedDict()
        self.calls = 0  # that were made, and not told yet

    def tell(self) -> None:
        """How many calls were made."""
        if self.calls:
            self.caller.connection.tally.add_direct(self.calls)
            self.calls = 0

    def handed(self, token: bytes) -> bytes:
        """The callee's own capability for what the caller holds as `token`."""
        found = self._handed.get(token)
        if found is None:
            found = self._handed[token] = self.house.hand_over(self, token)
            if len(self._handed) > LOANS:
                self._handed.popitem(last=False)
        return found

    def passed(self, kind: type[Interface], value: Any) -> Any:
        """A stub of the caller as one of the callee."""
        if isinstance(value, Direct):
            return value._of(self.callee)
        if not isinstance(value, Stub):
            raise TypeError(f"only a capability can be passed, not {value!r}")
        return bind(kind, self.callee.connection, self.handed(value.token))

    def returned(self, kind: type[Interface], value: Any, timeout_s: float | None) -> Any:
        """What the callee gives back, a stub or an object of its own, as a stub of the caller."""
        if isinstance(value, Direct):
            return value._of(self.caller)
        if isinstance(value, Stub):
            token = self.house.fetch(self, cast(Interface, value))
            return bind(kind, self.caller.connection, token, timeout_s)
        self.callee.holders[value.badge] += 1
        return stub_class(cast(Any, kind))(self, value, timeout_s)


class Call:
    """A direct call under way: where the callee's answer goes, and what the caller waits for."""

    __slots__ = (
        "awaited", "deadline_ns", "done", "error", "forgotten", "stub", "teller", "value",
    )  # fmt: skip

    def __init__(self, stub: Direct) -> None:
        self.stub = stub
        self.deadline_ns = time.monotonic_ns() + stub.timeout_ns if stub.timeout_ns else 0
        self.awaited = False  # the loop runs until it is done
        self.done = False
        self.value: Any = None
        self.error: Answer | CallError | None = None
        self.teller: Callable[[], None] | None = None
        self.forgotten = False

    def reply(self, operation: Operation, number: int, value: Any) -> None:
        """The callee's result."""
        if not self.done:  # else it is too late
            self._end()
            if operation.plain_result or not is_interface(operation.result):
                self.value = list(value) if type(value) is list else value
            else:
                self.value = self.stub._line.returned(operation.result, value, self.stub._timeout_s)

    def refuse(self, number: int, error: Answer | CallError) -> None:
        """What the callee says in place of a result."""
        if not self.done:
            self._end()
            self.error = error

    @property
    def closed(self) -> bool:
        """Whether it has an outcome, or nobody wants one."""
        return self.done

    def _end(self) -> None:
        self.done = True
        if self.awaited:
            self.stub._line.house.loop.stir()  # who waits for it does so in there
        if self.teller is not None:
            self.tell(self.teller)

    def result(self) -> Any:
        """Wait for the outcome: a value, or an exception, as over the kernel."""
        line = self.stub._line
        if not self.done:
            self.awaited = True
            line.house.wait_for(self, line.caller)
        stats = line.caller.connection.stats
        if self.error is None:
            stats.ok += 1
            return self.value
        error = _as_seen(self.stub._interface, self.error)
        if isinstance(error, Answer):
            stats.ok += 1
        else:
            stats.failed += 1
        raise error

    def tell(self, teller: Callable[[], None]) -> None:
        """Have `teller` finished when there is an outcome (see `Server.when`)."""
        self.teller = teller
        if self.done:
            self.stub._line.caller.connection.finished.append(teller)

    def forget(self) -> None:
        """Nobody wants the outcome, whenever it comes."""
        self.done = self.forgotten = True
        self.teller = None


def _as_seen(interface: type[Interface], error: Answer | CallError) -> Answer | CallError:
    """An exception of the callee as its caller gets it: its own, and of a kind that it knows."""
    if isinstance(error, CallError):
        return type(error)(f"{error.code.name}: {error}", error.detail)
    if type(error) in interface.answers:
        return type(error)(str(error))
    return Protocol(f"{interface.__name__} has no answer {type(error).__name__!r}: {error}")


class Direct(Stub):
    """The caller's side of a server, or of an object of it, in the same process."""

    _interface: Any  # its class
    _known: dict[str, Known]

    def __init__(self, line: Line, target: Interface, timeout_s: float | None) -> None:
        self._line = line
        self._target = target
        self._token = b""
        root = b"" if target.badge else line.root
        super().__init__(line.caller.connection, root, timeout_s, None)

    @property
    def token(self) -> bytes:
        """A capability for it, made when somebody outside is to have it."""
        if not self._token:
            self._token = self._line.house.fetch(self._line, self._target)
        return self._token

    @token.setter
    def token(self, token: bytes) -> None:
        self._token = token

    def release(self) -> None:
        if self._token:
            super().release()
        if self._target.badge:
            self._line.house.let_go(self._line.callee, self._target.badge)

    def _of(self, member: Server) -> Any:
        """The same for another member; for the server of the object, the object itself."""
        callee = self._line.callee
        if member is callee:
            return self._target
        if self._target.badge:
            callee.holders[self._target.badge] += 1
        line = self._line.house.line(member, callee)
        return stub_class(self._interface)(line, self._target, self._timeout_s)

    @property
    def _timeout_s(self) -> float | None:
        return self.timeout_ns / 1e9 if self.timeout_ns else None

    def _by_kernel(self, timeout_s: float | None) -> Stub:
        return self

    def _begun(self, name: str, args: tuple[Any, ...]) -> Any:
        return self._start(self._known[name], args)

    def _start(self, known: Known, args: Sequence[Any]) -> Call:
        """Have the callee do it, or set about it."""
        call, line = Call(self), self._line
        line.calls += 1
        try:
            if line.callee.busy:
                raise Deadlock(line.house.cycle(line))
            values = [take(line, value) for take, value in zip(known.takers, args, strict=True)]
        except CallError as error:
            call.refuse(0, error)
        else:
            line.house.perform(line, self._target, known.operation, call, values)
        return call


# --- arguments -----------------------------------------------------------------------------------


Taker = Callable[[Line, Any], Any]


class Known(NamedTuple):
    """An operation, and how each argument becomes what the callee may believe in."""

    operation: Operation
    takers: tuple[Taker, ...]


def _taker(operation: Operation, param: Param) -> Taker:
    kind, check = param.kind, param.check
    wrong = f"{operation.name}: {param.name} is not what {operation.signature} says"

    def plain(line: Line, value: Any) -> Any:
        if type(value) in COPIED:
            value = COPIED[type(value)](value)  # what the callee keeps is its own
        if not check(value):
            raise Protocol(wrong)
        return value

    if kind is Lent:
        return lambda line, lent: Lent(line.handed(lent.token), lent.offset, lent.length)
    if is_interface(kind):
        return lambda line, value: line.passed(kind, value)
    return plain if is_plain(kind) else lambda line, value: value


COPIED: dict[type, Callable[[Any], Any]] = {
    bytearray: bytes,
    memoryview: bytes,
    list: list,
    tuple: list,
}


# --- stubs ---------------------------------------------------------------------------------------


@cache
def stub_class(interface: Any) -> Callable[..., Any]:
    """The class of an interface's direct stubs, made once."""
    declared = interface_of(interface)
    known = {
        o.name: Known(o, tuple(_taker(o, param) for param in o.params))
        for o in declared.ops.values()
    }
    more: dict[str, Any] = {"_interface": declared, "_known": known}
    methods = {name: _method(declared, known[name]) for name in known}
    return type(f"{declared.__name__}Direct", (Direct, declared), more | methods)


def _method(interface: type[Interface], known: Known) -> Callable[..., Any]:
    operation, count = known.operation, len(known.takers)
    posted = operation.posted

    def method(self: Direct, *args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != count:
            args = in_order(interface, operation, args, kwargs)
        call = self._start(known, args)
        return None if posted else call.result()

    method.__name__ = operation.name
    method.__doc__ = operation.summary
    return method
