"""harness: the kernel as a function, with tasks that are no processes. No clock, no socket.

k = Kernel()
server = k.task("server")
client = k.task("client", calls=["server"])
server.credit()
seq = client.call("server", body=b"hello")
server.answer(server.delivery(), b"world")
assert client.outcome(seq).body == b"world"
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import CALL, GRANT, Grant, Quota
from ukernel.broker import effects, lives
from ukernel.broker.objects import Life, Region
from ukernel.broker.state import State
from ukernel.broker.step import LOW_TOKENS, step

NUMBERS = {
    operation.name: number
    for number, operation in {**syscalls.Kernel.ops, **syscalls.Control.ops}.items()
}


class Refused(Exception):
    """A system call that was not granted."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{Code(code).name}: {text}")
        self.code = code


@dataclass
class Task:
    """One life of a slot, as a process would see it."""

    k: Kernel
    name: str
    rid: bytes
    named: dict[str, bytes]
    inbox: list[wire.Message] = field(default_factory=list)
    seq: int = 0

    @property
    def life(self) -> Life:
        found = self.k.state.slots[self.name].life
        assert found is not None
        return found

    def send(self, op: int, **fields: Any) -> None:
        self.raw(wire.encode(op, **fields))

    def raw(self, frame: bytes) -> None:
        self.k.step(effects.Arrived(self.k.now, self.rid, frame, 0))

    def token(self, what: str | bytes) -> bytes:
        return self.named[what] if isinstance(what, str) else what

    def sys(self, name: str, *args: object, on: str | bytes = wire.NO_TOKEN) -> Any:
        """A system call and its result. Raises Refused."""
        self.seq += 1
        body = wire.pack(list(args))
        token = self.token(on)
        self.send(wire.SYS, opcode=NUMBERS[name], seq=self.seq, token=token, body=body)
        reply = self.outcome(self.seq)
        if reply.status:
            raise Refused(reply.status, wire.unpack(reply.body)[0])
        return wire.unpack(reply.body)

    def post(self, name: str, *args: object, on: str | bytes) -> int:
        """A system call whose reply comes later."""
        self.seq += 1
        body, token = wire.pack(list(args)), self.token(on)
        self.send(wire.SYS, opcode=NUMBERS[name], seq=self.seq, token=token, body=body)
        return self.seq

    def call(self, to: str | bytes, op: int = wire.CALL, **fields: Any) -> int:
        self.seq += 1
        self.send(op, seq=self.seq, token=self.token(to), **fields)
        return self.seq

    def credit(self, count: int = 255) -> None:
        self.send(wire.RECV, seq=count, token=self.named["self"])

    def answer(self, to: wire.Message, body: bytes = b"", **fields: Any) -> None:
        self.send(wire.REPLY, seq=to.seq, body=body, **fields)

    def take(self, match: Callable[[wire.Message], bool]) -> list[wire.Message]:
        """Messages of a kind, taken out of the inbox."""
        found = [m for m in self.inbox if match(m)]
        self.inbox = [m for m in self.inbox if not match(m)]
        return found

    def deliveries(self) -> list[wire.Message]:
        return self.take(lambda m: m.op == wire.DELIVER)

    def delivery(self) -> wire.Message:
        (found,) = self.deliveries()
        return found

    def outcomes(self, seq: int) -> list[wire.Message]:
        return self.take(lambda m: m.op == wire.REPLY and m.seq == seq)

    def outcome(self, seq: int) -> wire.Message:
        (found,) = self.outcomes(seq)
        return found

    def notices(self, kind: int) -> list[Any]:
        found = self.take(lambda m: m.op == wire.NOTICE and m.opcode == kind)
        return [wire.unpack(m.body) for m in found]

    def events(self, kind: str) -> list[list[Any]]:
        """What the root task was told, of one kind; the rest is dropped."""
        return [e for e in self.notices(wire.NOTICE_EVENT) if e[0] == kind]


class Kernel:
    """`step` and the mailboxes of everybody; `last` holds the effects of the last step."""

    def __init__(self, quota: Quota | None = None) -> None:
        self.quota = quota
        self.state = State()
        self.now = 1_000
        self.issued = 0
        self.refilling = False
        self.pids = 100
        self.secrets: dict[str, tuple[bytes, int]] = {}
        self.log: list[effects.Event] = []
        self.sent: list[effects.Effect] = []
        self.last: list[effects.Effect] = []
        self.tasks: dict[bytes, Task] = {}
        self.slots: dict[str, bytes] = {}  # task capabilities, of the root task
        self.refill()
        root = lives.boot(self.state, 1, self.now)
        self.root = self.hello("root", root.secret, 1)

    def step(self, event: effects.Event) -> list[effects.Effect]:
        self.log.append(event)
        self.last = step(self.state, event)
        for life in self.state.lives.values():
            if self.quota is not None and life is not self.state.root:
                life.quota = self.quota
        self.sent += self.last
        for effect in self.last:
            if isinstance(effect, effects.Send) and effect.rid in self.tasks:
                m = wire.decode(effect.frame)
                assert isinstance(m, wire.Message), m
                self.tasks[effect.rid].inbox.append(m)
        if self.refilling and len(self.state.tokens) < LOW_TOKENS:
            self.refill()
        return self.last

    def replayed(self) -> list[effects.Effect]:
        """The effects of the same events on a kernel that has just been booted."""
        again = Kernel(self.quota)
        again.refilling = False
        for event in self.log[len(again.log) :]:
            again.step(event)
        return again.sent

    def refill(self) -> None:
        first = self.issued
        self.issued += LOW_TOKENS
        tokens = [b"token..." + at.to_bytes(8, "big") for at in range(first, self.issued)]
        self.refilling = False
        self.step(effects.Refill(tokens))
        self.refilling = True

    def tick(self, ns: int = 0) -> None:
        self.now += ns
        self.step(effects.Tick(self.now))

    def hello(self, name: str, secret: bytes, pid: int) -> Task:
        rid = b"\0" + len(self.tasks).to_bytes(4, "big")
        task = self.tasks[rid] = Task(self, name, rid, {})
        self.step(effects.Arrived(self.now, rid, wire.encode(wire.HELLO, token=secret), pid))
        return self.welcomed(task)

    def welcomed(self, task: Task) -> Task:
        """The task once its HELLO has been answered."""
        reply = task.outcome(0)
        if reply.status:
            raise Refused(reply.status, wire.unpack(reply.body)[0])
        _, _, task.named = wire.unpack(reply.body)
        return task

    def slot(self, name: str, priority: int = 100, window: int = 8, memory: int = 1 << 20) -> bytes:
        if name not in self.slots:
            on = self.root.named["control"]
            self.slots[name] = self.root.sys("slot", name, priority, window, memory, on=on)
        return self.slots[name]

    def device(self, name: str, machine: str) -> int:
        index: int = self.root.sys("device", name, machine, on="control")
        return index

    def prepare(self, name: str, **slot: int) -> tuple[bytes, int]:
        """A life ahead of its time with a process; the secret of its boot record and the pid."""
        self.root.sys("prepare", on=self.slot(name, **slot))
        self.pids += 1
        self.root.sys("start", self.pids, on=self.slots[name])
        (boot,) = [e for e in self.last if isinstance(e, effects.BootRecord)]
        return boot.secret, self.pids

    def begin(
        self, name: str, calls: Iterable[str] = (), devices: Iterable[str] = (), badge: int = 0
    ) -> int:
        """The prepared life is the slot's; its number. Its calls are for objects with `badge`."""
        grants = [Grant("endpoint", to, CALL | GRANT, to, badge) for to in calls]
        grants += [Grant("device", device, CALL, device) for device in devices]
        number: int = self.root.sys("begin", grants, on=self.slots[name])
        return number

    def task(
        self, name: str, calls: Iterable[str] = (), devices: Iterable[str] = (), **slot: int
    ) -> Task:
        """A life that has said hello."""
        who = self.prepare(name, **slot)
        self.begin(name, calls, devices)
        return self.hello(name, *who)

    def stand_by(self, name: str) -> Task:
        """A life that has said hello before its time: its answer comes when it begins."""
        secret, pid = self.prepare(name)
        rid = b"\0" + len(self.tasks).to_bytes(4, "big")
        task = self.tasks[rid] = Task(self, name, rid, {})
        self.step(effects.Arrived(self.now, rid, wire.encode(wire.HELLO, token=secret), pid))
        return task

    def end(self, name: str, state: str = syscalls.DEAD) -> None:
        self.root.sys("end", state, on=self.slots[name])


@contextlib.contextmanager
def only_reference_counts() -> Iterator[list[object]]:
    """As the kernel runs: what of its objects only a garbage collector would free, afterwards."""
    unreachable: list[object] = []
    gc.collect()
    gc.disable()
    try:
        yield unreachable
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = (each for each in gc.garbage if type(each).__module__.startswith("ukernel.broker"))
        unreachable += ours
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def living(k: Kernel, kind: type[Life] | type[Region]) -> set[str]:
    """Names of the objects of a kind that anything in this kernel's state still refers to."""
    seen: set[int] = set()
    todo: list[object] = [k.state]
    found = set()
    while todo:
        each = todo.pop()
        if id(each) not in seen and not isinstance(each, type):
            seen.add(id(each))
            todo += gc.get_referents(each)
            if isinstance(each, kind):
                found.add(each.name)
    return found
