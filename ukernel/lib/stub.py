"""stub: an Interface class, with every method turned into a call on a capability.

    disk = connect(Block, "disk")
    disk.capacity()

A call that ends in E_DEAD_UNKNOWN is repeated when its operation is idempotent, until the
deadline; any other outcome but a result is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any, Generic, ParamSpec, TypeVar, cast

from ukernel.abi import wire
from ukernel.abi.errors import Answer, CallError, Code, Protocol
from ukernel.abi.interface import (
    Interface,
    Lent,
    Operation,
    fingerprint,
    interface_of,
    is_interface,
    typed,
)
from ukernel.abi.syscalls import Control, Kernel
from ukernel.abi.tally import STRANGER, Callee
from ukernel.lib import task
from ukernel.lib.channel import Channel
from ukernel.lib.connection import Connection, Outcome, error_of
from ukernel.lib.link import Link, Posted

T = TypeVar("T", bound=Interface)
R = TypeVar("R")
P = ParamSpec("P")
TIMEOUT_S = 30.0
SYSTEM_CALLS = {operation.name: operation for operation in (Kernel.ops | Control.ops).values()}
REVOKES = ("revoke",)
OK, DEAD_UNKNOWN = int(Code.OK), int(Code.E_DEAD_UNKNOWN)
NOT_BEGUN = Outcome(Code.E_DEAD_NOTRUN, wire.pack(["the channel was closed before", {}]))
ENDS = ("delete", "move")  # system calls after which a token leads nowhere new


class Stub:
    """The client side of one capability; mixed with an Interface by `stub_class`."""

    def __init__(
        self,
        connection: Connection,
        token: bytes,
        timeout_s: float | None,
        link: Link | None,
        callee: Callee = STRANGER,
    ) -> None:
        self.connection = connection
        self.token = token
        self.timeout_ns = int(timeout_s * 1e9) if timeout_s is not None else 0
        self.link = link
        self._callee = callee

    def release(self) -> None:
        """Delete the capability: the server is told when nobody holds it any more. Does not wait:
        what is asked of the kernel later finds it deleted."""
        connection = self.connection
        connection.gone(self.token)
        connection.look()  # for the answers of earlier ones, which nobody else may take
        delete, body = SYSTEM_CALLS["delete"].number, wire.pack(())
        connection.post(self.token, delete, body, system=True, wanted=False)

    def _by_kernel(self, timeout_s: float | None) -> Stub:
        """See `by_kernel`."""
        return type(self)(self.connection, self.token, timeout_s, None, self._callee)

    def _begun(self, name: str, args: tuple[Any, ...]) -> UnderWay[Any]:
        """A call of the method `name`, under way."""
        return UnderWay(self, name, args)


def connect(interface: type[T], name: str, *, timeout_s: float | None = TIMEOUT_S) -> T:
    """A stub of the server that the system file lets this task call as `name`.

    Raises Denied when it does not, Protocol when the server speaks another interface.
    `timeout_s` bounds every call; None waits for ever.
    """
    connection = task.connection()
    token = connection.capability(name)
    if task.household is not None and (here := task.household.connect(interface, name, timeout_s)):
        return here
    found = kernel(connection, token).describe()
    if found.fingerprint and found.fingerprint != fingerprint(interface):
        raise Protocol(
            f"{connection.slot} calls {name} as {interface.__name__} ({fingerprint(interface)}), "
            f"but {name} serves {found.fingerprint}: use the same version of the interface"
        )
    spin_ns = connection.info.channels.get(name)
    callee = Callee(name, found.badge)
    link = None if spin_ns is None else _link(connection, token, spin_ns, callee)
    return bind(interface, connection, token, timeout_s, link, callee)


def bind(
    interface: type[T],
    connection: Connection,
    token: bytes,
    timeout_s: float | None = TIMEOUT_S,
    link: Link | None = None,
    callee: Callee = STRANGER,
) -> T:
    """A stub on a capability that is already held."""
    return cast(T, stub_class(cast(Any, interface))(connection, token, timeout_s, link, callee))


def _link(
    connection: Connection, token: bytes, spin_ns: int, callee: Callee, seldom: bool = False
) -> Link:
    """The link of a capability, the same for all its stubs."""
    if token not in connection.links:
        connection.links[token] = Link(connection, token, spin_ns, seldom, callee)
    return connection.links[token]


def kernel(connection: Connection, token: bytes = wire.NO_TOKEN) -> Kernel:
    """The system calls that act on the capability `token`."""
    return bind(Kernel, connection, token, None)


def together(connection: Connection, *calls: tuple[bytes, str, tuple[Any, ...]]) -> list[Any]:
    """System calls `(token, name, arguments)` that need not wait for each other: their results.

    Raises the first error among them, when all have had their outcome.
    """
    operations = [SYSTEM_CALLS[name] for _, name, _ in calls]
    numbers = [
        connection.post(token, operation.number, wire.pack(args), system=True)
        for operation, (token, _, args) in zip(operations, calls, strict=True)
    ]
    results = []
    for operation, reply in zip(operations, connection.collect_all(numbers), strict=True):
        if reply.status:
            raise error_of(reply)
        results.append(typed(operation.result, wire.unpack(reply.body)))
    return results


def release(handle: Interface) -> None:
    """Give up the capability behind a stub: this is how a file is closed."""
    if isinstance(handle, Stub):
        handle.release()


def by_kernel(stub: T, timeout_s: float | None = None) -> T:
    """A stub of the same without a channel: its calls wait at the kernel while nobody serves them,
    and the caller does not. Of a server in the same process, itself."""
    return cast(T, stub._by_kernel(timeout_s)) if isinstance(stub, Stub) else stub


@cache
def stub_class(interface: Any) -> Callable[..., Any]:
    """The class of an interface's stubs, made once."""
    methods = {o.name: _method(interface, o) for o in interface_of(interface).ops.values()}
    return type(f"{interface.__name__}Stub", (Stub, interface), methods)


def _method(interface: type[Interface], operation: Operation) -> Callable[..., Any]:
    """The stub of one operation: pack, call, and turn the outcome into a result or an exception."""
    special = operation.lends or any(is_interface(p.kind) for p in operation.params)
    number, idempotent, count = operation.number, operation.idempotent, len(operation.params)
    system, by_kernel = interface.of_kernel, operation.passes or operation.posted
    ends, revokes = (system and operation.name in ops for ops in (ENDS, REVOKES))

    def method(self: Stub, *args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != count:
            args = in_order(interface, operation, args, kwargs)
        connection, link = self.connection, self.link
        deadline = time.monotonic_ns() + self.timeout_ns if self.timeout_ns else 0
        while link is not None and not by_kernel:
            outcome = link.call(operation, args, deadline)
            if outcome is None:
                break
            if outcome.status == DEAD_UNKNOWN and idempotent:
                connection.stats.retried += 1
                continue
            return _outcome(interface, operation, self, outcome)
        caps, body = pack_args(operation, args) if special else ((), wire.pack(args))
        if operation.posted:
            connection.send(self.token, number, body, caps, system)
            return None
        if ends:
            connection.gone(self.token)
        elif revokes:
            connection.revoking()
        while True:
            reply = connection.call(self.token, number, body, caps, deadline, system)
            if reply.status == DEAD_UNKNOWN and idempotent:
                connection.stats.retried += 1
                continue
            return _outcome(interface, operation, self, reply)

    method.__name__ = operation.name
    method.__doc__ = operation.summary
    return method


def in_order(
    interface: type[Interface], operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """All arguments by position. Raises TypeError when they are not those of the operation."""
    names = [param.name for param in operation.params]
    args += tuple(kwargs.pop(name) for name in names[len(args) :] if name in kwargs)
    if kwargs or len(args) != len(names):
        raise TypeError(f"{interface.__name__}.{operation.signature}")
    return args


class UnderWay(Generic[R]):
    """A call that was begun. Its outcome is for `result`, or for nobody after `forget`."""

    def __init__(self, stub: Stub, name: str, args: tuple[Any, ...]) -> None:
        self._stub = stub
        self._interface = interface_of(cast(Any, type(stub)))
        operations = self._interface.ops.values()
        self._operation = next(o for o in operations if o.name == name)
        self._args = args
        self._deadline_ns = time.monotonic_ns() + stub.timeout_ns if stub.timeout_ns else 0
        self._posted: Posted | None = None
        self._told = False
        self.forgotten = False
        if stub.link is not None and not self._operation.passes:
            self._posted = stub.link.post(self._operation, args, self._deadline_ns)
        if self._posted is None:
            caps, body = pack_args(self._operation, args)
            self._number = stub.connection.post(
                stub.token, self._operation.number, body, caps, self._deadline_ns
            )

    def result(self) -> R:
        """What the call returns, or raises; waits for it. A call whose outcome was to be told is
        not made again by itself."""
        outcome = self._outcome()
        if self._told:
            outcome = outcome or NOT_BEGUN
        unknown = outcome is not None and outcome.status == DEAD_UNKNOWN
        if outcome is None or (unknown and self._operation.idempotent and not self._told):
            self._stub.connection.stats.retried += unknown
            again: R = getattr(self._stub, self._operation.name)(*self._args)
            return again
        result: R = _outcome(self._interface, self._operation, self._stub, outcome)
        return result

    def _outcome(self) -> Outcome | wire.Message | None:
        if self._posted is not None:
            return self._posted.outcome(self._deadline_ns)
        connection, callee = self._stub.connection, self._stub._callee
        wait = connection.meanwhile or connection.awaited
        return wait(self._number, callee, self._operation.number)

    def tell(self, teller: Callable[[], None]) -> Channel | None:
        """Have `teller` finished when there is an outcome (see `Server.when`); the channel by
        which it comes, if by one."""
        self._told = True
        if self._posted is not None:
            return self._posted.tell(teller)
        self._stub.connection.tell(self._number, teller)
        return None

    def forget(self) -> None:
        """Nobody wants the outcome, whenever it comes."""
        self.forgotten = True
        if self._posted is not None:
            self._posted.forget()
        else:
            self._stub.connection.forget(self._number)


def begin(method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> UnderWay[R]:
    """Begin a call of a stub's method and go on. Arguments by position only."""
    if kwargs:
        raise TypeError("arguments of a call that is begun go by position")
    stub = cast(Any, method).__self__
    under_way: UnderWay[R] = stub._begun(method.__name__, args)
    return under_way


def pack_args(operation: Operation, args: tuple[Any, ...]) -> tuple[tuple[bytes, ...], bytes]:
    """Capabilities go beside the body; the body has their place in the list."""
    tokens: list[bytes] = []
    plain: list[Any] = []
    for param, value in zip(operation.params, args, strict=True):
        if param.kind is Lent:
            plain.append((len(tokens), value.offset, value.length))
            tokens.append(value.token)
        elif is_interface(param.kind):
            if not isinstance(value, Stub):
                raise TypeError(f"{param.name}: only a capability can be passed, not {value!r}")
            plain.append(len(tokens))
            tokens.append(value.token)
        else:
            plain.append(value)
    return tuple(tokens), wire.pack(plain)


def _outcome(
    interface: type[Interface], operation: Operation, stub: Stub, reply: wire.Message | Outcome
) -> Any:
    stats = stub.connection.stats
    if reply.status == OK:
        stats.ok += 1
        if operation.plain_result:
            return wire.unpack(reply.body)
        if is_interface(operation.result):
            timeout_s = stub.timeout_ns / 1e9 if stub.timeout_ns else None
            token, callee = reply.caps[0], stub._callee.handed_out()
            link = stub.link and _link(stub.connection, token, stub.link.spin_ns, callee, True)
            return bind(operation.result, stub.connection, token, timeout_s, link, callee)
        return typed(operation.result, wire.unpack(reply.body))
    if reply.status == Code.ANSWER:
        stats.ok += 1
        raise answer_of(interface, reply)
    if reply.status == DEAD_UNKNOWN:
        stats.unknown += 1
    else:
        stats.failed += 1
    raise error_of(reply)


def answer_of(interface: type[Interface], reply: wire.Message | Outcome) -> Answer | CallError:
    """The exception that an ANSWER stands for, by its name in `answers`."""
    name, text = wire.unpack(reply.body)
    for kind in interface.answers:
        if kind.__name__ == name:
            return kind(text)
    return Protocol(f"{interface.__name__} has no answer {name!r}: {text}")


stub_class(cast(Any, Kernel))  # made once, before a zygote forks, rather than in every task
