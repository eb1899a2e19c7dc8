"""28: random frames, by the hundred thousand, from connections that are bound and that are not."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

from tests.adversary.conftest import WorldMaker
from tests.adversary.world import Intruder, World
from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.services import Echo
from ukernel.lib.stub import kernel

FRAMES = 300_000
BATCH = 250  # frames on one line; then what came back is read, as who does not read is cut off
SEED = 28
REMEMBERED = 64  # tokens that a fuzzer has got and goes on using

SYSTEM = """
  target: {run: servers.echo, serves: echo, start: demand}
  attacker: {run: servers.client, calls: [{echo: {rights: [call, grant]}}, target], start: demand}
  victim: {run: servers.client, calls: [{target: {rights: [call, grant]}}], start: demand}
  driver: {run: servers.rng, serves: entropy, devices: [rng0], start: demand}
hardware: {rng0: {model: virtio-rng}}
"""
NAMES = ("target", "attacker", "victim", "driver")


class Fuzzer:
    """Frames of every kind of wrong, and some that are right."""

    def __init__(self, seed: int, tokens: list[bytes]) -> None:
        self.random = random.Random(seed)
        self.own = tokens
        self.got: deque[bytes] = deque(tokens, REMEMBERED)
        self.calls: list[int] = []  # numbers of the calls that were delivered
        safe = set(syscalls.Kernel.ops) - {3, 4}  # else nothing would be left to play with
        self.opcodes = [*safe, *safe, *syscalls.Kernel.ops, *syscalls.Control.ops, 0, 99, 0xFFFF]
        self.kinds: list[Callable[[], bytes]] = [
            self.noise,
            self.mutant,
            self.cut,
            *[self.good] * 5,
        ]

    def frame(self) -> bytes:
        return self.random.choice(self.kinds)()

    def learn(self, frame: bytes) -> None:
        """Keep what an answer gives: tokens to use, calls to reply to."""
        m = wire.decode(frame)
        assert isinstance(m, wire.Message), "the kernel itself sends no nonsense"
        self.got += m.caps
        if m.op == wire.DELIVER:
            self.calls.append(m.seq)
        elif m.op == wire.REPLY and m.status == Code.OK and m.body[:2] == b"\xc4\x10":
            self.got.append(m.body[2:])

    def noise(self) -> bytes:
        return self.random.randbytes(self.random.randrange(200))

    def mutant(self) -> bytes:
        frame = bytearray(self.good())
        for _ in range(self.random.randrange(1, 6)):
            frame[self.random.randrange(len(frame))] = self.random.randrange(256)
        return bytes(frame)

    def cut(self) -> bytes:
        frame = self.good()
        return frame[: self.random.randrange(len(frame))]

    def good(self) -> bytes:
        pick, number = self.random.choice, self.random.randrange
        return wire.encode(
            pick((wire.CALL, wire.SEND, wire.REPLY, wire.RECV, wire.SYS, wire.SYS, number(256))),
            flags=number(16),
            opcode=pick(self.opcodes),
            status=number(20),
            seq=pick((0, 1, 8, number(1 << 20), (1 << 64) - 1, self.call())),
            deadline_ns=pick((0, 0, 1, number(1 << 63))),
            token=self.token(),
            caps=tuple(self.token() for _ in range(pick((0, 0, 0, 0, 1, 4)))),
            body=self.noise() if self.random.random() < 0.1 else self.body(),
        )

    def call(self) -> int:
        return self.calls.pop() if self.calls else 0

    def token(self) -> bytes:
        source = self.own if self.random.random() < 0.3 else self.got
        return self.random.choice(source) if self.random.random() < 0.95 else wire.NO_TOKEN

    def body(self) -> bytes:
        shapes: tuple[tuple[Any, ...], ...] = (
            (), (), (), (self.int(),), (self.int(), self.int()), ("r", self.int(), True),
            ("r", self.int(), False), (self.token(), True), ("",), (self.int(), "x"),
        )  # fmt: skip
        return wire.pack(self.random.choice(shapes))

    def int(self) -> int:
        return self.random.choice((0, 1, 4, 31, 4096, 1 << 20, 1 << 40, (1 << 64) - 1, -1))


def drain(line: Any, learn: Callable[[bytes], None]) -> None:
    try:
        while True:
            learn(line.recv(zmq.DONTWAIT))
    except zmq.Again:
        return


def test_28_random_frames_by_the_hundred_thousand(make_world: WorldMaker) -> None:
    world = make_world(SYSTEM)
    tasks = [world.intrude(name) for name in NAMES]
    fuzzers = [Fuzzer(SEED + n, [*task.named.values()]) for n, task in enumerate(tasks)]
    with world.stranger() as one, world.stranger() as two:
        lines = [*zip([task.socket for task in tasks], fuzzers, strict=True)]
        lines += [(one, Fuzzer(SEED - 1, fuzzers[0].own)), (two, Fuzzer(SEED - 2, fuzzers[1].own))]
        for _ in range(FRAMES // BATCH // len(lines) + 1):
            for line, fuzzer in lines:
                for frame in [fuzzer.frame() for _ in range(BATCH)]:
                    line.send(frame)
                drain(line, fuzzer.learn)
            world.system.pump(0)
        world.check()
    for task in tasks:
        world.told("fault", task.who)
        assert world.slot(task.slot).faults > 1000
        survives(world, task)
    assert world.counter("unbound") > FRAMES // 4
    assert world.slot("machine").life == 1
    loud = [e for e in world.events if e.kind in {"fault", "denied"}]
    assert len(loud) < 200, "faults are counted; they do not flood the launcher"


def survives(world: World, task: Intruder) -> None:
    """The next life of the slot is as good as the first."""
    world.bury(task)
    again = world.intrude(task.slot)
    assert kernel(again).region("fresh", 4096, False)
    if "echo" in again.named:
        assert again.stub(Echo, "echo").echo(b"next life") == b"next life"
