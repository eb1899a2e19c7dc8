"""state: everything the kernel holds, and the few ways in which it speaks to tasks."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import TraceRow
from ukernel.broker import effects
from ukernel.broker.objects import Call, Cap, Control, Device, Endpoint, Life, Memory, Slot

TRACE_LENGTH = 8192  # finished calls remembered
SENT_HEAD, GOT_HEAD = 96, 32  # bytes kept of a request and of a reply
LOUD_FAULTS = 16  # faults of one slot that the root task hears of one by one
DENIALS = frozenset((Code.E_DENIED, Code.E_REVOKED, Code.E_STALE_LIFE, Code.E_OVERLOAD))
Tokens = tuple[bytes, ...]


class Refusal(Exception):
    """A system call or a transfer that is not allowed; becomes the status of the reply."""

    def __init__(self, code: Code, text: str, **detail: object) -> None:
        super().__init__(text)
        self.code, self.detail = code, detail


class Request(NamedTuple):
    """A system call on its way: who asks, with which capability, and how to answer."""

    life: Life
    token: bytes
    seq: int
    now: int


@dataclass(slots=True)
class State:
    """The kernel's memory. `out` collects the effects of the step under way."""

    slots: dict[str, Slot] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    lives: dict[int, Life] = field(default_factory=dict)
    bound: dict[bytes, Life] = field(default_factory=dict)
    caps: dict[bytes, Cap] = field(default_factory=dict)
    memory: dict[int, Memory] = field(default_factory=dict)  # by the number of its descriptor
    control: Control = field(default_factory=lambda: Control("control"))
    root: Life = field(init=False)
    tokens: list[bytes] = field(default_factory=list)
    number: int = 0
    counters: Counter[str] = field(default_factory=Counter)
    trace: deque[TraceRow] = field(default_factory=lambda: deque(maxlen=TRACE_LENGTH))
    traced: int = 0
    unheld: dict[Endpoint, list[int]] = field(default_factory=dict)  # told at the end of the step
    out: list[effects.Effect] = field(default_factory=list)

    def fresh(self) -> int:
        """A number that names one thing and never another."""
        self.number += 1
        return self.number


def answer(k: State, life: Life, seq: int, status: int, body: bytes, caps: Tokens = ()) -> None:
    """Queue a REPLY for `life`, when it is there to read it."""
    if life.rid:
        frame = wire.encode(wire.REPLY, status=status, seq=seq, caps=caps, body=body)
        k.out.append(effects.Send(life.rid, frame))


def refuse(k: State, life: Life, seq: int, refusal: Refusal) -> None:
    """Queue a REPLY that says why not. Asking for what one may not have is held against one."""
    k.counters[refusal.code.name] += 1
    life.slot.errors += 1
    if refusal.code in DENIALS:
        fault(k, life, syscalls.EVENT_DENIED, str(refusal))
    answer(k, life, seq, refusal.code, wire.pack([f"{life.name}: {refusal}", refusal.detail]))


def notice(k: State, life: Life | None, kind: int, body: object) -> None:
    """Queue a NOTICE for `life`, when it is there to read it."""
    if life is not None and life.rid:
        frame = wire.encode(wire.NOTICE, opcode=kind, body=wire.pack(body))
        k.out.append(effects.Send(life.rid, frame))


def event(k: State, kind: str, life: Life, detail: str) -> None:
    """Tell the root task what happened to `life`."""
    notice(k, k.root, wire.NOTICE_EVENT, [kind, life.slot.name, life.number, detail[:256]])


def fault(k: State, life: Life, kind: str, detail: str) -> None:
    """`life` broke a rule: count it against it, and say so, but not without end."""
    k.counters[kind] += 1
    faults = life.slot.faults = life.slot.faults + 1
    if faults <= LOUD_FAULTS or faults & (faults - 1) == 0:
        event(k, kind, life, detail)


def remember(k: State, c: Call, status: int, body: bytes, done_ns: int) -> None:
    """Put a call that has had its outcome into the trace ring."""
    k.traced += 1
    if not k.trace.maxlen:
        return
    life = c.server.number if c.server is not None else 0
    row = (
        k.traced - 1, c.client.name, c.endpoint.name, life, c.opcode, c.badge, status,
        len(c.payload), len(body), c.queued_ns, c.taken_ns, done_ns,
        c.payload[:SENT_HEAD], body[:GOT_HEAD],
    )  # fmt: skip
    k.trace.append(tuple.__new__(TraceRow, row))  # TraceRow(*row) in half the time
