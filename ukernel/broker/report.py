"""report: the kernel's state for people. Numbers and names, never a token."""

from __future__ import annotations

from collections.abc import Iterator

from ukernel.abi.syscalls import CapRow, Count, SlotRow, TraceRow
from ukernel.broker.lives import need_control
from ukernel.broker.objects import Cap, Object, Slot
from ukernel.broker.state import Request, State

PAGE = 256  # rows in one answer


def caps(k: State, r: Request, start: int) -> list[CapRow]:
    need_control(k, r)
    rows = []
    for at, cap in enumerate(_tree(k)):
        if start <= at < start + PAGE:
            rows.append(_cap_row(cap))
    return rows


def _tree(k: State) -> Iterator[Cap]:
    endpoints = (s.endpoint for s in k.slots.values())
    made = (o for life in k.lives.values() for o in life.owned)
    kept = (o for s in k.slots.values() for o in s.regions.values())
    every: list[Object] = [
        k.control, *k.slots.values(), *endpoints, *k.devices.values(), *kept, *made
    ]  # fmt: skip
    for obj in every:
        todo = [obj.root] if obj.root is not None else []
        while todo:
            cap = todo.pop()
            yield cap
            todo.extend(reversed(cap.children))


def _cap_row(cap: Cap) -> CapRow:
    holder = cap.holder.name if cap.holder is not None else "kernel"
    parent = cap.parent.number if cap.parent is not None else 0
    return CapRow(cap.number, parent, holder, cap.obj.kind, cap.obj.name, cap.rights, cap.badge)


def slots(k: State, r: Request) -> list[SlotRow]:
    need_control(k, r)
    return [_slot_row(slot) for slot in k.slots.values()]


def _slot_row(s: Slot) -> SlotRow:
    life = s.life
    caps_held = regions = taken = pid = begun = hello = ready = first = last = 0
    if life is not None:
        caps_held, taken, pid = len(life.caps), len(life.taken), life.pid
        regions = len(life.owned)
        begun, hello, ready = life.begun_ns, life.hello_ns, life.ready_ns
        first, last = life.first_reply_ns, life.last_reply_ns
    queued = sum(c.number in c.client.sent for _, _, c in s.endpoint.queue)
    return SlotRow(
        s.name, s.number, s.state, pid, s.priority, caps_held, regions + len(s.regions),
        s.region_bytes, queued, taken, s.calls, s.replies, s.errors, s.faults,
        begun, hello, ready, first, last,
    )  # fmt: skip


def counters(k: State, r: Request) -> list[Count]:
    need_control(k, r)
    own = {
        "caps": len(k.caps),
        "lives": len(k.lives),
        "regions": len(k.regions),
        "calls_open": sum(len(life.sent) for life in k.lives.values()),
        "calls_done": k.traced,
    }
    return [Count(name, value) for name, value in {**own, **k.counters}.items()]


def trace(k: State, r: Request, start: int) -> list[TraceRow]:
    need_control(k, r)
    oldest = k.traced - len(k.trace)
    first = max(start, oldest)
    return [k.trace[at - oldest] for at in range(first, min(first + PAGE, k.traced))]
