"""step: the whole kernel as one function, `step(state, event) -> effects`.

Deterministic: time, randomness and Linux's word on a peer come in with the event. It never
raises on foreign bytes and never waits. Read it first, then ipc, caps, memory, lives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.interface import Operation, typed
from ukernel.broker import caps, ipc, lives, memory, report
from ukernel.broker.effects import (
    Arrived,
    Effect,
    Event,
    MakeFailed,
    Refill,
    Refused,
    Tick,
    Undeliverable,
)
from ukernel.broker.objects import Life, Refusal
from ukernel.broker.state import Request, State, answer, deny, fault, refuse

LOW_TOKENS = 64  # fewer left than this: the shell brings more before the next message

Handler = Callable[..., Any]

HANDLERS: dict[str, Handler] = {
    handler.__name__: handler
    for handler in (
        caps.mint, caps.copy, caps.move, caps.describe, caps.badges,
        ipc.delete, ipc.revoke,
        memory.notification, memory.signal, memory.take, memory.waitable,
        memory.region, memory.map, memory.lines, memory.dma_map,
        memory.device_fault,
        lives.ready, lives.slot, lives.device, lives.begin, lives.start, lives.end,
        lives.stop, lives.schedule, lives.kill,
        report.caps, report.slots, report.counters, report.trace,
    )
}  # fmt: skip

SYSCALLS: dict[int, tuple[Operation, Handler]] = {
    number: (operation, HANDLERS[operation.name])
    for number, operation in {**syscalls.Kernel.ops, **syscalls.Control.ops}.items()
}


def step(k: State, event: Event) -> list[Effect]:
    """Apply one event to the state in place; what the shell must do, in order."""
    k.out = []
    if isinstance(event, Arrived):
        arrived(k, event)
    else:
        REST[type(event)](k, event)
    return k.out


def arrived(k: State, e: Arrived) -> None:
    life = k.bound.get(e.rid)
    if life is None:
        lives.hello(k, e)
        return
    m = wire.decode(e.frame)
    if isinstance(m, str):
        fault(k, life, syscalls.EVENT_FAULT, m)
        return
    handler = OPS.get(m.op)
    if handler is None:
        fault(k, life, syscalls.EVENT_FAULT, f"operation {m.op} is not for tasks")
        return
    handler(k, life, m, e.now)


def system_call(k: State, life: Life, m: wire.Message, now: int) -> None:
    """SYS: look the operation up, check its arguments by its own declaration, do it, answer."""
    entry = SYSCALLS.get(m.opcode)
    args = _arguments(entry[0], m.body) if entry else f"system call {m.opcode} does not exist"
    if isinstance(args, str) or entry is None:
        fault(k, life, syscalls.EVENT_FAULT, str(args))
        refuse(k, life, m.seq, Code.E_PROTO, str(args))
        return
    request = Request(life, m.token, m.seq, now, m.deadline_ns)
    try:
        result = entry[1](k, request, *args)
    except Refusal as refusal:
        if refusal.code in (Code.E_DENIED, Code.E_REVOKED, Code.E_STALE_LIFE):
            deny(k, life, m.seq, refusal.code, f"{entry[0].name}: {refusal}")
        else:
            refuse(k, life, m.seq, refusal.code, f"{entry[0].name}: {refusal}")
        return
    if m.opcode not in UNANSWERED:
        answer(k, life, m.seq, Code.OK, wire.pack(result))


# The machine answers the first; nobody waits for the second.
UNANSWERED = {o.number for o in syscalls.Kernel.ops.values() if o.name == "dma_map" or o.posted}


def _arguments(operation: Operation, body: bytes) -> list[Any] | str:
    """The arguments of a system call, or what is wrong with them."""
    try:
        values = wire.unpack(body)
    except wire.Malformed as error:
        return f"{operation.name}: {error}"
    if not isinstance(values, list) or len(values) != len(operation.params):
        return f"{operation.name} takes {len(operation.params)} arguments"
    for param, value in zip(operation.params, values, strict=True):
        if not param.check(value):
            return f"{operation.name}: {param.name} is not what {operation.signature} says"
    return [typed(p.kind, v) for p, v in zip(operation.params, values, strict=True)]


def _hello_again(k: State, life: Life, m: wire.Message, now: int) -> None:
    fault(k, life, syscalls.EVENT_FAULT, "HELLO on a connection that is bound")


def _refused(k: State, e: Refused) -> None:
    life = k.bound.get(e.rid)
    if life is None:
        k.count("unbound")
    else:
        fault(k, life, syscalls.EVENT_FAULT, e.why)


def _tick(k: State, e: Tick) -> None:
    ipc.expire(k, e.now)


def _refill(k: State, e: Refill) -> None:
    k.tokens.extend(e.tokens)


def _undeliverable(k: State, e: Undeliverable) -> None:
    lives.cut_off(k, e.rid)


def _make_failed(k: State, e: MakeFailed) -> None:
    memory.lost(k, e.number)


OPS: dict[int, Callable[[State, Life, wire.Message, int], None]] = {
    wire.CALL: ipc.call,
    wire.SEND: ipc.call,
    wire.REPLY: ipc.reply,
    wire.RECV: ipc.receive,
    wire.SYS: system_call,
    wire.HELLO: _hello_again,
}

REST: dict[type, Callable[[State, Any], None]] = {
    Refused: _refused,
    Tick: _tick,
    Refill: _refill,
    Undeliverable: _undeliverable,
    MakeFailed: _make_failed,
}
