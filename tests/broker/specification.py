"""specification: what the kernel must do, said a second time with plain sets and lists.

Shares no code with the broker. Every method is one thing that a task or the root task does; it
changes the specification's own state and appends to `Life.heard` what each life must be sent.
Where the kernel chooses a value (a token, a call's number), the record is filled in by `learn`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ukernel.abi.errors import Code
from ukernel.abi.syscalls import ALL_RIGHTS, CALL, GRANT, KERNEL_BADGE, READ, RECV, WRITE

PAGE = 4096
FIRST_IOVA = 0x1000_0000
GIVEN_UP = ("failed", "stopped")

# What a quota is in this test: small, so that all of them are met.
CALLS, CAPS, OBJECTS, MAPPINGS = 4, 16, 3, 2


class No(Exception):
    """A refusal."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass(eq=False, repr=False)  # records refer to each other in circles
class Thing:
    """An object: an endpoint or the device (`slot` serves it), a region, a notification, a channel.

    What ends with a life has it as its `owner`; a channel ends with its `server` and `cap` as well.
    """

    kind: str
    name: str
    slot: Slot
    size: int = 0
    owner: Life | None = None
    server: Life | None = None
    cap: Cap | None = None
    word: int = 0
    tops: list[Cap] = field(default_factory=list)  # derived from the kernel's own capability


@dataclass(eq=False, repr=False)
class Cap:
    thing: Thing
    rights: int
    badge: int
    parent: Cap | None
    holder: Life
    payer: Life
    token: bytes | None = None
    children: list[Cap] = field(default_factory=list)
    lent: dict[Life, Cap] = field(default_factory=dict)
    mapped: set[int] = field(default_factory=set)
    channel: Thing | None = None

    @property
    def siblings(self) -> list[Cap]:
        return self.thing.tops if self.parent is None else self.parent.children


@dataclass(eq=False, repr=False)
class Call:
    order: int
    client: Life
    cap: Cap | None
    slot: Slot
    badge: int
    seq: int
    priority: int
    body: bytes
    blocking: bool
    bound: bool
    oneway: bool
    move: bool
    deadline: int
    tokens: tuple[bytes, ...]
    opens: bool = False  # asks for a channel, and has not had it yet
    number: int = 0  # the kernel's, once delivered


@dataclass(eq=False, repr=False)
class Life:
    slot: Slot
    name: str
    stamp: int
    reads: bool = True  # has said hello and was not cut off
    ready: bool = False
    caps: list[Cap] = field(default_factory=list)
    paid: int = 0
    lost: list[bytes] = field(default_factory=list)  # tokens that were revoked
    open: list[Call] = field(default_factory=list)
    taken: list[Call] = field(default_factory=list)
    waiting: Call | None = None
    heard: list[Heard] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class Slot:
    name: str
    priority: int
    window: int
    memory: int
    number: int = 0
    state: str = "new"
    life: Life | None = None
    credit: int = 0
    queue: list[Call] = field(default_factory=list)
    stale: set[bytes] = field(default_factory=set)
    kept: dict[str, Thing] = field(default_factory=dict)  # persistent regions


@dataclass
class Heard:
    """A message that a life must be sent, and the records whose values it brings."""

    kind: str
    what: tuple[object, ...]
    caps: list[tuple[Cap, bytes | None]]  # with the token it has by then, None: a fresh one
    call: Call | None = None


class Specification:
    def __init__(self, slots: list[Slot], machine: Slot) -> None:
        self.slots = {slot.name: slot for slot in slots}
        self.machine = machine
        self.endpoints = {slot: Thing("endpoint", slot.name, slot) for slot in slots}
        self.device = Thing("device", "dev0", machine)
        self.driver: Life | None = None
        self.epoch = 0
        self.next_iova = FIRST_IOVA
        self.domain: set[int] = set()
        self.things: list[Thing] = []  # regions, notifications, channels
        self.shut = 0  # channels that were closed in this step
        self.order = 0
        self.before: dict[Slot, set[int]] = {}

    # --- around a step ---------------------------------------------------------------------------

    def begin_step(self) -> None:
        self.shut = 0
        self.before = {slot: self.badges_of(slot) for slot in self.slots.values()}

    def end_step(self) -> None:
        """Badges that nobody holds any more are told to their server."""
        for slot, before in self.before.items():
            gone = before - self.badges_of(slot)
            if gone and slot.life is not None:
                self.hear(slot.life, "unheld", tuple(sorted(gone)))

    def badges_of(self, slot: Slot) -> set[int]:
        return {cap.badge for cap in self.tree(self.endpoints[slot])} - {0}

    def tree(self, thing: Thing) -> list[Cap]:
        found, todo = [], list(thing.tops)
        while todo:
            cap = todo.pop()
            found.append(cap)
            todo += cap.children
        return found

    def lives(self) -> list[Life]:
        return [slot.life for slot in self.slots.values() if slot.life is not None]

    def hear(
        self,
        life: Life,
        kind: str,
        what: tuple[object, ...],
        caps: list[Cap] | None = None,
        call: Call | None = None,
    ) -> None:
        if life.reads:
            named = [(cap, cap.token) for cap in caps or []]
            life.heard.append(Heard(kind, what, named, call))

    def answer(self, life: Life, seq: int, how: Callable[[], object]) -> None:
        """A system call: its reply is its result or its refusal."""
        try:
            result = how()
        except No as no:
            self.hear(life, "reply", (seq, no.code, None))
            return
        if isinstance(result, Cap):
            self.hear(life, "token", (seq,), [result])
        elif isinstance(result, Thing):
            self.hear(life, "tags", (seq,))
        else:
            self.hear(life, "reply", (seq, Code.OK, result))

    # --- capabilities ----------------------------------------------------------------------------

    def find(self, life: Life, token: bytes, rights: int = 0) -> Cap:
        for cap in life.caps:
            if cap.token == token:
                if rights & ~cap.rights:
                    raise No(Code.E_DENIED)
                return cap
        if token in life.lost:
            raise No(Code.E_REVOKED)
        raise No(Code.E_STALE_LIFE if token in life.slot.stale else Code.E_DENIED)

    def held(self, life: Life, token: bytes, kind: str, rights: int = 0) -> Cap:
        cap = self.find(life, token, rights)
        if cap.thing.kind != kind:
            raise No(Code.E_DENIED)
        return cap

    def room(self, payer: Life, count: int) -> None:
        if payer.paid + count > CAPS:
            raise No(Code.E_OVERLOAD)

    def new_cap(
        self, thing: Thing, parent: Cap | None, holder: Life, payer: Life, rights: int, badge: int
    ) -> Cap:
        self.room(payer, 1)
        cap = Cap(thing, rights, badge, parent, holder, payer)
        cap.siblings.append(cap)
        payer.paid += 1
        holder.caps.append(cap)
        return cap

    def mint(self, life: Life, token: bytes, rights: int, badge: int) -> Cap:
        cap = self.find(life, token)
        forged = badge and badge != cap.badge and (
            cap.badge or (cap.thing.kind == "endpoint" and not cap.rights & RECV)
        )  # fmt: skip
        if rights & ~cap.rights or forged:
            raise No(Code.E_DENIED)
        return self.new_cap(cap.thing, cap, life, life, rights, badge or cap.badge)

    def copy(self, life: Life, token: bytes) -> Cap:
        cap = self.find(life, token)
        return self.new_cap(cap.thing, cap.parent, life, life, cap.rights, cap.badge)

    def move(self, life: Life, token: bytes) -> Cap:
        cap = self.find(life, token)
        self.hand_over(cap, life, cap.payer)
        return cap

    def hand_over(self, cap: Cap, target: Life, payer: Life) -> None:
        self.let_go(cap)
        cap.holder, cap.payer, cap.token = target, payer, None
        payer.paid += 1
        target.caps.append(cap)

    def let_go(self, cap: Cap) -> None:
        cap.holder.caps.remove(cap)
        cap.payer.paid -= 1
        if cap.parent is not None and cap.parent.lent.get(cap.holder) is cap:
            del cap.parent.lent[cap.holder]
        if cap.channel is not None:
            self.destroy(cap.channel)

    def remove(self, cap: Cap) -> None:
        """One capability ends; what was derived from it belongs to its parent."""
        self.let_go(cap)
        cap.siblings.remove(cap)
        for child in cap.children:
            child.parent = cap.parent
            child.siblings.append(child)
        cap.children = []
        for iova in sorted(cap.mapped & self.domain):
            self.domain.remove(iova)
            if self.machine.life is not None:
                self.hear(self.machine.life, "unmap", (iova,))

    def delete(self, life: Life, token: bytes) -> None:
        self.abandon(self.find(life, token))

    def abandon(self, cap: Cap) -> None:
        self.remove(cap)
        self.withdraw([cap])
        if cap.thing.owner is not None and not cap.thing.tops:
            self.destroy(cap.thing)

    def destroy(self, thing: Thing) -> None:
        if thing in self.things:
            self.things.remove(thing)
            self.take_back(thing.tops)
            if thing.cap is not None:
                thing.cap.channel = None
                self.shut += 1

    def revoke(self, life: Life, token: bytes) -> int:
        return self.take_back(self.find(life, token).children)

    def take_back(self, tops: list[Cap]) -> int:
        gone, todo = [], list(tops)
        while todo:
            cap = todo.pop()
            gone.append(cap)
            todo += cap.children
        for cap in reversed(gone):
            assert cap.token is not None
            cap.holder.lost.append(cap.token)
            self.remove(cap)
        self.withdraw(gone)
        return len(gone)

    def withdraw(self, gone: list[Cap]) -> None:
        for slot in self.slots.values():
            for call in [c for c in slot.queue if c.cap in gone]:
                self.finish(call, Code.E_REVOKED)

    def pass_on(self, source: Life, target: Life, payer: Life, call: Call) -> list[Cap]:
        """The capabilities of a message, as its receiver holds them."""
        found = [self.find(source, token, GRANT) for token in call.tokens]
        if call.move:
            new = {cap for cap in found if cap.payer is not payer}
        else:
            new = {cap for cap in found if target not in cap.lent}
        self.room(payer, len(new))
        given = []
        for cap in found:
            if call.move:
                self.hand_over(cap, target, payer)
                given.append(cap)
                continue
            if target not in cap.lent:
                made = self.new_cap(cap.thing, cap, target, payer, cap.rights, cap.badge)
                cap.lent[target] = made
            given.append(cap.lent[target])
        return given

    # --- calls -----------------------------------------------------------------------------------

    def call(
        self,
        life: Life,
        token: bytes,
        seq: int,
        *,
        oneway: bool,
        blocking: bool,
        bound: bool,
        move: bool,
        deadline: int,
        body: bytes,
        tokens: tuple[bytes, ...],
        opens: bool,
    ) -> None:
        try:
            cap = self.find(life, token, CALL)
            if cap.thing.kind not in ("endpoint", "device"):
                raise No(Code.E_PROTO)
            call = Call(
                self.order, life, cap, cap.thing.slot, cap.badge, seq, life.slot.priority, body,
                blocking, bound, oneway, move, deadline, tokens, opens,
            )  # fmt: skip
            self.check(call)
        except No as no:
            self.hear(life, "reply", (seq, no.code, None))
            return
        self.admit(call)

    def check(self, call: Call) -> None:
        life, slot = call.client, call.slot
        if slot.state in GIVEN_UP:
            raise No(Code.E_UNAVAILABLE)
        if call.bound and slot.life is None:
            raise No(Code.E_DEAD_NOTRUN)
        if len(life.open) >= CALLS:
            raise No(Code.E_OVERLOAD)
        if call.blocking and self.waits_for(slot, life):
            raise No(Code.E_DEADLOCK)
        for token in call.tokens:
            self.find(life, token, GRANT)

    def waits_for(self, slot: Slot, life: Life) -> bool:
        """Whether the task in `slot` waits, at the end of its chain, for `life`."""
        if slot.life is None:
            return False
        if slot.life is life:
            return True
        return slot.life.waiting is not None and self.waits_for(slot.life.waiting.slot, life)

    def admit(self, call: Call) -> None:
        self.order += 1
        call.order = self.order
        call.client.open.append(call)
        if call.blocking:
            call.client.waiting = call
        call.slot.queue.append(call)
        self.pump(call.slot)

    def pump(self, slot: Slot) -> None:
        while slot.credit and slot.queue:
            self.deliver(min(slot.queue, key=lambda c: (-c.priority, c.order)))

    def deliver(self, call: Call) -> None:
        slot, server = call.slot, call.slot.life
        assert server is not None
        try:
            given = self.pass_on(call.client, server, call.client, call)
        except No as no:
            self.finish(call, no.code)
            return
        slot.queue.remove(call)
        slot.credit -= 1
        self.hear(
            server, "deliver", (call.badge, call.client.stamp, call.body, call.oneway), given, call
        )
        if call.oneway:
            self.finish(call, Code.OK)
        else:
            server.taken.append(call)

    def finish(self, call: Call, code: Code, given: list[Cap] | None = None) -> None:
        """The one outcome."""
        call.client.open.remove(call)
        if call in call.slot.queue:
            call.slot.queue.remove(call)
        if call.client.waiting is call:
            call.client.waiting = None
        if not call.oneway:
            self.hear(call.client, "outcome", (call.seq, code), given)

    def credit(self, life: Life, token: bytes, count: int) -> None:
        """Refusals are answered under the number that stands where others have theirs."""
        try:
            cap = self.held(life, token, "endpoint", RECV)
            if cap.thing.slot.life is not life:
                raise No(Code.E_DENIED)
        except No as no:
            self.hear(life, "reply", (count, no.code, None))
            return
        slot = life.slot
        slot.credit += max(0, min(count, slot.window - len(life.taken) - slot.credit))
        self.pump(slot)

    def reply(self, life: Life, call: Call, tokens: tuple[bytes, ...], move: bool) -> None:
        life.taken.remove(call)
        life.slot.credit += 1
        given: list[Cap] = []
        if call in call.client.open:
            message = Call(**{**call.__dict__, "tokens": tokens, "move": move})
            try:
                given = self.pass_on(life, call.client, call.client, message)
            except No as no:
                self.finish(call, no.code)
            else:
                self.finish(call, Code.OK, given)
        if move:
            for cap in [c for c in life.caps if c.token in tokens]:
                self.abandon(cap)
        self.pump(life.slot)

    def expire(self, now: int) -> None:
        for life in self.lives():
            for call in [c for c in life.open if 0 < c.deadline <= now]:
                self.finish(call, Code.E_DEADLINE)

    # --- memory and the device -------------------------------------------------------------------

    def objects(self, life: Life) -> list[Thing]:
        return [t for t in self.things if t.owner is life]

    def region_bytes(self, slot: Slot) -> int:
        return sum(t.size for t in self.things if t.slot is slot)

    def new_thing(self, life: Life, kind: str, name: str, size: int, keep: bool) -> Thing:
        self.room(life, 1)
        if len(self.objects(life)) + len(life.slot.kept) >= OBJECTS:
            raise No(Code.E_OVERLOAD)
        made = Thing(kind, name, life.slot, size, None if keep else life)
        self.things.append(made)
        return made

    def region(self, life: Life, name: str, size: int, keep: bool) -> Cap:
        slot = life.slot
        found = slot.kept.get(name) if keep else None
        if found is None:
            if size == 0:
                raise No(Code.E_PROTO)
            if self.region_bytes(slot) + size > slot.memory:
                raise No(Code.E_OVERLOAD)
            found = self.new_thing(life, "region", name, size, keep)
            if keep:
                slot.kept[name] = found
        elif found.size != size:
            raise No(Code.E_PROTO)
        return self.new_cap(found, None, life, life, READ | WRITE | GRANT, 0)

    def channel(self, life: Life, number: int, size: int) -> Thing:
        asked = [c for c in life.taken if c.number == number and c.opens and c in c.client.open]
        cap = asked[0].cap if asked else None
        if cap is None or cap not in asked[0].client.caps:
            raise No(Code.E_UNAVAILABLE)
        if size == 0:
            raise No(Code.E_PROTO)
        if cap.channel is not None:
            self.destroy(cap.channel)
        client = asked[0].client
        try:
            if self.region_bytes(client.slot) + size > client.slot.memory:
                raise No(Code.E_OVERLOAD)
            made = self.new_thing(client, "channel", "", size, False)
        except No:
            raise No(Code.E_NO_MEMORY) from None
        made.server, made.cap, asked[0].opens = life, cap, False
        cap.channel = made
        return made

    def notification(self, life: Life) -> Cap:
        made = self.new_thing(life, "notification", "", 0, False)
        return self.new_cap(made, None, life, life, READ | WRITE | GRANT, 0)

    def signal(self, life: Life, token: bytes) -> None:
        cap = self.held(life, token, "notification", WRITE)
        cap.thing.word |= cap.badge or 1

    def take(self, life: Life, token: bytes) -> int:
        thing = self.held(life, token, "notification", READ).thing
        word, thing.word = thing.word, 0
        return word

    def badges(self, life: Life, token: bytes) -> list[int]:
        return sorted(self.badges_of(self.held(life, token, "endpoint", RECV).thing.slot))

    def dma_map(self, life: Life, device: bytes, region: bytes, writable: bool, seq: int) -> None:
        """Granted, the machine's reply is the reply."""
        try:
            self.held(life, device, "device", CALL)
            cap = self.held(life, region, "region", READ | WRITE if writable else READ)
            if self.machine.life is None:
                raise No(Code.E_UNAVAILABLE)
            if len(self.domain) >= MAPPINGS:
                raise No(Code.E_OVERLOAD)
            body = repr((self.next_iova, cap.thing.size, writable)).encode()
            call = Call(
                0, life, None, self.machine, KERNEL_BADGE, seq, life.slot.priority, body,
                True, False, False, False, 0, (),
            )  # fmt: skip
            self.check(call)
        except No as no:
            self.hear(life, "reply", (seq, no.code, None))
            return
        cap.mapped.add(self.next_iova)
        self.domain.add(self.next_iova)
        self.next_iova += cap.thing.size + PAGE
        self.admit(call)

    # --- lives -----------------------------------------------------------------------------------

    def begin(self, slot: Slot, stamp: int, drives: bool, badge: int = 0) -> Life:
        slot.number += 1
        slot.state, slot.credit = "starting", 0
        life = slot.life = Life(slot, f"{slot.name}#{slot.number}", stamp, reads=False)
        self.new_cap(self.endpoints[slot], None, life, life, RECV | CALL | GRANT, 0)
        for other in self.slots.values():
            if other is not slot:
                self.new_cap(self.endpoints[other], None, life, life, CALL | GRANT, badge)
        if drives:
            self.drive(life)
            self.new_cap(self.device, None, life, life, CALL, self.epoch << 16)
        return life

    def drive(self, life: Life | None) -> None:
        self.driver = life
        self.epoch += 1
        if self.machine.life is not None:
            name = life.slot.name if life is not None else ""
            self.hear(self.machine.life, "device", (0, self.epoch, name))

    def end(self, slot: Slot, state: str) -> None:
        slot.state, life, slot.life = state, slot.life, None
        if life is not None:
            self.bury(slot, life)
        if state in GIVEN_UP:
            for call in list(slot.queue):
                self.finish(call, Code.E_UNAVAILABLE)

    def bury(self, slot: Slot, life: Life) -> None:
        life.reads = False
        for call in list(life.open):
            self.finish(call, Code.E_STALE_LIFE)  # which nobody hears
        for call in life.taken:
            if call in call.client.open:
                self.finish(call, Code.E_DEAD_UNKNOWN)
        life.taken = []
        for call in [c for c in slot.queue if c.bound]:
            self.finish(call, Code.E_DEAD_NOTRUN)
        slot.credit = 0
        slot.stale = {cap.token for cap in life.caps if cap.token is not None}
        if self.driver is life:
            self.domain.clear()
            self.take_back(self.device.tops)
            self.drive(None)
        for thing in [t for t in self.things if life in (t.owner, t.server)]:
            self.destroy(thing)
        for thing in slot.kept.values():
            self.take_back(thing.tops)
        for cap in list(life.caps):
            self.abandon(cap)

    def cut_off(self, life: Life) -> None:
        life.reads = False
        life.slot.credit = 0


assert ALL_RIGHTS == READ | WRITE | CALL | RECV | GRANT
