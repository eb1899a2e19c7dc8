"""state: everything the kernel holds, and the few things that every part of it does."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import TraceRow
from ukernel.broker.effects import Effect, Send
from ukernel.broker.objects import Call, Cap, ControlObject, Device, Life, Region, Slot

TRACE_LENGTH = 8192  # finished calls remembered
TRACE_HEAD = 96  # bytes kept of a request
REPLY_HEAD = 32  # bytes kept of a reply
LOUD_FAULTS = 16  # faults of one life that the root task hears of one by one


class Request(NamedTuple):
    """A system call on its way: who asks, with which capability, and how to answer."""

    life: Life
    token: bytes
    seq: int
    now: int
    deadline_ns: int


@dataclass(slots=True)
class State:
    """The kernel's memory. `out` collects the effects of the step under way."""

    slots: dict[str, Slot] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    lives: dict[int, Life] = field(default_factory=dict)
    bound: dict[bytes, Life] = field(default_factory=dict)
    caps: dict[bytes, Cap] = field(default_factory=dict)
    regions: dict[int, Region] = field(default_factory=dict)
    control: ControlObject = field(default_factory=ControlObject)
    root: Life | None = None
    tokens: list[bytes] = field(default_factory=list)
    number: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    trace: deque[TraceRow] = field(default_factory=lambda: deque(maxlen=TRACE_LENGTH))
    traced: int = 0
    out: list[Effect] = field(default_factory=list)

    def fresh(self) -> int:
        """A number that names one thing and never another."""
        self.number += 1
        return self.number

    def token(self) -> bytes:
        """128 random bits; the shell keeps the store filled."""
        return self.tokens.pop()

    def count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1


def answer(
    k: State, life: Life, seq: int, status: int, body: bytes, caps: tuple[bytes, ...] = ()
) -> None:
    """Queue a REPLY for `life`."""
    frame = wire.encode(wire.REPLY, status=status, seq=seq, caps=caps, body=body)
    k.out.append(Send(life.rid, frame))


def refuse(k: State, life: Life, seq: int, code: Code, text: str, **detail: object) -> None:
    """Queue a REPLY that says why not."""
    life.slot.errors += 1
    answer(k, life, seq, code, wire.pack([text, detail]))


def notice(k: State, life: Life, kind: int, body: object) -> None:
    """Queue a NOTICE for `life`, when it is there to read it."""
    if life.rid:
        k.out.append(Send(life.rid, wire.encode(wire.NOTICE, opcode=kind, body=wire.pack(body))))


def event(k: State, kind: str, life: Life, detail: str) -> None:
    """Tell the root task what happened to `life`."""
    if k.root is not None:
        notice(k, k.root, wire.NOTICE_EVENT, [kind, life.slot.name, life.number, detail])


def fault(k: State, life: Life, kind: str, detail: str) -> None:
    """`life` broke a rule: count it against it, and say so, but not without end."""
    k.count(kind)
    life.slot.faults += 1
    if life.slot.faults <= LOUD_FAULTS or life.slot.faults & (life.slot.faults - 1) == 0:
        event(k, kind, life, detail)


def deny(k: State, life: Life, seq: int, code: Code, text: str) -> None:
    """Refuse for want of a capability, and count it as a denial."""
    fault(k, life, syscalls.EVENT_DENIED, text)
    refuse(k, life, seq, code, f"{life.name}: {text}")


def remember(k: State, call: Call, status: int, body: bytes, done_ns: int) -> None:
    """Put a call that has had its outcome into the trace ring."""
    server = call.server
    k.trace.append(
        TraceRow(
            k.traced,
            call.client.name,
            call.endpoint.name,
            server.number if server is not None else 0,
            call.opcode,
            call.badge,
            status,
            len(call.payload),
            len(body),
            call.queued_ns,
            call.taken_ns,
            done_ns,
            call.payload[:TRACE_HEAD],
            body[:REPLY_HEAD],
        )
    )
    k.traced += 1
