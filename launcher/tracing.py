"""tracing: a finished call as people read it. Pure: trace rows and interfaces in, text out.

    shell -> fs File.read(offset=0, into=4096 bytes) = 4096 212 us

The kernel keeps the head of each body, and the bodies are other people's bytes: what is cut off,
or is not what the interface says, is shown as far as it goes and never raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

from launcher.naming import Served, operations
from ukernel.abi.errors import Code
from ukernel.abi.interface import Lent, Operation, Param, checker, is_interface, typed
from ukernel.abi.syscalls import KERNEL_BADGE, TraceRow

CUT = "…"
LONGEST = 48  # characters of one value
DEVICE_MASK = 0xFFFF  # of a device capability's badge: its number; above it, the driver's epoch


class Decoded(NamedTuple):
    """A call in words."""

    number: int
    client: str
    server: str
    call: str
    outcome: str
    took_us: float

    def __str__(self) -> str:
        who = f"{self.client.partition('#')[0]} -> {self.server}"
        return f"{who} {self.call} = {self.outcome} {self.took_us:.0f} us"


class Decoder:
    """Knows what each server of a system speaks."""

    def __init__(self, serves: Served, devices: Sequence[str]) -> None:
        """`devices` in the order of the system file, which is how the kernel numbers them."""
        self.serves = serves
        self.devices = devices

    def decode(self, row: TraceRow) -> Decoded:
        found = operations(self.serves.get(row.server), row.opcode, row.badge)
        name, operation = next(iter(found.items()), ("", None))
        took_us = max(0, row.done_ns - row.queued_ns) / 1e3
        if operation is None:
            call = f"operation {row.opcode}({CUT if row.sent_size > 1 else ''})"
        else:
            call = f"{name}({_arguments(operation, row)})"
        outcome = _outcome(operation, row)
        return Decoded(row.number, row.client, self._server(row), call, outcome, took_us)

    def _server(self, row: TraceRow) -> str:
        number = row.badge & DEVICE_MASK
        epoch = row.badge & ~DEVICE_MASK
        if row.server in self.serves or row.badge == KERNEL_BADGE or not epoch:
            return row.server
        return self.devices[number] if number < len(self.devices) else row.server


def _arguments(operation: Operation, row: TraceRow) -> str:
    values = _values(row.sent_head)
    shown = [
        f"{param.name}={_argument(param, value)}"
        for param, value in zip(operation.params, values, strict=False)
    ]
    if len(shown) < len(operation.params):
        shown.append(f"{operation.params[len(shown)].name}={CUT}")
    return ", ".join(shown)


def _argument(param: Param, value: Any) -> str:
    if not param.check(value):
        return _short(value)
    if param.kind is Lent:
        _, offset, length = value
        return f"{length} bytes at {offset}" if offset else f"{length} bytes"
    if is_interface(param.kind):
        return f"cap[{param.kind.__name__}]"
    return _short(typed(param.kind, value))


def _outcome(operation: Operation | None, row: TraceRow) -> str:
    if row.status == Code.ANSWER:
        match _values(row.got_head):
            case [str(name), str(text)]:
                return f"{name}({_short(text)})"
            case [str(name)]:
                return f"{name}({CUT})"
        return Code.ANSWER.name
    if row.status != Code.OK:
        known = {code.value: code.name for code in Code}
        return known.get(row.status, f"status {row.status}")
    if operation is not None and operation.posted:
        return "posted"
    return _result(operation, row)


def _result(operation: Operation | None, row: TraceRow) -> str:
    kind = operation.result if operation is not None else None
    if kind is not None and is_interface(kind):
        return f"cap[{kind.__name__}]"
    if row.got_size == 0:
        return "ok"
    found = _unpacked(row.got_head)
    if not found:
        return f"{row.got_size} bytes{CUT}"
    (value,) = found
    if value is None:
        return "ok"
    return _short(typed(kind, value) if operation is not None and checker(kind)(value) else value)


def _values(head: bytes) -> list[Any]:
    """The items of a packed array, as many as are whole."""
    unpacker = _unpacker(head)
    values: list[Any] = []
    try:
        for _ in range(unpacker.read_array_header()):
            values.append(unpacker.unpack())
    except (msgpack.exceptions.UnpackException, ValueError, TypeError):
        return values
    return values


def _unpacked(head: bytes) -> list[Any]:
    """The one value in `head`, in a list; an empty list when it is cut."""
    try:
        return [_unpacker(head).unpack()]
    except (msgpack.exceptions.UnpackException, ValueError, TypeError):
        return []


def _unpacker(head: bytes) -> Any:
    unpacker = msgpack.Unpacker()
    unpacker.feed(head)
    return unpacker


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + CUT
