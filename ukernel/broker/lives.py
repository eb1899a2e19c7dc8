"""lives: a slot's lives begin, prove who they are, serve, and end. Two never serve at once.

Order is everything: the root task ends a life only when its process is certainly dead, and only
then may the next one begin. From `end` on, nothing that the old life sends or holds counts.
"""

from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import CALL, GRANT, RECV
from ukernel.broker import caps, effects, ipc, memory
from ukernel.broker.objects import Channel, Control, Device, Endpoint, Life, Slot
from ukernel.broker.state import Refusal, Request, State, answer, event, fault, notice, remember

AUTOMATIC = b"\0"  # how a routing id begins that the peer did not choose itself
ROOT_MEMORY = 64 << 20  # bytes: what it carries between others goes through that


def boot(k: State, pid: int, now: int) -> Life:
    """The root task: its slot, its life, the control capability. Once, before anything else."""
    k.root = life = _new_life(k, _new_slot(k, "root", 255, 8, ROOT_MEMORY))
    life.pid = pid
    _enter(k, life, now)
    life.named["control"] = caps.derive(k, caps.root(k, k.control), life, syscalls.ALL_RIGHTS).token
    return life


def hello(k: State, e: effects.Arrived) -> None:
    """The first message of a connection: who it says it is must be who Linux says it is."""
    m = wire.decode(e.frame)
    secret = m.token if isinstance(m, wire.Message) and m.op == wire.HELLO else wire.NO_TOKEN
    life = next((x for x in k.lives.values() if (x.secret, x.pid) == (secret, e.pid)), None)
    if life is None or e.rid[:1] != AUTOMATIC:
        k.counters["unbound"] += 1
        for offender in [x for x in k.lives.values() if x.pid == e.pid]:
            fault(k, offender, syscalls.EVENT_DENIED, "spoke on a line that is not its own")
        body = wire.pack(["not an announced process with its secret", {}])
        k.out.append(effects.Send(e.rid, wire.encode(wire.REPLY, status=Code.E_DENIED, body=body)))
        return
    life.secret, life.rid, life.hello_ns = b"", e.rid, e.now  # a secret works once
    if life.slot.life is life:
        _welcome(k, life)  # else it waits for its answer until it begins


def _welcome(k: State, life: Life) -> None:
    k.bound[life.rid] = life
    answer(k, life, 0, Code.OK, wire.pack([life.slot.name, life.number, life.named]))


def _new_slot(k: State, name: str, priority: int, window: int, memory: int) -> Slot:
    made = k.slots[name] = Slot(name, priority, window, memory)
    made.endpoint = Endpoint(name, made)
    caps.root(k, made.endpoint)
    caps.root(k, made)
    return made


def _new_life(k: State, slot: Slot) -> Life:
    return k.lives.setdefault(number := k.fresh(), Life(slot, number, k.tokens.pop()))


def _enter(k: State, life: Life, now: int) -> None:
    """From here on the life is the slot's: it has a number, and may receive and be called."""
    slot = life.slot
    slot.number, slot.life, slot.next = slot.number + 1, life, None
    slot.state, slot.endpoint.credit = syscalls.STARTING, 0
    life.number, life.name, life.begun_ns = slot.number, f"{slot.name}#{slot.number}", now
    life.named["self"] = caps.derive(k, slot.endpoint.root, life, RECV | CALL | GRANT).token


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


def endpoint(k: State, r: Request, badge: int) -> bytes:
    found = caps.held(k, r, Slot)
    return caps.derive(k, found.endpoint.root, r.life, CALL | GRANT, badge).token


def prepare(k: State, r: Request) -> int:
    """A life ahead of time, in place of one whose process died before it began."""
    found = caps.held(k, r, Slot)
    if found.next is not None:
        del k.lives[found.next.client]
        k.out.append(effects.Close(found.next.client))
    found.next, tag = _new_life(k, found), k.fresh()
    otherwise = memory.no_memory(r, f"control socket of {found.name}")
    k.out.append(effects.MakeControl(found.next.client, tag, otherwise))
    return tag


def start(k: State, r: Request, pid: int) -> None:
    """This process is the next life: it gets the secret, over the socket that it inherited."""
    found = caps.held(k, r, Slot)
    if found.next is None or found.next.pid or not pid:  # to Linux, process 0 is ourselves
        raise Refusal(Code.E_PROTO, f"{found.name} has no next life that could be process {pid}")
    found.next.pid = pid
    k.out.append(effects.BootRecord(found.next.client, found.next.secret, found.name))


def begin(k: State, r: Request, grants: list[syscalls.Grant]) -> int:
    """The next life of a slot whose last one has ended, with the capabilities it begins with."""
    found = caps.held(k, r, Slot)
    life = found.next
    if found.life is not None or life is None or not life.pid:
        raise Refusal(Code.E_PROTO, f"{found.name} has not ended, or has no process to begin with")
    free = {name for name, device in k.devices.items() if device.driver is None}
    for kind, _, _, what, _ in grants:
        if what not in {"endpoint": k.slots.keys(), "device": free}.get(kind, ()):
            raise Refusal(Code.E_PROTO, f"there is no {kind} {what}, or it has a driver")
    _enter(k, life, r.now)
    for kind, name, rights, what, badge in grants:
        if kind == "device":
            memory.attach(k, k.devices[what], life, memory.no_memory(r, f"device of {life.name}"))
        else:  # RECV stays with the slot itself
            top = k.slots[what].endpoint.root
            life.named[name] = caps.derive(k, top, life, rights & (CALL | GRANT), badge).token
    if life.rid:
        _welcome(k, life)
    return life.number


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
    found.state, life, found.life = state, found.life, None
    if life is not None:
        _bury(k, life, r.now)
    if state in ipc.GONE:
        refusal = Refusal(Code.E_UNAVAILABLE, f"{found.name} is {state}")
        ipc.fail_all(k, [c for _, _, c in found.endpoint.queue], refusal, r.now)


def _bury(k: State, life: Life, now: int) -> None:
    slot = life.slot
    k.bound.pop(life.rid, None)
    del k.lives[life.client]
    life.rid = life.secret = b""
    _settle(k, life, now)
    slot.endpoint.credit, slot.stale = 0, frozenset(life.caps)
    for owned in life.devices:
        memory.detach(k, owned, now)
    shared = [m for m in k.memory.values() if isinstance(m, Channel) and m.server is life]
    for made in dict.fromkeys((*life.owned, *shared)):
        caps.destroy(k, made)
    for kept in slot.regions.values():  # its bytes stay, but not with those it was lent to
        caps.destroy_below(k, kept.root)
    for cap in (held := list(life.caps.values())):
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
    ipc.fail_all(k, [c for c in life.taken.values() if c.number in c.client.sent], unknown, now)
    life.taken.clear()
    notrun = Refusal(Code.E_DEAD_NOTRUN, f"{life.name} died before it saw the call")
    bound = [c for _, _, c in life.slot.endpoint.queue if c.flags & wire.BOUND_LIFE]
    ipc.fail_all(k, bound, notrun, now)


def cut_off(k: State, rid: bytes) -> None:
    """A task that does not read: from now on it is a stranger, and the root task decides."""
    life = k.bound.pop(rid, None)
    if life is not None:
        life.rid, life.slot.endpoint.credit = b"", 0  # what waits is for the next life
        event(k, syscalls.EVENT_LOST, life, "is gone, or does not read its messages")


def tell(k: State, r: Request, kind: int) -> None:
    notice(k, caps.held(k, r, Slot).life, kind, [])
