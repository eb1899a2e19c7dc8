"""lives: a slot's lives begin, prove who they are, serve, and end. Two never serve at once.

Order is everything: the root task ends a life only when its process is certainly dead, and only
then may the next one begin. From `end` on, nothing that the old life sends or holds counts.
"""

from __future__ import annotations

from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import CALL, GRANT, RECV, Begun
from ukernel.broker import caps, ipc, memory
from ukernel.broker.effects import (
    Arrived,
    BootRecord,
    Close,
    MakeControl,
    Schedule,
    Send,
    Signal,
)
from ukernel.broker.objects import ControlObject, Device, Life, Refusal, Slot
from ukernel.broker.state import Request, State, answer, event, notice, remember

ROOT = "root"


def boot(k: State, pid: int, now: int) -> Life:
    """The root task: its slot, its life, the control capability. Once, before anything else."""
    made = _new_slot(k, ROOT, priority=255, window=8, memory=0)
    k.root = life = _new_life(k, made, now)
    assert k.control.root is None
    cap = caps.derive(k, caps.root(k, k.control), life, syscalls.ALL_RIGHTS)
    life.named["control"] = cap.token
    life.pid = pid
    return life


def hello(k: State, e: Arrived) -> None:
    """The first message of a connection: who it says it is must be who Linux says it is."""
    m = wire.decode(e.frame)
    life = _introduced(k, m, e.pid) if isinstance(m, wire.Message) else None
    if life is None:
        k.count("unbound")
        body = wire.pack(["HELLO refused: unknown secret or another process than announced", {}])
        frame = wire.encode(wire.REPLY, status=Code.E_DENIED, body=body)
        k.out.append(Send(e.rid, frame))
        return
    life.rid = e.rid
    life.hello_ns = e.now
    k.bound[e.rid] = life
    greeting = [life.slot.name, life.number, {n: bytes(t) for n, t in life.named.items()}]
    answer(k, life, m.seq if isinstance(m, wire.Message) else 0, Code.OK, wire.pack(greeting))


def _introduced(k: State, m: wire.Message, pid: int) -> Life | None:
    """The life that this HELLO may bind. A secret works once, for the announced process."""
    if m.op != wire.HELLO:
        return None
    for life in k.lives.values():
        if life.secret and life.secret == m.token and life.pid == pid:
            life.secret = b""
            return life
    return None


# --- slots and lives ----------------------------------------------------------------------------


def _new_slot(k: State, name: str, priority: int, window: int, memory: int) -> Slot:
    slot = Slot(name, priority, window, memory)
    caps.root(k, slot.endpoint)
    caps.root(k, slot)
    k.slots[name] = slot
    return slot


def _new_life(k: State, slot: Slot, now: int) -> Life:
    slot.number += 1
    name = f"{slot.name}#{slot.number}"
    life = Life(slot, slot.number, k.fresh(), k.token(), name, begun_ns=now)
    slot.life = life
    slot.state = syscalls.STARTING
    slot.endpoint.credit = 0
    k.lives[life.client] = life
    assert slot.endpoint.root is not None
    own = caps.derive(k, slot.endpoint.root, life, RECV | CALL | GRANT)
    life.named["self"] = own.token
    return life


def slot(k: State, r: Request, name: str, priority: int, window: int, memory: int) -> bytes:
    need_control(k, r)
    if name in k.slots:
        raise Refusal(Code.E_PROTO, f"slot {name} exists")
    made = _new_slot(k, name, priority, window, memory)
    assert made.root is not None
    return caps.derive(k, made.root, r.life, syscalls.ALL_RIGHTS).token


def device(k: State, r: Request, name: str, machine: str) -> int:
    need_control(k, r)
    if name in k.devices or machine not in k.slots:
        raise Refusal(Code.E_PROTO, f"device {name} exists or there is no slot {machine}")
    made = Device(name, len(k.devices), k.slots[machine])
    caps.root(k, made)
    k.devices[name] = made
    return made.index


def begin(k: State, r: Request, grants: list[syscalls.Grant]) -> Begun:
    """The next life of a slot whose last one has ended, with the capabilities it begins with."""
    found = _task(k, r)
    if found.life is not None:
        raise Refusal(Code.E_PROTO, f"{found.life.name} has not ended")
    _check_grants(k, grants)
    assert k.root is not None
    life = _new_life(k, found, r.now)
    tag = k.fresh()
    otherwise = memory.no_memory(r.life.rid, r.seq, f"control socket of {life.name}")
    k.out.append(MakeControl(life.client, k.root.client, tag, otherwise))
    for grant in grants:
        _grant(k, life, grant, otherwise)
    return Begun(life.number, tag)


def _check_grants(k: State, grants: list[syscalls.Grant]) -> None:
    for kind, name, _ in grants:
        if name not in {"endpoint": k.slots.keys(), "device": k.devices.keys()}.get(kind, ()):
            raise Refusal(Code.E_PROTO, f"there is no {kind} {name}")
        if kind == "device" and k.devices[name].driver is not None:
            raise Refusal(Code.E_PROTO, f"device {name} has a driver")


def _grant(k: State, life: Life, grant: syscalls.Grant, otherwise: Send) -> None:
    if grant.kind == "device":
        memory.attach(k, k.devices[grant.name], life, otherwise)
        return
    endpoint = k.slots[grant.name].endpoint
    assert endpoint.root is not None
    rights = grant.rights & (CALL | GRANT)  # RECV stays with the slot itself
    life.named[grant.name] = caps.derive(k, endpoint.root, life, rights).token


def start(k: State, r: Request, pid: int) -> None:
    """This process is the life: it gets the secret, over the socket that it inherited."""
    life = _living(k, r)
    if life.pid:
        raise Refusal(Code.E_PROTO, f"{life.name} has process {life.pid} already")
    life.pid = pid
    k.out.append(BootRecord(life.client, life.secret, life.slot.name, life.number))


def end(k: State, r: Request, state: str) -> None:
    """The process is certainly dead: every call it had open gets its outcome."""
    found = _task(k, r)
    if state not in (syscalls.DEAD, syscalls.FAILED, syscalls.STOPPED):
        raise Refusal(Code.E_PROTO, f"a life cannot end as {state!r}")
    found.state = state
    life = found.life
    if life is not None:
        found.life = None
        _bury(k, life, r.now)
    if state in ipc.GONE:
        for _, _, c in list(found.endpoint.queue):
            if c.number in c.client.sent:
                ipc.fail(k, c, Code.E_UNAVAILABLE, f"{found.name} is {state}", r.now)
        found.endpoint.queue.clear()


def _bury(k: State, life: Life, now: int) -> None:
    k.bound.pop(life.rid, None)
    del k.lives[life.client]
    slot, life.rid, life.secret = life.slot, b"", b""
    for c in life.sent.values():
        remember(k, c, Code.E_STALE_LIFE, b"", now)
    asked = {c.endpoint for c in life.sent.values()}
    life.sent.clear()  # its own calls: nobody is left to hear the outcome
    for endpoint in asked:
        ipc.sweep(endpoint)
    for c in list(life.taken.values()):
        if c.number in c.client.sent:
            text = f"{life.name} died while it had the call"
            lives = {"old_life": life.number, "new_life": life.number + 1}
            ipc.fail(k, c, Code.E_DEAD_UNKNOWN, text, now, **lives)
    life.taken.clear()
    _end_bound_calls(k, slot, now)
    slot.endpoint.credit = 0
    slot.stale = frozenset(life.caps)
    for owned in list(life.devices):
        memory.detach(k, owned)
    for made in list(life.owned):
        ipc.withdraw(k, caps.destroy(k, made), now)
    for cap in list(life.caps.values()):
        caps.abandon(k, cap)
    k.out.append(Close(life.client))


def _end_bound_calls(k: State, slot: Slot, now: int) -> None:
    for _, _, c in list(slot.endpoint.queue):
        if c.flags & wire.BOUND_LIFE and c.number in c.client.sent:
            ipc.fail(k, c, Code.E_DEAD_NOTRUN, f"{slot.name} died before it saw the call", now)


def cut_off(k: State, rid: bytes) -> None:
    """A task that does not read: from now on it is a stranger, and the root task decides."""
    life = k.bound.pop(rid, None)
    if life is not None:
        life.rid = b""
        event(k, syscalls.EVENT_LOST, life, "does not read its messages")


def ready(k: State, r: Request, fingerprint: str) -> None:
    slot = r.life.slot
    slot.fingerprint = fingerprint
    slot.state = syscalls.READY
    r.life.ready_ns = r.now
    event(k, syscalls.EVENT_READY, r.life, fingerprint)


# --- task control -------------------------------------------------------------------------------


def need_control(k: State, r: Request) -> None:
    if not isinstance(caps.find(k, r.life, r.token).obj, ControlObject):
        raise Refusal(Code.E_DENIED, "not the control capability")


def _task(k: State, r: Request) -> Slot:
    return caps.expect(caps.find(k, r.life, r.token).obj, Slot)


def _living(k: State, r: Request) -> Life:
    found = _task(k, r)
    if found.life is None:
        raise Refusal(Code.E_STALE_LIFE, f"{found.name} has no life")
    return found.life


def stop(k: State, r: Request) -> None:
    notice(k, _living(k, r), wire.NOTICE_STOP, [])


def schedule(k: State, r: Request, priority: int, cores: list[int], fifo: bool) -> None:
    life = _living(k, r)
    life.slot.priority = priority
    k.out.append(Schedule(life.pid, tuple(cores), fifo, priority))


def kill(k: State, r: Request, signal: int) -> None:
    k.out.append(Signal(_living(k, r).pid, signal))
