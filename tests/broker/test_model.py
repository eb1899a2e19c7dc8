"""The kernel against its specification: whatever tasks do, each is sent exactly what it must be.

Hypothesis plays three servers and a machine, all of them hostile, all of them able to call each
other. After every step the messages of every life, the derivation trees, the queues and the
quotas must be those of `specification`; at the end the recorded events, replayed, must have the
same effects, and nothing of the dead may be left for a garbage collector.
"""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.broker.harness import Kernel, Task, only_reference_counts
from tests.broker.specification import (
    CALLS,
    CAPS,
    MAPPINGS,
    OBJECTS,
    PAGE,
    Cap,
    Heard,
    Life,
    Slot,
    Specification,
)
from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import ALL_RIGHTS, CALL, GRANT, KERNEL_BADGE, READ, RECV, WRITE, Quota
from ukernel.broker import effects
from ukernel.broker.memory import CHANNEL_OPEN
from ukernel.broker.objects import Cap as KernelCap
from ukernel.broker.objects import Channel

QUOTA = Quota(calls=CALLS, caps=CAPS, objects=OBJECTS, mappings=MAPPINGS)
MEMORY = 3 * PAGE
WHO = st.integers(0, 11)
WHICH = st.integers(0, 63)
SOME = st.lists(WHICH, max_size=2)
RARELY = st.sampled_from([False] * 7 + [True])


@pytest.fixture(autouse=True, scope="module")
def nothing_of_other_tests() -> Iterator[None]:
    """The garbage collector looks at what comes into being here, not at all of the suite."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class KernelMachine(RuleBasedStateMachine):
    @initialize()
    def boot(self) -> None:
        self.k = Kernel(QUOTA)
        self.slots = [
            Slot("machine", 250, 3, MEMORY),
            Slot("a", 10, 1, MEMORY),
            Slot("b", 20, 2, MEMORY),
            Slot("c", 20, 3, MEMORY),
        ]
        for slot in self.slots:
            self.k.slot(slot.name, slot.priority, slot.window, slot.memory)
        self.k.device("dev0", "machine")
        self.spec = Specification(self.slots, self.slots[0])
        self.tasks: dict[Life, Task] = {}
        self.dead: list[Task] = []
        self.tokens: list[bytes] = []  # every one that ever was
        self.bodies = 0
        self.seen = len(self.k.sent)
        for slot in self.slots:
            self.start(slot, slot.name == "a")
        gc.disable()

    # --- what can happen -------------------------------------------------------------------------

    def start(self, slot: Slot, drives: bool, standby: bool = False, badge: int = 0) -> None:
        self.spec.begin_step()
        others = [s.name for s in self.slots if s is not slot]
        devices = ["dev0"] if drives else []
        spare = self.k.stand_by(slot.name) if standby else None
        who = self.k.prepare(slot.name) if spare is None else None
        self.k.begin(slot.name, others, devices, badge)
        stamp = self.k.state.slots[slot.name].life
        assert stamp is not None
        life = self.spec.begin(slot, stamp.client, drives, badge)
        if spare is not None:
            task = self.k.welcomed(spare)
        else:
            assert who is not None
            task = self.k.hello(slot.name, *who)
        life.reads = True
        self.tasks[life] = task
        for cap in life.caps:
            name = "self" if cap.thing.slot is slot and cap.thing.kind == "endpoint" else None
            self.learn(cap, task.named[name or cap.thing.name])
        self.settle()

    @precondition(lambda self: any(slot.life is None for slot in self.slots))
    @rule(which=WHICH, drives=st.booleans(), standby=st.booleans(), badge=st.integers(0, 3))
    def begin(self, which: int, drives: bool, standby: bool, badge: int) -> None:
        ended = [slot for slot in self.slots if slot.life is None]
        slot = ended[which % len(ended)]
        drives = drives and self.spec.driver is None and slot.name != "machine"
        self.start(slot, drives, standby, badge)

    @rule(which=st.integers(0, 15), state=st.sampled_from(["dead", "dead", "failed", "stopped"]))
    def end(self, which: int, state: str) -> None:
        if which >= len(self.slots):
            return  # deaths are rarer than what they interrupt
        slot = self.slots[which]
        self.spec.begin_step()
        if slot.life is not None:
            self.dead.append(self.tasks.pop(slot.life))
        self.spec.end(slot, state)
        self.k.end(slot.name, state)
        self.settle()

    @precondition(lambda self: self.dead)
    @rule(which=WHICH)
    def speak_from_the_grave(self, which: int) -> None:
        task = self.dead[which % len(self.dead)]
        self.spec.begin_step()
        task.send(wire.RECV, seq=9, token=task.named["self"])
        self.seen = len(self.k.sent)  # a refusal goes to a connection that is nobody's
        self.settle()

    @rule(who=WHO)
    def cut_off(self, who: int) -> None:
        """A task that does not read: rare, so only one in a dozen."""
        life = self.alive(who)
        if who == 11 and life is not None:
            self.spec.begin_step()
            self.spec.cut_off(life)
            self.k.step(effects.Undeliverable(self.tasks[life].rid))
            self.settle()

    @rule(who=WHO)
    def ready(self, who: int) -> None:
        life = self.alive(who)
        if life is not None:
            code = Code.E_PROTO if life.ready else Code.OK
            life.ready = True
            if life.slot.state == "starting":
                life.slot.state = "ready"
            self.system_call(life, "ready", "cafe", does=lambda: None, code=code)

    @rule(
        who=WHO,
        which=WHICH,
        foreign=RARELY,
        kind=st.sampled_from(["endpoint", "region", "notification", "device"]),
        rights=st.sampled_from([ALL_RIGHTS, ALL_RIGHTS ^ RECV, READ | WRITE | GRANT, CALL, READ]),
        badge=st.integers(0, 3),
    )
    def mint(self, who: int, which: int, foreign: bool, kind: str, rights: int, badge: int) -> None:
        """With rights that it can have, mostly: else it would always be refused."""
        life = self.alive(who)
        if life is not None:
            token = self.token(life, which, foreign, kind)
            held = next((cap.rights for cap in life.caps if cap.token == token), 0)
            mask = ALL_RIGHTS if rights == READ else held
            self.on(life, token, "mint", rights & mask, badge)

    @rule(
        who=WHO,
        which=WHICH,
        foreign=RARELY,
        name=st.sampled_from(["copy", "move", "delete", "revoke", "badges"]),
        kind=st.sampled_from(["", "endpoint", "region", "notification", "device"]),
    )
    def capability(self, who: int, which: int, foreign: bool, name: str, kind: str) -> None:
        life = self.alive(who)
        if life is not None:
            self.on(life, self.token(life, which, foreign, kind), name)

    @rule(who=WHO, which=WHICH, foreign=RARELY, name=st.sampled_from(["signal", "take"]))
    def word(self, who: int, which: int, foreign: bool, name: str) -> None:
        life = self.alive(who)
        if life is not None:
            self.on(life, self.token(life, which, foreign, "notification"), name)

    @rule(who=WHO)
    def notification(self, who: int) -> None:
        life = self.alive(who)
        if life is not None:
            self.system_call(life, "notification", does=lambda: self.spec.notification(life))

    @rule(who=WHO, name=st.sampled_from("xy"), pages=st.integers(0, 2), keep=st.booleans())
    def region(self, who: int, name: str, pages: int, keep: bool) -> None:
        life, size = self.alive(who), pages * PAGE
        if life is not None:
            does = lambda: self.spec.region(life, name, size, keep)  # noqa: E731
            self.system_call(life, "region", name, size, keep, does=does)

    @rule(who=WHO)
    def try_every_token(self, who: int) -> None:
        """A token works for its holder and nobody else, and never again once it is dead."""
        life = self.alive(who)
        if life is None:
            return
        task, mine = self.tasks[life], {cap.token for cap in life.caps}
        for token in self.tokens[-40:]:
            seq = task.seq = task.seq + 1
            self.spec.begin_step()
            task.send(wire.SYS, opcode=6, seq=seq, token=token, body=wire.pack([]))
            reply = task.outcome(seq)
            assert (reply.status == Code.OK) == (token in mine)
            self.settle()

    @rule(
        who=WHO, which=WHICH, foreign=RARELY, send=RARELY, blocking=st.booleans(), bound=RARELY,
        move=st.booleans(), passed=SOME, deadline=st.sampled_from([0, 0, 5, 20]),
        opens=st.booleans(),
    )  # fmt: skip
    def call(
        self,
        who: int,
        which: int,
        foreign: bool,
        send: bool,
        blocking: bool,
        bound: bool,
        move: bool,
        passed: list[int],
        deadline: int,
        opens: bool,
    ) -> None:
        self.call_once(who, which, foreign, send, blocking, bound, move, passed, deadline, opens)

    def call_once(
        self,
        who: int,
        which: int,
        foreign: bool,
        send: bool,
        blocking: bool,
        bound: bool,
        move: bool,
        passed: list[int],
        deadline: int,
        opens: bool,
    ) -> None:
        life = self.alive(who)
        if life is None:
            return
        task, token = self.tasks[life], self.token(life, which, foreign, "endpoint")
        if life.waiting is not None and blocking:
            blocking = False  # an honest task waits for one call at a time
        self.spec.begin_step()
        self.bodies += 1
        seq = task.seq = task.seq + 1
        body = self.bodies.to_bytes(4, "big")
        when = self.k.now + deadline if deadline else 0
        tokens = tuple(self.token(life, at, False) for at in passed)
        flags = 0 if blocking else wire.ASYNC
        flags |= wire.BOUND_LIFE * bound | wire.MOVE * move
        self.spec.call(
            life, token, seq, oneway=send, blocking=blocking and not send, bound=bound,
            move=move, deadline=when, body=body, tokens=tokens, opens=opens,
        )  # fmt: skip
        task.send(
            wire.SEND if send else wire.CALL, flags=flags, seq=seq, token=token,
            deadline_ns=when, caps=tokens, body=body, opcode=CHANNEL_OPEN if opens else 1,
        )  # fmt: skip
        self.settle()

    @rule(
        who=WHO, which=WHICH, move=st.booleans(), passed=SOME, blocking=st.booleans(),
        opens=st.booleans(),
    )  # fmt: skip
    def ask(
        self, who: int, which: int, move: bool, passed: list[int], blocking: bool, opens: bool
    ) -> None:
        """As most calls are: nothing odd about it, and the server has asked for it."""
        self.call_once(who, which, False, False, blocking, False, move, passed, 0, opens)
        for slot in self.slots:
            if slot.life is not None and slot.life.reads and slot.queue:
                self.give_credit(slot.life, 1, self.tasks[slot.life].named["self"])

    @rule(who=WHO, count=st.integers(0, 4), which=WHICH, odd=RARELY)
    def credit(self, who: int, count: int, which: int, odd: bool) -> None:
        life = self.alive(who)
        if life is not None:
            token = self.token(life, which, odd) if odd else self.tasks[life].named["self"]
            self.give_credit(life, count, token)

    def give_credit(self, life: Life, count: int, token: bytes) -> None:
        self.spec.begin_step()
        self.spec.credit(life, token, count)
        self.tasks[life].send(wire.RECV, seq=count, token=token)
        self.settle()

    @precondition(lambda self: any(life.taken for life in self.spec.lives() if life.reads))
    @rule(who=WHO, which=WHICH, passed=SOME, move=st.booleans())
    def reply(self, who: int, which: int, passed: list[int], move: bool) -> None:
        busy = [life for life in self.spec.lives() if life.reads and life.taken]
        if busy:
            life = busy[who % len(busy)]
            call = life.taken[which % len(life.taken)]
            tokens = tuple(self.token(life, at, False) for at in passed)
            self.spec.begin_step()
            self.spec.reply(life, call, tokens, move)
            flags = wire.MOVE if move else 0
            self.tasks[life].send(wire.REPLY, seq=call.number, caps=tokens, flags=flags)
            self.settle()

    @precondition(lambda self: any(life.taken for life in self.spec.lives() if life.reads))
    @rule(who=WHO, which=WHICH, pages=st.integers(0, 3), odd=RARELY)
    def channel(self, who: int, which: int, pages: int, odd: bool) -> None:
        busy = [life for life in self.spec.lives() if life.reads and life.taken]
        asked = [life for life in busy if any(call.opens for call in life.taken)] or busy
        if asked:
            life = asked[who % len(asked)]
            fit = [call for call in life.taken if call.opens and not odd] or life.taken
            number, size = fit[which % len(fit)].number, pages * PAGE
            does = lambda: self.spec.channel(life, number, size)  # noqa: E731
            self.system_call(life, "channel", number, size, does=does)

    @rule(who=WHO, number=st.integers(0, 400))
    def reply_to_nothing(self, who: int, number: int) -> None:
        life = self.alive(who)
        if life is not None and number not in [c.number for c in life.taken]:
            self.spec.begin_step()
            self.tasks[life].send(wire.REPLY, seq=number)
            self.settle()

    @rule(who=WHO, device=WHICH, region=WHICH, writable=st.booleans(), odd=RARELY)
    def dma_map(self, who: int, device: int, region: int, writable: bool, odd: bool) -> None:
        life = self.spec.driver if not odd else self.alive(who)
        if life is None or not life.reads or life.waiting is not None:
            return
        if not any(cap.thing.kind == "region" for cap in life.caps):
            self.region(self.number_of(life), "x", 1, False)
        task = self.tasks[life]
        on = self.token(life, device, False, "device")
        memory = self.token(life, region, False, "region")
        self.spec.begin_step()
        seq = task.seq + 1
        self.spec.dma_map(life, on, memory, writable, seq)
        assert task.post("dma_map", memory, writable, on=on) == seq
        self.settle()

    @rule(ns=st.integers(0, 15))
    def tick(self, ns: int) -> None:
        self.spec.begin_step()
        self.spec.expire(self.k.now + ns)
        self.k.tick(ns)
        self.settle()

    # --- how it is done --------------------------------------------------------------------------

    def alive(self, who: int) -> Life | None:
        reading = [life for life in self.spec.lives() if life.reads]
        return reading[who % len(reading)] if reading else None

    def number_of(self, life: Life) -> int:
        return [each for each in self.spec.lives() if each.reads].index(life)

    def token(self, life: Life, which: int, foreign: bool, kind: str = "") -> bytes:
        """Mostly one of its own, of the kind that makes sense when it has one."""
        if foreign:
            return self.tokens[which % len(self.tokens)]
        fit = [c for c in life.caps if c.thing.kind == kind] or life.caps
        if not fit:
            return bytes(16)
        found = fit[which % len(fit)].token
        assert found is not None
        return found

    def on(self, life: Life, token: bytes, name: str, *args: object) -> None:
        """A system call on a capability."""
        does = lambda: getattr(self.spec, name)(life, token, *args)  # noqa: E731
        self.system_call(life, name, *args, token=token, does=does)

    def system_call(
        self,
        life: Life,
        name: str,
        *args: object,
        does: Any,
        token: bytes = wire.NO_TOKEN,
        code: Code = Code.OK,
    ) -> None:
        self.spec.begin_step()
        seq = self.tasks[life].seq + 1
        if code is Code.OK:
            self.spec.answer(life, seq, does)
        else:
            self.spec.hear(life, "reply", (seq, code, None))
        self.tasks[life].post(name, *args, on=token)
        self.settle()

    def settle(self) -> None:
        """Every life was sent what the specification says, and nobody anything else."""
        self.spec.end_step()
        self.k.root.inbox.clear()
        connections = {task.rid for task in self.tasks.values()} | {self.k.root.rid}
        done = self.k.sent[self.seen :]
        for effect in done:
            assert not isinstance(effect, effects.Send) or effect.rid in connections
        assert sum(isinstance(effect, effects.Shut) for effect in done) == self.spec.shut
        self.seen = len(self.k.sent)
        for life, task in self.tasks.items():
            expected, life.heard = life.heard, []
            got, task.inbox = task.inbox, []
            self.compare(life, expected, got)
            if not life.reads:
                self.peek(life)

    def peek(self, life: Life) -> None:
        """What was passed to a life that was cut off, nobody was told: ask the kernel."""
        real = self.k.state.slots[life.slot.name].life
        assert real is not None
        known = {cap.token for cap in life.caps}
        fresh = tuple(token for token in real.caps if token not in known)
        self.learn_all([(cap, None) for cap in life.caps if cap.token is None], fresh)

    def compare(self, life: Life, expected: list[Heard], got: list[wire.Message]) -> None:
        assert len(got) == len(expected), (life.name, got, expected)
        deliveries = [m for m in got if m.op == wire.DELIVER]
        for m, heard in zip(deliveries, [h for h in expected if h.kind == "deliver"], strict=True):
            self.delivered(m, heard)
        rest = [h for h in expected if h.kind != "deliver"]
        for m in got:
            if m.op != wire.DELIVER:
                rest.remove(self.matching(m, rest))
        assert rest == []

    def delivered(self, m: wire.Message, heard: Heard) -> None:
        badge, stamp = wire.STAMP.unpack(m.token)
        body = m.body
        if badge == KERNEL_BADGE:
            device, iova, size, writable, _ = wire.unpack(m.body)
            assert device == 0
            body = repr((iova, size, writable)).encode()
        assert (badge, stamp, body, bool(m.flags & wire.ONEWAY)) == heard.what
        assert heard.call is not None
        heard.call.number = m.seq
        self.learn_all(heard.caps, m.caps)

    def matching(self, m: wire.Message, rest: list[Heard]) -> Heard:
        """What was expected of this message: replies and notices have no order in a step."""
        for heard in rest:
            if self.is_that(m, heard):
                self.learn_all(heard.caps, m.caps if heard.kind != "token" else (m_token(m),))
                return heard
        raise AssertionError(f"{m} is not among {rest}")

    def is_that(self, m: wire.Message, heard: Heard) -> bool:
        if m.op == wire.NOTICE:
            body = wire.unpack(m.body)
            match m.opcode:
                case wire.NOTICE_UNHELD:
                    return (heard.kind, heard.what) == ("unheld", tuple(sorted(body)))
                case wire.NOTICE_UNMAP:
                    return (heard.kind, heard.what) == ("unmap", (body[1],))
                case wire.NOTICE_DEVICE:
                    return (heard.kind, heard.what) == ("device", tuple(body[:3]))
        if heard.kind == "tags":
            return heard.what == (m.seq,) and m.status == Code.OK and len(wire.unpack(m.body)) == 2
        if heard.kind == "token":
            return heard.what == (m.seq,) and m.status == Code.OK
        if heard.kind == "outcome":
            return heard.what == (m.seq, m.status) and len(m.caps) == len(heard.caps)
        if heard.kind == "reply" and heard.what[:2] == (m.seq, m.status):
            return m.status != Code.OK or wire.unpack(m.body) == heard.what[2]
        return False

    def learn_all(self, caps: list[tuple[Cap, bytes | None]], tokens: tuple[bytes, ...]) -> None:
        assert len(caps) == len(tokens)
        for (cap, known), token in zip(caps, tokens, strict=True):
            if known is None:
                self.learn(cap, token)
            assert known in (None, token)

    def learn(self, cap: Cap, token: bytes) -> None:
        if cap.token is None:
            assert token not in self.tokens, "a token names one capability, once"
            cap.token = token
            self.tokens.append(token)
        assert cap.token == token

    # --- what always holds -----------------------------------------------------------------------

    @invariant()
    def the_trees_are_as_specified(self) -> None:
        k, spec = self.k.state, self.spec
        things = [*spec.endpoints.values(), spec.device, *spec.things]
        expected = {
            cap.token: (
                cap.thing.kind, cap.rights, cap.badge, cap.parent.token if cap.parent else None,
                cap.holder.name, cap.payer.name,
            )
            for thing in things
            for cap in spec.tree(thing)
        }  # fmt: skip
        root = set(k.root.caps)
        found = {token: self.row(cap) for token, cap in k.caps.items() if token not in root}
        assert found == expected
        for cap in k.caps.values():
            assert cap.alive
            assert cap.parent is not None
            assert not cap.rights & ~cap.parent.rights
            assert cap in cap.parent.children

    def row(self, cap: KernelCap) -> tuple[object, ...]:
        assert cap.holder is not None
        assert cap.parent is not None
        above = cap.parent.token or None
        return cap.obj.kind, cap.rights, cap.badge, above, cap.holder.name, cap.payer.name

    @invariant()
    def queues_and_quotas_are_as_specified(self) -> None:
        for slot in self.slots:
            real = self.k.state.slots[slot.name]
            assert real.state == slot.state
            assert real.endpoint.credit == slot.credit
            assert [c.seq for _, _, c in sorted(real.endpoint.queue, key=lambda e: e[:2])] == [
                c.seq for c in sorted(slot.queue, key=lambda c: (-c.priority, c.order))
            ]
            assert real.region_bytes == self.spec.region_bytes(slot) <= slot.memory
            assert set(real.regions) == set(slot.kept)
            badges = self.spec.badges_of(slot)
            assert set(real.endpoint.badges) == badges
            if slot.life is not None:
                self.life_is_as_specified(slot, slot.life)
        assert len(self.k.state.memory) == len(self.spec.things)
        assert self.channels() == {
            (t.cap.token, t.size, t.owner.name, t.server.name)
            for t in self.spec.things
            if t.cap and t.owner and t.server
        }
        assert self.k.state.devices["dev0"].domain == self.spec.domain

    def channels(self) -> set[tuple[bytes, int, str, str]]:
        """Each with the token of the capability that it stands for."""
        found = [c for c in self.k.state.memory.values() if isinstance(c, Channel)]
        assert found == [c.cap.channel for c in found]
        return {(c.cap.token, c.size, c.owner.name, c.server.name) for c in found if c.owner}

    def life_is_as_specified(self, slot: Slot, life: Life) -> None:
        real = self.k.state.slots[slot.name].life
        assert real is not None
        assert set(real.caps) == {cap.token for cap in life.caps}
        assert real.paid == life.paid <= CAPS
        assert Counter(c.seq for c in real.sent.values()) == Counter(c.seq for c in life.open)
        assert len(life.open) <= CALLS
        assert set(real.taken) == {c.number for c in life.taken}
        assert slot.credit + len(life.taken) <= slot.window
        assert len(real.owned) == len(self.spec.objects(life)) <= OBJECTS
        assert real.queued_bytes == sum(len(c.payload) for c in real.sent.values())
        waiting = life.waiting.seq if life.waiting is not None else None
        assert (real.waiting.seq if real.waiting is not None else None) == waiting

    def teardown(self) -> None:
        if not hasattr(self, "k"):
            return
        try:
            kept = sum(len(slot.kept) for slot in self.slots)
            self.tasks.clear()
            with only_reference_counts() as unreachable:
                for slot in self.slots:
                    self.k.end(slot.name, syscalls.STOPPED)
            assert unreachable == []
            state = self.k.state
            assert list(state.lives.values()) == [state.root]
            assert list(state.bound) == [self.k.root.rid]
            assert set(state.caps) == set(state.root.caps)
            assert len(state.memory) == kept
            assert not any(slot.endpoint.queue for slot in state.slots.values())
            assert self.k.replayed() == self.k.sent
        finally:
            gc.enable()


def m_token(m: wire.Message) -> bytes:
    token: bytes = wire.unpack(m.body)
    return token


TestKernel = KernelMachine.TestCase
TestKernel.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# What a busy system does, and how often: Hypothesis looks for the short and odd instead.
HABITS = {
    "ask": 20, "reply": 20, "call": 10, "channel": 10, "credit": 8, "capability": 10, "mint": 8,
    "word": 3, "region": 5, "notification": 2, "dma_map": 6, "tick": 4, "ready": 1,
    "reply_to_nothing": 1, "try_every_token": 1, "speak_from_the_grave": 1, "cut_off": 1,
    "end": 4, "begin": 6,
}  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_long_life(seed: int) -> None:
    dice = random.Random(seed)
    machine = KernelMachine()
    machine.boot()
    try:
        for name in dice.choices([*HABITS], [*HABITS.values()], k=STEPS):
            arguments = {key: draw(dice) for key, draw in DRAWS[name].items()}
            if name == "begin" and all(slot.life for slot in machine.slots):
                continue
            if name == "speak_from_the_grave" and not machine.dead:
                continue
            getattr(machine, name)(**arguments)
            machine.the_trees_are_as_specified()
            machine.queues_and_quotas_are_as_specified()
    finally:
        machine.teardown()


STEPS = 700
Draw = Callable[[random.Random], Any]


def number(below: int) -> Draw:
    return lambda dice: dice.randrange(below)


def one_of(*values: object) -> Draw:
    return lambda dice: dice.choice(values)


def some(dice: random.Random) -> list[int]:
    return [dice.randrange(64) for _ in range(dice.choice([0, 0, 1, 1, 2, 3]))]


ME, ANY, COIN, SELDOM = number(12), number(64), one_of(False, True), one_of(True, *[False] * 9)
KINDS = one_of("", "endpoint", "endpoint", "region", "notification", "device")
DRAWS: dict[str, dict[str, Draw]] = {
    "ask": {
        "who": ME, "which": ANY, "move": COIN, "passed": some, "blocking": COIN, "opens": COIN,
    },
    "channel": {"who": ME, "which": ANY, "pages": number(4), "odd": SELDOM},
    "reply": {"who": ME, "which": ANY, "passed": some, "move": COIN},
    "call": {
        "who": ME, "which": ANY, "foreign": SELDOM, "send": SELDOM, "blocking": COIN,
        "bound": COIN, "move": COIN, "passed": some, "deadline": one_of(0, 5, 20), "opens": COIN,
    },
    "credit": {"who": ME, "count": number(5), "which": ANY, "odd": SELDOM},
    "capability": {
        "who": ME, "which": ANY, "foreign": SELDOM, "kind": KINDS,
        "name": one_of("copy", "move", "delete", "delete", "revoke", "badges"),
    },
    "mint": {
        "who": ME, "which": ANY, "foreign": SELDOM, "kind": KINDS, "badge": number(4),
        "rights": one_of(ALL_RIGHTS, ALL_RIGHTS ^ RECV, READ | WRITE | GRANT, CALL, READ),
    },
    "word": {"who": ME, "which": ANY, "foreign": SELDOM, "name": one_of("signal", "take")},
    "region": {"who": ME, "name": one_of("x", "y"), "pages": number(3), "keep": SELDOM},
    "notification": {"who": ME},
    "dma_map": {"who": ME, "device": ANY, "region": ANY, "writable": COIN, "odd": SELDOM},
    "tick": {"ns": number(16)},
    "ready": {"who": ME},
    "reply_to_nothing": {"who": ME, "number": number(400)},
    "try_every_token": {"who": ME},
    "speak_from_the_grave": {"which": ANY},
    "cut_off": {"who": ME},
    "end": {"which": number(6), "state": one_of("dead", "dead", "failed", "stopped")},
    "begin": {"which": ANY, "drives": COIN, "standby": COIN, "badge": number(4)},
}  # fmt: skip
