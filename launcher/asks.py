"""asks: what a person wants to know of a server. The launcher asks it and never waits for it.

A call is posted with a deadline; its outcome is taken between the events of `System.pump`. So a
server that hangs costs the person who asked, and nobody else.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from launcher.board import MACHINE
from launcher.system import System
from ukernel.abi import wire
from ukernel.abi.captures import Captures
from ukernel.abi.errors import CallError, Code, DeadlinePassed, Protocol
from ukernel.abi.interface import Interface, Operation, checker, typed
from ukernel.abi.network import Network
from ukernel.abi.vm import VirtualMachine
from ukernel.lib.connection import error_of
from ukernel.lib.stub import Stub, answer_of, pack_args


class Called(NamedTuple):
    """An operation of a server."""

    server: str
    interface: type[Interface]
    operation: Operation


# By what a server serves: what may be asked of it by anybody who may ask at all. None of it changes
# anything, but for DEEDS and what is typed.
ASKABLE: dict[str, tuple[type[Interface], tuple[str, ...]]] = {
    "net": (Network, ("interfaces", "sockets", "neighbours", "resolve", "ping")),
    "vm": (VirtualMachine, ("status", "output", "enter", "pause", "resume", "discard")),
    MACHINE: (Captures, ("cards",)),  # which serves this beside what its drivers see
}
DEEDS = ("pause", "resume", "discard")  # that are worth an event


def askable(system: System, server: str, name: str) -> Called:
    """The operation `name` of a server, if it may be asked now. Raises LookupError, with what
    may."""
    spec = system.task(server).spec
    serves = MACHINE if server == MACHINE else spec and spec.serves
    interface, allowed = ASKABLE.get(serves or "", (Interface, ()))
    if name not in allowed:
        raise LookupError(f"{server} cannot be asked {name!r}, only {', '.join(allowed) or None}")
    if name in DEEDS and server in system.moving:
        raise LookupError(f"{server} is being copied or moved: {name} it when that is over")
    return called(server, interface, name)


def called(server: str, interface: type[Interface], name: str) -> Called:
    """The operation `name` of an interface, at a server."""
    operation = next(each for each in interface.ops.values() if each.name == name)
    return Called(server, interface, operation)


def from_json(operation: Operation, args: list[Any]) -> list[Any]:
    """Arguments as the operation takes them: bytes come as hex, as they do in results."""
    kinds = [param.kind for param in operation.params]
    if len(kinds) != len(args):
        return args
    return [_bytes(arg) if kind is bytes else arg for kind, arg in zip(kinds, args, strict=True)]


def _bytes(arg: Any) -> Any:
    try:
        return bytes.fromhex(arg)
    except (TypeError, ValueError):
        return arg  # which is no argument, and refused as such


def obstacle(operation: Operation, args: list[Any]) -> str:
    """Why these are no arguments of the operation; empty when they are. `args` is anything."""
    checks, why = operation.checks, f"{args!r:.80} are no arguments of {operation.signature}"
    if len(args) != len(checks) or not all(c(a) for c, a in zip(checks, args, strict=True)):
        return why
    try:
        wire.pack(args)
    except ValueError:  # half of a surrogate pair is no text
        return why
    return ""


class Ask:
    """One call on its way. When the server's life ends with it, it is made again if that may be,
    until the deadline."""

    def __init__(self, system: System, what: Called, args: list[Any], patience_s: float) -> None:
        """There must be no `obstacle` to the arguments."""
        stub = system.reach(what.interface, what.server)
        assert isinstance(stub, Stub)
        self._connection, self._token = stub.connection, stub.token
        self._called, self._patience_s = what, patience_s
        self._caps, self._body = pack_args(what.operation, tuple(args))
        self._deadline_ns = time.monotonic_ns() + int(patience_s * 1e9)
        self._number = self._post()

    def _post(self) -> int:
        opcode = self._called.operation.number
        return self._connection.post(self._token, opcode, self._body, self._caps, self._deadline_ns)

    def outcome(self) -> Any:
        """`{"result": value}` or `{"answer": name, "text": text}`; None while there is none.

        Raises CallError when there will be neither.
        """
        server, _, operation = self._called
        reply = self._connection.collected(self._number)
        if reply is None:
            return None
        if reply.status == Code.E_DEAD_UNKNOWN and operation.idempotent:
            self._number = self._post()
            return None
        if reply.status == Code.E_DEADLINE:
            raise DeadlinePassed(f"{server} has not answered in {self._patience_s:g} s")
        if reply.status > Code.ANSWER:
            raise error_of(reply)
        try:
            return self._told(reply)
        except (wire.Malformed, TypeError, ValueError):
            raise Protocol(f"{server} answered what {operation.signature} never is") from None

    def _told(self, reply: wire.Message) -> dict[str, Any]:
        """An answer in plain JSON. Raises whatever there is to raise: a server may say anything."""
        operation = self._called.operation
        if reply.status == Code.ANSWER:
            refusal = answer_of(self._called.interface, reply)
            if isinstance(refusal, CallError):  # one that the interface does not have
                raise refusal
            return {"answer": type(refusal).__name__, "text": str(refusal)}
        value = wire.unpack(reply.body)
        if not checker(operation.result)(value):
            raise ValueError
        return {"result": plain(typed(operation.result, value))}

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        self._connection.forget(self._number)


def plain(value: Any) -> Any:
    """A result as JSON has it: records by their names, bytes as hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(each) for name, each in value._asdict().items()}
    return [plain(each) for each in value] if isinstance(value, list) else value
