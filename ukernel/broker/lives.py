"""lives: a slot's lives begin, prove who they are, serve, and end. Two never serve at once.

Order is everything: the root task ends a life only when its process is certainly dead, and only
then may the next one begin. From `end` on, nothing that the old life sends or holds counts.
"""

from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import CALL, GRANT, RECV, Begun
from ukernel.broker import caps, effects, ipc, memory
from ukernel.broker.objects import Control, Device, Life, Refusal, Slot
from ukernel.broker.state import Request, State, answer, event, fault, notice, remember

AUTOMATIC = b"\0"  # how a routing id begins that the peer did not choose itself
ENDS = (syscalls.DEAD, syscalls.FAILED, syscalls.STOPPED)


def boot(k: State, pid: int, now: int) -> Life:
    """The root task: its slot, its life, the control capability. Once, before anything else."""
    k.root = life = _new_life(k, _new_slot(k, "root", 255, 8, 0), now)
    control = caps.derive(k, caps.root(k, k.control), life, syscalls.ALL_RIGHTS)
    life.named["control"] = control.token
    life.pid = pid
    return life


def hello(k: State, e: effects.Arrived) -> None:
    """The first message of a connection: who it says it is must be who Linux says it is."""
    m = wire.decode(e.frame)
    secret = m.token if isinstance(m, wire.Message) and m.op == wire.HELLO else wire.NO_TOKEN
    life = next((x for x in k.lives.values() if (x.secret, x.pid) == (secret, e.pid)), None)
    if life is None or e.rid[:1] != AUTOMATIC:
        k.count("unbound")
        for offender in [x for x in k.lives.values() if x.pid == e.pid]:
            fault(k, offender, syscalls.EVENT_DENIED, "spoke on a line that is not its own")
        body = wire.pack(["not an announced process with its secret", {}])
        k.out.append(effects.Send(e.rid, wire.encode(wire.REPLY, status=Code.E_DENIED, body=body)))
        return
    life.secret, life.rid, life.hello_ns = b"", e.rid, e.now  # a secret works once
    k.bound[e.rid] = life
    answer(k, life, 0, Code.OK, wire.pack([life.slot.name, life.number, life.named]))


def _new_slot(k: State, name: str, priority: int, window: int, memory: int) -> Slot:
    made = k.slots[name] = Slot(name, priority, window, memory)
    caps.root(k, made.endpoint)
    caps.root(k, made)
    return made


def _new_life(k: State, slot: Slot, now: int) -> Life:
    slot.number += 1
    name = f"{slot.name}#{slot.number}"
    life = Life(slot, slot.number, k.fresh(), k.tokens.pop(), name, begun_ns=now)
    slot.life, slot.state, slot.endpoint.credit = life, syscalls.STARTING, 0
    k.lives[life.client] = life
    life.named["self"] = caps.derive(k, slot.endpoint.root, life, RECV | CALL | GRANT).token
    return life


def slot(k: State, r: Request, name: str, priority: int, window: int, memory: int) -> bytes:
    caps.held(k, r, Control)
    if name in k.slots:
        raise Refusal(Code.E_PROTO, f"slot {name} exists")
    made = _new_slot(k, name, priority, window, memory)
    return caps.derive(k, made.root, r.life, syscalls.ALL_RIGHTS).token


def device(k: State, r: Request, name: str, machine: str) -> int:
    caps.held(k, r, Control)
    if name in k.devices or machine not in k.slots:
        raise Refusal(Code.E_PROTO, f"device {name} exists, or there is no slot {machine}")
    made = k.devices[name] = Device(name, len(k.devices), k.slots[machine])
    caps.root(k, made)
    return made.index


def begin(k: State, r: Request, grants: list[syscalls.Grant]) -> Begun:
    """The next life of a slot whose last one has ended, with the capabilities it begins with."""
    found = caps.held(k, r, Slot)
    if found.life is not None and found.life.pid:
        raise Refusal(Code.E_PROTO, f"{found.life.name} has not ended")
    if len({name for _, name, _ in grants}) < len(grants):
        raise Refusal(Code.E_PROTO, "two grants of one name")
    for kind, name, _ in grants:
        if name not in {"endpoint": k.slots.keys(), "device": k.devices.keys()}.get(kind, ()):
            raise Refusal(Code.E_PROTO, f"there is no {kind} {name}")
        if kind == "device" and k.devices[name].driver is not None:
            raise Refusal(Code.E_PROTO, f"device {name} has a driver")
    if found.life is not None:  # it has no process: Linux refused something that it needs
        end(k, r, syscalls.DEAD)
    life, tag = _new_life(k, found, r.now), k.fresh()
    otherwise = memory.no_memory(r, f"control socket of {life.name}")
    k.out.append(effects.MakeControl(life.client, k.root.client, tag, otherwise))
    for kind, name, rights in grants:
        if kind == "device":
            memory.attach(k, k.devices[name], life, otherwise)
        else:  # RECV stays with the slot itself
            top = k.slots[name].endpoint.root
            life.named[name] = caps.derive(k, top, life, rights & (CALL | GRANT)).token
    return Begun(life.number, tag)


def start(k: State, r: Request, pid: int) -> None:
    """This process is the life: it gets the secret, over the socket that it inherited."""
    life = _living(k, r, begun=True)
    if life.pid or not pid:
        raise Refusal(Code.E_PROTO, f"{life.name} has process {life.pid}, and cannot have {pid}")
    life.pid = pid
    k.out.append(effects.BootRecord(life.client, life.secret, life.slot.name, life.number))


def ready(k: State, r: Request, fingerprint: str) -> None:
    if r.life.ready_ns or len(fingerprint) > 64:
        raise Refusal(Code.E_PROTO, "ready is said once, with a fingerprint")
    r.life.slot.fingerprint, r.life.slot.state = fingerprint, syscalls.READY
    r.life.ready_ns = r.now
    event(k, syscalls.EVENT_READY, r.life, fingerprint)


def progress(k: State, r: Request) -> None:
    r.life.progress_ns = r.now


def end(k: State, r: Request, state: str) -> None:
    """The process is certainly dead: every call it had open gets its outcome."""
    found = caps.held(k, r, Slot)
    if state not in ENDS:
        raise Refusal(Code.E_PROTO, f"a life cannot end as {state!r}")
    found.state, life, found.life = state, found.life, None
    if life is not None:
        _bury(k, life, r.now)
    if state in ipc.GONE:
        refusal = Refusal(Code.E_UNAVAILABLE, f"{found.name} is {state}")
        ipc.fail_queued(k, found.endpoint, refusal, r.now, lambda _: True)


def _bury(k: State, life: Life, now: int) -> None:
    slot = life.slot
    k.bound.pop(life.rid, None)
    del k.lives[life.client]
    life.rid = life.secret = b""
    _settle(k, life, now)
    slot.endpoint.credit = 0
    slot.stale = frozenset(life.caps)
    for owned in life.devices:
        memory.detach(k, owned, now)
    for made in list(life.owned):
        ipc.withdraw(k, caps.destroy(k, made), now)
    held = list(life.caps.values())
    for cap in held:
        caps.abandon(k, cap)
    ipc.withdraw(k, held, now)
    k.out.append(effects.Close(life.client))


def _settle(k: State, life: Life, now: int) -> None:
    """Its own calls have nobody left to hear their outcome; those it had taken get theirs."""
    own, life.sent, life.waiting = life.sent, {}, None  # a call and its client: no circle is left
    for c in own.values():
        remember(k, c, Code.E_STALE_LIFE, b"", now)
    ipc.sweep(own.values())
    lives = {"old_life": life.number, "new_life": life.number + 1}
    unknown = Refusal(Code.E_DEAD_UNKNOWN, f"{life.name} died while it had the call", **lives)
    for c in life.taken.values():
        if c.number in c.client.sent:
            ipc.fail(k, c, unknown, now)
    life.taken.clear()
    notrun = Refusal(Code.E_DEAD_NOTRUN, f"{life.name} died before it saw the call")
    ipc.fail_queued(k, life.slot.endpoint, notrun, now, lambda c: bool(c.flags & wire.BOUND_LIFE))


def cut_off(k: State, rid: bytes) -> None:
    """A task that does not read: from now on it is a stranger, and the root task decides."""
    life = k.bound.pop(rid, None)
    if life is not None:
        life.rid, life.slot.endpoint.credit = b"", 0  # what waits is for the next life
        event(k, syscalls.EVENT_LOST, life, "does not read its messages")


def _living(k: State, r: Request, begun: bool = False) -> Life:
    found = caps.held(k, r, Slot)
    if found.life is None or not (found.life.pid or begun):  # to Linux, process 0 is ourselves
        raise Refusal(Code.E_STALE_LIFE, f"{found.name} has no process")
    return found.life


def stop(k: State, r: Request) -> None:
    notice(k, _living(k, r), wire.NOTICE_STOP, [])


def schedule(k: State, r: Request, priority: int, cores: list[int], fifo: bool) -> None:
    life = _living(k, r)
    life.slot.priority = priority
    k.out.append(effects.Schedule(life.pid, tuple(cores), fifo, priority))


def kill(k: State, r: Request, signal: int) -> None:
    k.out.append(effects.Signal(_living(k, r).pid, signal))
