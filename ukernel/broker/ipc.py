"""ipc: a call is delivered at most once, to a life that asked for it, and has one outcome.

QUEUED -> STARTED(life) -> REPLIED. A server gets what it gave credit for. `Life.sent` holds the
calls that still need an outcome: what is no longer in it (deadline passed, client dead) is skipped
in queues, and a late reply to it is dropped and counted.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.broker import caps, effects
from ukernel.broker.objects import Call, Cap, Endpoint, Life
from ukernel.broker.state import Refusal, Request, State, Tokens, answer, event, fault, remember

GONE = frozenset((syscalls.FAILED, syscalls.STOPPED))
CLIENT_FLAGS = wire.ASYNC | wire.BOUND_LIFE | wire.MOVE


def call(k: State, life: Life, m: wire.Message, now: int) -> None:
    """CALL and SEND: check the capability, then queue or deliver."""
    flags = m.flags & CLIENT_FLAGS | (wire.ONEWAY | wire.ASYNC if m.op == wire.SEND else 0)
    cap = caps.find(k, life, m.token, syscalls.CALL)
    if cap.endpoint is None:
        raise Refusal(Code.E_PROTO, f"{cap.obj.kind} {cap.obj.name} cannot be called")
    new = Call(
        k.fresh(), life, cap, cap.endpoint, cap.badge, flags, m.opcode, m.seq,
        m.deadline_ns, m.caps, m.body, now,
    )  # fmt: skip
    check(k, new)
    admit(k, new, now)


def check(k: State, new: Call) -> None:
    """Refuse a call that cannot be queued."""
    life, slot = new.client, new.endpoint.slot
    if slot.state in GONE:
        raise Refusal(Code.E_UNAVAILABLE, f"{slot.name} is {slot.state}")
    if new.flags & wire.BOUND_LIFE and slot.life is None:
        raise Refusal(Code.E_DEAD_NOTRUN, f"{slot.name} is between two lives")
    if len(life.sent) >= life.quota.calls:
        raise Refusal(Code.E_OVERLOAD, f"{life.quota.calls} calls are open")
    if life.queued_bytes + len(new.payload) > life.quota.queued_bytes:
        raise Refusal(Code.E_OVERLOAD, f"{life.queued_bytes} bytes are queued")
    if not new.flags & wire.ASYNC and (cycle := wait_cycle(new)):
        raise Refusal(Code.E_DEADLOCK, f"would wait for itself: {' -> '.join(cycle)}", cycle=cycle)
    for token in new.caps:
        caps.find(k, life, token, syscalls.GRANT)


def wait_cycle(new: Call) -> list[str]:
    """The tasks that would wait for each other if `new` were made: each in one call at a time."""
    names = [new.client.slot.name]
    at: Call | None = new
    while at is not None and (server := at.endpoint.slot.life) is not None:
        names.append(server.slot.name)
        if server is new.client:
            return names
        at = server.waiting
    return []


def admit(k: State, new: Call, now: int) -> None:
    """Take a call in: deliver it when there is credit, else keep it in order."""
    life, endpoint = new.client, new.endpoint
    life.sent[new.number] = new
    life.queued_bytes += len(new.payload)
    if not new.flags & wire.ASYNC:
        life.waiting = new
    if endpoint.credit and not endpoint.queue:
        _deliver(k, new, now)
    else:
        heappush(endpoint.queue, (-life.slot.priority, new.number, new))


def pump(k: State, endpoint: Endpoint, now: int) -> None:
    """Deliver what waits, as far as the credit goes."""
    while endpoint.credit and endpoint.queue:
        _deliver(k, heappop(endpoint.queue)[2], now)


def _deliver(k: State, c: Call, now: int) -> None:
    server, client = c.endpoint.slot.life, c.client
    assert server is not None, "credit comes from a life"
    try:
        tokens = caps.transfer(k, client, server, client, c.caps, c.flags) if c.caps else ()
    except Refusal as refusal:
        fail(k, c, refusal, now)
        return
    c.endpoint.credit -= 1
    c.taken_ns, c.server = now, server
    oneway = c.flags & wire.ONEWAY
    if oneway:
        finish(k, c, Code.OK, b"", now)
    else:
        server.taken[c.number] = c
    head = wire.HEADER.pack(
        wire.VERSION, wire.DELIVER, oneway, len(tokens), c.opcode, 0, c.number, c.deadline_ns,
        wire.STAMP.pack(c.badge, client.client),
    )  # fmt: skip
    k.out.append(effects.Send(server.rid, b"".join((head, *tokens, c.payload))))


def reply(k: State, life: Life, m: wire.Message, now: int) -> None:
    """REPLY: the server's word on one call it has taken; its credit comes back."""
    c = life.taken.pop(m.seq, None)
    if c is None:
        fault(k, life, syscalls.EVENT_FAULT, "reply to a call that it does not have")
        return
    endpoint = c.endpoint
    endpoint.credit += 1
    life.slot.replies += 1
    life.slot.waited_ns += now - c.queued_ns
    if not life.first_reply_ns and m.status <= Code.ANSWER:
        life.first_reply_ns = now
        event(k, syscalls.EVENT_SERVING, life, f"{life.hello_ns} {life.ready_ns} {now}")
    if c.number not in c.client.sent:
        k.counters["late_replies"] += 1
    else:
        try:
            tokens = caps.transfer(k, life, c.client, c.client, m.caps, m.flags) if m.caps else ()
            finish(k, c, m.status, m.body, now, tokens)
        except Refusal as refusal:
            if refusal.code != Code.E_OVERLOAD:  # which is the client's own, as is the call
                fault(k, life, syscalls.EVENT_FAULT, f"cannot pass a capability on: {refusal}")
            fail(k, c, refusal, now)
    for token in m.caps if m.flags & wire.MOVE else ():
        if token in life.caps:  # nobody could get it: it leaves its sender all the same
            delete(k, Request(life, token, m.seq, now))
    if endpoint.queue:
        pump(k, endpoint, now)


def finish(k: State, c: Call, status: int, body: bytes, now: int, tokens: Tokens = ()) -> None:
    """The one outcome of a call."""
    client = c.client
    del client.sent[c.number]
    client.queued_bytes -= len(c.payload)
    if client.waiting is c:
        client.waiting = None
    client.slot.calls += 1
    client.slot.errors += status > Code.ANSWER
    remember(k, c, status, body, now)
    if not c.flags & wire.ONEWAY:
        answer(k, client, c.seq, status, body, tokens)


def fail(k: State, c: Call, refusal: Refusal, now: int) -> None:
    """A call's outcome when the kernel has to give it."""
    k.counters[refusal.code.name] += 1
    finish(k, c, refusal.code, wire.pack([str(refusal), refusal.detail]), now)


def fail_all(k: State, calls: list[Call], refusal: Refusal, now: int) -> None:
    """Give the same outcome to calls that may be queued."""
    for c in calls:
        fail(k, c, refusal, now)
    sweep(calls)


def sweep(done: Iterable[Call]) -> None:
    """Take calls that have had their outcome out of their queues."""
    for queue in (endpoint.queue for endpoint in {c.endpoint for c in done}):
        queue[:] = [entry for entry in queue if entry[1] in entry[2].client.sent]
        heapify(queue)


def receive(k: State, life: Life, m: wire.Message, now: int) -> None:
    """RECV: more credit for an endpoint, never beyond its window."""
    endpoint = caps.held(k, Request(life, m.token, m.seq, now), Endpoint, syscalls.RECV)
    if endpoint.slot.life is not life:
        raise Refusal(Code.E_DENIED, f"{endpoint.name} is not its own endpoint")
    room = endpoint.slot.window - len(life.taken) - endpoint.credit
    endpoint.credit += max(0, min(m.seq, room))
    pump(k, endpoint, now)


def expire(k: State, now: int) -> None:
    """Answer every call whose deadline has passed."""
    for life in k.lives.values():
        late = [c for c in life.sent.values() if 0 < c.deadline_ns <= now]
        for c in late:
            where = f"with {c.server.name}" if c.server else f"in the queue of {c.endpoint.name}"
            fail(k, c, Refusal(Code.E_DEADLINE, f"{where} at its deadline"), now)
        sweep(late)


def withdraw(k: State, gone: list[Cap], now: int) -> None:
    """Answer the queued calls that were made through capabilities which are no more."""
    for endpoint in dict.fromkeys(cap.endpoint for cap in gone if cap.endpoint is not None):
        dead = [c for _, _, c in endpoint.queue if c.cap is not None and not c.cap.alive]
        fail_all(k, dead, Refusal(Code.E_REVOKED, "revoked while queued"), now)


def delete(k: State, r: Request) -> None:
    cap = caps.find(k, r.life, r.token)
    caps.abandon(k, cap)
    withdraw(k, [cap], r.now)


def revoke(k: State, r: Request) -> int:
    gone = caps.destroy_below(k, caps.find(k, r.life, r.token))
    withdraw(k, gone, r.now)
    return len(gone)
