"""28: random bytes, by the hundred thousand, from connections that are bound and that are not."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import zmq

from tests.adversary.world import Intruder, World
from ukernel.abi import syscalls, wire
from ukernel.abi.services import Echo

FRAMES = 200_000
BATCH = 400  # frames to each line; then what the kernel said is read, as who does not read is cut
SEED = 28

Fuzz = Callable[[], bytes]


class Fuzzer:
    """Frames of every kind of wrong, and some that are right."""

    def __init__(self, seed: int, tokens: list[bytes]) -> None:
        self.random = random.Random(seed)
        self.tokens = tokens
        self.opcodes = [*syscalls.Kernel.ops, *syscalls.Control.ops, 0, 5, 99, 0xFFFF]
        self.kinds: list[Fuzz] = [self.noise, self.mutant, self.cut, self.message, self.message]

    def frame(self) -> bytes:
        return self.random.choice(self.kinds)()

    def noise(self) -> bytes:
        return self.random.randbytes(self.random.randrange(200))

    def mutant(self) -> bytes:
        frame = bytearray(self.message())
        for _ in range(self.random.randrange(1, 6)):
            frame[self.random.randrange(len(frame))] = self.random.randrange(256)
        return bytes(frame)

    def cut(self) -> bytes:
        frame = self.message()
        return frame[: self.random.randrange(len(frame))]

    def message(self) -> bytes:
        pick, number = self.random.choice, self.random.randrange
        return wire.encode(
            number(10),
            flags=number(256),
            opcode=pick(self.opcodes),
            status=number(20),
            seq=pick((0, 1, number(1 << 20), (1 << 64) - 1)),
            deadline_ns=pick((0, 0, 1, number(1 << 63))),
            token=self.token(),
            caps=tuple(self.token() for _ in range(pick((0, 0, 0, 1, 4)))),
            body=pick((self.body, self.noise))(),
        )

    def token(self) -> bytes:
        return self.random.choice(self.tokens) if self.random.random() < 0.9 else wire.NO_TOKEN

    def body(self) -> bytes:
        return wire.pack([self.value() for _ in range(self.random.randrange(5))])

    def value(self) -> Any:
        return self.random.choice((
            0, 1, 31, (1 << 64) - 1, -1, "", "x", b"", self.token(), [], None, True, 4096, 1 << 40
        ))  # fmt: skip


def drain(line: Any) -> None:
    try:
        while True:
            line.recv(zmq.DONTWAIT)
    except zmq.Again:
        return


@pytest.mark.parametrize("seed", [SEED])
def test_28_random_frames_by_the_hundred_thousand(world: World, seed: int) -> None:
    names = ("attacker", "victim", "target", "outsider")
    bound = [world.intrude(name) for name in names]
    tokens = [token for task in bound for token in task.named.values()]
    fuzzer = Fuzzer(seed, tokens)
    pool = [fuzzer.frame() for _ in range(20_000)]
    for kind in fuzzer.kinds:
        assert kind(), "every kind makes frames"
    begun = time.monotonic()
    with world.stranger() as one, world.stranger() as two:
        strangers = (one, two)
        lines = [*(task.socket for task in bound), *strangers]
        for _ in range(FRAMES // BATCH // len(lines) + 1):
            for line in lines:
                at = fuzzer.random.randrange(len(pool) - BATCH)
                send = line.send
                for frame in pool[at : at + BATCH]:
                    send(frame)
                drain(line)
            world.system.pump(0)
        for task in bound:
            survives(world, task)
        world.check()
    print([(n,world.slot(n).faults,world.slot(n).errors) for n in names], world.system.control().counters(), world.events[-3:])
    assert time.monotonic() - begun < 60
    assert world.counter("unbound") >= 2 * FRAMES // len(lines) // 2
    assert sum(world.slot(name).faults for name in names) > 20_000
    for name in names:
        world.told("fault", f"{name}#1")
    told = [e for e in world.events if e.kind in {"fault", "denied"}]
    assert len(told) < 200, "faults are counted; they do not flood the launcher"


def survives(world: World, task: Intruder) -> None:
    """Still a task, or cut off and replaced: either way the slot goes on."""
    drain(task.socket)
    world.bury(task)
    again = world.intrude(task.slot)
    if "echo" in again.named:
        assert again.stub(Echo, "echo").echo(b"next life") == b"next life"
