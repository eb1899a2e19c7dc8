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
from typing import Any, TypeVar, cast

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
from ukernel.lib import task
from ukernel.lib.connection import Connection, error_of

T = TypeVar("T", bound=Interface)
TIMEOUT_S = 30.0
SYSTEM_CALLS = {operation.name: operation for operation in (Kernel.ops | Control.ops).values()}
OK, DEAD_UNKNOWN = int(Code.OK), int(Code.E_DEAD_UNKNOWN)


class Stub:
    """The client side of one capability; mixed with an Interface by `stub_class`."""

    def __init__(self, connection: Connection, token: bytes, timeout_s: float | None) -> None:
        self.connection = connection
        self.token = token
        self.timeout_ns = int(timeout_s * 1e9) if timeout_s is not None else 0

    def release(self) -> None:
        """Delete the capability: the server is told when nobody holds it any more."""
        kernel(self.connection, self.token).delete()


def connect(interface: type[T], name: str, *, timeout_s: float | None = TIMEOUT_S) -> T:
    """A stub of the server that the system file lets this task call as `name`.

    Raises Denied when it does not, Protocol when the server speaks another interface.
    `timeout_s` bounds every call; None waits for ever.
    """
    connection = task.connection()
    token = connection.capability(name)
    found = kernel(connection, token).describe()
    if found.fingerprint and found.fingerprint != fingerprint(interface):
        raise Protocol(
            f"{connection.slot} calls {name} as {interface.__name__} ({fingerprint(interface)}), "
            f"but {name} serves {found.fingerprint}: use the same version of the interface"
        )
    return bind(interface, connection, token, timeout_s)


def bind(
    interface: type[T], connection: Connection, token: bytes, timeout_s: float | None = TIMEOUT_S
) -> T:
    """A stub on a capability that is already held."""
    return cast(T, stub_class(cast(Any, interface))(connection, token, timeout_s))


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


@cache
def stub_class(interface: Any) -> Callable[..., Any]:
    """The class of an interface's stubs, made once."""
    methods = {o.name: _method(interface, o) for o in interface_of(interface).ops.values()}
    return type(f"{interface.__name__}Stub", (Stub, interface), methods)


def _method(interface: type[Interface], operation: Operation) -> Callable[..., Any]:
    """The stub of one operation: pack, call, and turn the outcome into a result or an exception."""
    names = [p.name for p in operation.params]
    special = any(p.kind is Lent or is_interface(p.kind) for p in operation.params)
    number, idempotent, count = operation.number, operation.idempotent, len(names)
    system = interface.of_kernel

    def method(self: Stub, *args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != count:
            args += tuple(kwargs.pop(name) for name in names[len(args) :] if name in kwargs)
            if kwargs or len(args) != count:
                raise TypeError(f"{interface.__name__}.{operation.signature}")
        caps, body = _pack_args(operation, args) if special else ((), wire.pack(args))
        connection = self.connection
        if operation.posted:
            connection.send(self.token, number, body, caps, system)
            return None
        deadline = time.monotonic_ns() + self.timeout_ns if self.timeout_ns else 0
        while True:
            reply = connection.call(self.token, number, body, caps, deadline, system)
            if reply.status == DEAD_UNKNOWN and idempotent:
                connection.stats.retried += 1
                continue
            return _outcome(interface, operation, self, reply)

    method.__name__ = operation.name
    method.__doc__ = operation.summary
    return method


def _pack_args(operation: Operation, args: tuple[Any, ...]) -> tuple[tuple[bytes, ...], bytes]:
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
    interface: type[Interface], operation: Operation, stub: Stub, reply: wire.Message
) -> Any:
    stats = stub.connection.stats
    if reply.status == OK:
        stats.ok += 1
        if operation.plain_result:
            return wire.unpack(reply.body)
        if is_interface(operation.result):
            timeout_s = stub.timeout_ns / 1e9 if stub.timeout_ns else None
            return bind(operation.result, stub.connection, reply.caps[0], timeout_s)
        return typed(operation.result, wire.unpack(reply.body))
    if reply.status == Code.ANSWER:
        stats.ok += 1
        raise answer_of(interface, reply)
    if reply.status == DEAD_UNKNOWN:
        stats.unknown += 1
    else:
        stats.failed += 1
    raise error_of(reply)


def answer_of(interface: type[Interface], reply: wire.Message) -> Answer | CallError:
    """The exception that an ANSWER stands for, by its name in `answers`."""
    name, text = wire.unpack(reply.body)
    for kind in interface.answers:
        if kind.__name__ == name:
            return kind(text)
    return Protocol(f"{interface.__name__} has no answer {name!r}: {text}")


stub_class(cast(Any, Kernel))  # made once, before a zygote forks, rather than in every task
