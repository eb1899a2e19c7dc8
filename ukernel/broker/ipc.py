"""ipc: a call is delivered at most once, to a life that asked for it, and has one outcome.

QUEUED -> STARTED(life) -> REPLIED. The kernel owns the queues; a server gets what it gave credit
for. `Life.sent` holds the calls that still need an outcome: what is no longer in it (deadline
passed, client dead) is skipped in queues, and a late reply to it is dropped and counted.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.broker import caps
from ukernel.broker.effects import Send
from ukernel.broker.objects import Call, Cap, Endpoint, Life, Refusal
from ukernel.broker.state import (
    Request,
    State,
    answer,
    deny,
    fault,
    refuse,
    remember,
)

GONE = frozenset((syscalls.FAILED, syscalls.STOPPED))


def call(k: State, life: Life, m: wire.Message, now: int) -> None:
    """CALL and SEND: check the capability, then queue or deliver."""
    cap = k.caps.get(m.token)
    if cap is None or cap.holder is not life or not cap.rights & syscalls.CALL:
        _deny_call(k, life, m)
        return
    endpoint = cap.endpoint
    if endpoint is None:
        refuse(k, life, m.seq, Code.E_PROTO, f"{cap.obj.kind} {cap.obj.name} cannot be called")
        return
    flags = m.flags & (wire.ASYNC | wire.BOUND_LIFE | wire.MOVE)
    if m.op == wire.SEND:
        flags |= wire.ONEWAY | wire.ASYNC
    new = Call(
        k.fresh(), life, cap, endpoint, cap.badge, flags, m.opcode, m.seq,
        m.deadline_ns, m.caps, m.body, now,
    )  # fmt: skip
    if _admissible(k, new, now):
        admit(k, new, now)


def _deny_call(k: State, life: Life, m: wire.Message) -> None:
    try:
        caps.find(k, life, m.token, syscalls.CALL)
    except Refusal as refusal:
        deny(k, life, m.seq, refusal.code, str(refusal))


def _admissible(k: State, new: Call, now: int) -> bool:
    """Whether a call may be queued; when not, it has been answered."""
    life, slot = new.client, new.endpoint.slot
    if slot.state in GONE:
        reject(k, new, Code.E_UNAVAILABLE, f"{slot.name} is {slot.state}")
    elif new.flags & wire.BOUND_LIFE and slot.life is None:
        reject(k, new, Code.E_DEAD_NOTRUN, f"{slot.name} is between two lives")
    elif len(life.sent) >= life.quota.calls:
        reject(k, new, Code.E_OVERLOAD, f"{life.name} has {life.quota.calls} calls open")
    elif life.queued_bytes + len(new.payload) > life.quota.queued_bytes:
        reject(k, new, Code.E_OVERLOAD, f"{life.name} has {life.queued_bytes} bytes queued")
    elif not new.flags & wire.ASYNC and (cycle := wait_cycle(new)):
        reject(k, new, Code.E_DEADLOCK, f"would wait for itself: {' -> '.join(cycle)}", cycle=cycle)
    else:
        return not new.caps or _may_pass(k, new)
    return False


def reject(k: State, new: Call, code: Code, text: str, **detail: object) -> None:
    """Answer a call that was never queued. A one-way message is dropped and counted."""
    k.count(code.name)
    if not new.flags & wire.ONEWAY:
        refuse(k, new.client, new.seq, code, text, **detail)


def _may_pass(k: State, new: Call) -> bool:
    try:
        caps.check_grants(k, new.client, new.caps)
    except Refusal as refusal:
        deny(k, new.client, new.seq, refusal.code, f"cannot pass a capability on: {refusal}")
        return False
    return True


def wait_cycle(new: Call) -> list[str]:
    """The tasks that would wait for each other if `new` were made, or nothing.

    A task blocks in one call at a time, so the wait graph is a set of chains.
    """
    names = [new.client.slot.name]
    endpoint = new.endpoint
    while (server := endpoint.slot.life) is not None:
        names.append(server.slot.name)
        if server is new.client:
            return names
        if server.waiting is None:
            return []
        endpoint = server.waiting.endpoint
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
    queue = endpoint.queue
    while endpoint.credit and queue:
        waiting = heappop(queue)[2]
        if waiting.number in waiting.client.sent:
            _deliver(k, waiting, now)


def _deliver(k: State, c: Call, now: int) -> None:
    server = c.endpoint.slot.life
    assert server is not None, "credit comes from a life"
    tokens: tuple[bytes, ...] = ()
    if c.caps:
        try:
            tokens = caps.transfer(k, c.client, server, c.caps, bool(c.flags & wire.MOVE))
        except Refusal as refusal:
            finish(k, c, refusal.code, wire.pack([str(refusal), {}]), now)
            return
    c.endpoint.credit -= 1
    c.taken_ns = now
    c.server = server
    stamp = wire.STAMP.pack(c.badge, c.client.client)
    flags = c.flags & wire.ONEWAY
    if flags:
        del c.client.sent[c.number]
        c.client.queued_bytes -= len(c.payload)
        remember(k, c, Code.OK, b"", now)
    else:
        server.taken[c.number] = c
    frame = wire.encode(
        wire.DELIVER,
        flags=flags,
        opcode=c.opcode,
        seq=c.number,
        deadline_ns=c.deadline_ns,
        token=stamp,
        caps=tokens,
        body=c.payload,
    )
    k.out.append(Send(server.rid, frame))


def reply(k: State, life: Life, m: wire.Message, now: int) -> None:
    """REPLY: the server's word on one call it has taken; its credit comes back."""
    c = life.taken.pop(m.seq, None)
    if c is None:
        fault(k, life, syscalls.EVENT_FAULT, "reply to a call that it does not have")
        return
    endpoint = c.endpoint
    endpoint.credit += 1
    slot = life.slot
    slot.replies += 1
    if not life.first_reply_ns and m.status <= Code.ANSWER:
        life.first_reply_ns = now
    life.last_reply_ns = now
    if c.number not in c.client.sent:
        k.count("late_replies")
    else:
        _answered(k, life, c, m, now)
    if endpoint.queue:
        pump(k, endpoint, now)


def _answered(k: State, life: Life, c: Call, m: wire.Message, now: int) -> None:
    tokens: tuple[bytes, ...] = ()
    if m.caps:
        try:
            tokens = caps.transfer(k, life, c.client, m.caps, bool(m.flags & wire.MOVE))
        except Refusal as refusal:
            fault(k, life, syscalls.EVENT_FAULT, f"cannot pass a capability on: {refusal}")
            finish(k, c, refusal.code, wire.pack([str(refusal), {}]), now)
            return
    finish(k, c, m.status, m.body, now, tokens)


def finish(
    k: State, c: Call, status: int, body: bytes, now: int, tokens: tuple[bytes, ...] = ()
) -> None:
    """The one outcome of a call."""
    client = c.client
    del client.sent[c.number]
    client.queued_bytes -= len(c.payload)
    if client.waiting is c:
        client.waiting = None
    client.slot.calls += 1
    remember(k, c, status, body, now)
    if status > Code.ANSWER:
        client.slot.errors += 1
    if not c.flags & wire.ONEWAY:
        answer(k, client, c.seq, status, body, tokens)


def fail(k: State, c: Call, code: Code, text: str, now: int, **detail: object) -> None:
    """A call's outcome when the kernel has to give it."""
    k.count(code.name)
    finish(k, c, code, wire.pack([text, detail]), now)


def receive(k: State, life: Life, m: wire.Message, now: int) -> None:
    """RECV: more credit for an endpoint, never beyond its window."""
    try:
        endpoint = caps.expect(caps.find(k, life, m.token, syscalls.RECV).obj, Endpoint)
    except Refusal as refusal:
        deny(k, life, m.seq, refusal.code, str(refusal))
        return
    if endpoint.slot.life is not life:
        deny(k, life, m.seq, Code.E_DENIED, f"receives for {endpoint.name}, which is not its own")
        return
    room = endpoint.slot.window - len(life.taken) - endpoint.credit
    endpoint.credit += max(0, min(m.seq, room))
    pump(k, endpoint, now)


def sweep(endpoint: Endpoint) -> None:
    """Forget queued calls that have had their outcome: a queue without credit must not grow."""
    endpoint.queue[:] = [entry for entry in endpoint.queue if entry[1] in entry[2].client.sent]
    heapify(endpoint.queue)


def expire(k: State, now: int) -> None:
    """Answer every call whose deadline has passed."""
    for life in k.lives.values():
        if life.sent:
            late = [c for c in life.sent.values() if 0 < c.deadline_ns <= now]
            for c in late:
                where = f"{c.endpoint.name}#{c.server.number}" if c.server else "the queue"
                fail(k, c, Code.E_DEADLINE, f"{c.endpoint.name}: in {where} at its deadline", now)
            for endpoint in {c.endpoint for c in late}:
                sweep(endpoint)


def withdraw(k: State, gone: list[Cap], now: int) -> None:
    """Answer the queued calls that were made through capabilities which are no more."""
    endpoints = {cap.endpoint for cap in gone if cap.endpoint is not None}
    for endpoint in endpoints:
        for _, _, c in list(endpoint.queue):
            if c.cap is not None and not c.cap.alive and c.number in c.client.sent:
                fail(k, c, Code.E_REVOKED, f"{endpoint.name}: revoked while queued", now)


# --- system calls -------------------------------------------------------------------------------


def delete(k: State, r: Request) -> None:
    cap = caps.find(k, r.life, r.token)
    caps.abandon(k, cap)
    withdraw(k, [cap], r.now)


def revoke(k: State, r: Request) -> int:
    gone = caps.destroy_below(k, caps.find(k, r.life, r.token))
    withdraw(k, gone, r.now)
    return len(gone)
