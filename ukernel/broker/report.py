"""report: the kernel's state for people. Numbers and names, never a token."""

from itertools import chain, islice

from ukernel.abi.syscalls import CapRow, Count, SlotRow, TraceRow
from ukernel.broker.caps import held, subtree
from ukernel.broker.objects import Cap, Control, Life, Slot
from ukernel.broker.state import Request, State

PAGE = 256  # rows in one answer
IDLE = ("", 0, 0, 0)  # who waits for nobody


def caps(k: State, r: Request, start: int) -> list[CapRow]:
    held(k, r, Control)
    ends = (slot.endpoint for slot in k.slots.values())
    every = (k.control, *k.slots.values(), *ends, *k.devices.values(), *k.memory.values())
    trees = chain.from_iterable(subtree(obj.root) for obj in every)
    return [_cap_row(cap) for cap in islice(trees, start, start + PAGE)]


def _cap_row(cap: Cap) -> CapRow:
    holder = cap.holder.name if cap.holder else "kernel"
    parent, obj = cap.parent.number if cap.parent else 0, cap.obj
    return CapRow(cap.number, parent, holder, obj.kind, obj.name, cap.rights, cap.badge)


def slots(k: State, r: Request) -> list[SlotRow]:
    held(k, r, Control)
    return [_slot_row(slot) for slot in k.slots.values()]


def _slot_row(s: Slot) -> SlotRow:
    life = s.life or Life(s, 0, b"")
    waits, oldest = life.waiting, next(iter(life.taken.values()), None)
    return SlotRow(
        s.name, s.number, s.state, life.pid, s.priority, len(life.caps),
        len(life.owned) + len(s.regions), s.region_bytes, len(s.endpoint.queue), len(life.taken),
        s.calls, s.replies, s.errors, s.faults, life.begun_ns, life.hello_ns, life.ready_ns,
        life.first_reply_ns, life.heard_ns, life.progress_ns, oldest.taken_ns if oldest else 0,
        *((waits.endpoint.name, waits.opcode, waits.badge, waits.queued_ns) if waits else IDLE),
        s.waited_ns,
    )  # fmt: skip


def counters(k: State, r: Request) -> list[Count]:
    held(k, r, Control)
    lives = [s.life for s in k.slots.values() if s.life is not None]
    own = {"caps": len(k.caps), "lives": len(lives), "objects": len(k.memory)}
    calls = {"calls_open": sum(len(x.sent) for x in lives), "calls_done": k.traced}
    return [Count(name, value) for name, value in {**own, **calls, **k.counters}.items()]


def trace(k: State, r: Request, start: int) -> list[TraceRow]:
    held(k, r, Control)
    skip = max(0, start - (k.traced - len(k.trace)))
    return list(islice(k.trace, skip, skip + PAGE))
