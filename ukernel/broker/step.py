"""step: the whole kernel as one function, `step(state, event) -> effects`.

Deterministic: time, randomness and Linux's word on a peer come in with the event. It never
raises on foreign bytes and never waits. Read it first, then ipc, caps, memory, lives.
"""

from collections.abc import Callable
from typing import Any

from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.interface import Operation, typed
from ukernel.broker import caps, effects, ipc, lives, memory, report
from ukernel.broker.objects import Life
from ukernel.broker.state import Refusal, Request, State, answer, fault, notice, refuse

# More than one step needs: two for each of the MAX_CAPS of each call of a window of 255 (RECV).
LOW_TOKENS = 2048

HANDLERS: dict[str, Callable[..., Any]] = {handler.__name__: handler for handler in (
    caps.mint, caps.copy, caps.move, caps.describe, caps.badges,
    ipc.delete, ipc.revoke,
    memory.notification, memory.signal, memory.take, memory.waitable,
    memory.region, memory.map, memory.lines, memory.dma_map, memory.device_fault, memory.channel,
    lives.ready, lives.progress, lives.slot, lives.device, lives.endpoint, lives.prepare,
    lives.start, lives.begin, lives.end, lives.tell,
    report.caps, report.slots, report.counters, report.trace,
)}  # fmt: skip

SYSCALLS: dict[int, tuple[Operation, Callable[..., Any]]] = {
    number: (operation, HANDLERS[operation.name])
    for number, operation in {**syscalls.Kernel.ops, **syscalls.Control.ops}.items()
}


def step(k: State, event: effects.Event) -> list[effects.Effect]:
    """Apply one event to the state in place; what the shell must do, in order."""
    k.out = []
    match event:
        case effects.Arrived():
            arrived(k, event)
        case effects.Tick():
            ipc.expire(k, event.now)
        case effects.Refill():
            k.tokens.extend(event.tokens)
        case effects.Undeliverable():
            lives.cut_off(k, event.rid)
        case effects.MakeFailed() if event.number in k.memory:
            caps.destroy(k, k.memory[event.number])  # it never was
    for endpoint in k.unheld:
        notice(k, endpoint.slot.life, wire.NOTICE_UNHELD, k.unheld[endpoint])
    k.unheld.clear()
    return k.out


def arrived(k: State, e: effects.Arrived) -> None:
    life = k.bound.get(e.rid)
    if life is None:
        lives.hello(k, e)
        return
    life.heard_ns = e.now
    m = wire.decode(e.frame)
    if isinstance(m, str):
        fault(k, life, syscalls.EVENT_FAULT, m)
    elif (handler := OPS.get(m.op)) is not None:
        try:
            handler(k, life, m, e.now)
        except Refusal as refusal:
            refuse(k, life, m.seq, refusal)
    else:  # HELLO too: this connection is bound already
        fault(k, life, syscalls.EVENT_FAULT, f"operation {m.op} is not for tasks")


def system_call(k: State, life: Life, m: wire.Message, now: int) -> None:
    """SYS: look the operation up, check its arguments by its own declaration, do it, answer."""
    operation, handler = SYSCALLS.get(m.opcode, (None, None))
    if operation is None or handler is None:
        raise Refusal(Code.E_PROTO, f"there is no system call {m.opcode}")
    try:
        values = operation.arguments(m.body)
    except wire.Malformed as error:
        fault(k, life, syscalls.EVENT_FAULT, str(error))
        raise Refusal(Code.E_PROTO, str(error)) from None
    args = [typed(param.kind, value) for param, value in zip(operation.params, values, strict=True)]
    result = handler(k, Request(life, m.token, m.seq, now), *args)
    if m.opcode not in UNANSWERED:
        answer(k, life, m.seq, Code.OK, wire.pack(result))


# The machine answers the first; nobody waits for the second.
UNANSWERED = {o.number for o in syscalls.Kernel.ops.values() if o.name == "dma_map" or o.posted}

OPS: dict[int, Callable[[State, Life, wire.Message, int], None]] = {
    wire.CALL: ipc.call,
    wire.SEND: ipc.call,
    wire.REPLY: ipc.reply,
    wire.RECV: ipc.receive,
    wire.SYS: system_call,
}
