"""flooder: speaks to the kernel on many lines that are not its own, and listens on half of them."""

from __future__ import annotations

import contextlib
import os
import time
from itertools import cycle

import zmq

from tests.adversary.tasks.hostile import Hostile
from ukernel.abi import wire

LINES = 32
AT_ONCE = 8  # messages on each line
FRAMES = (
    wire.encode(wire.HELLO, token=b"?" * wire.TOKEN_SIZE),
    wire.encode(wire.CALL, opcode=1, body=bytes(4096)),
    wire.encode(wire.NOTICE, opcode=wire.NOTICE_STOP),
    b"no message",
)


class Flooder(Hostile):
    def setup(self) -> None:
        context = zmq.Context()
        self.lines = [context.socket(zmq.DEALER) for _ in range(LINES)]
        for line in self.lines:
            line.set(zmq.LINGER, 0)
            line.connect(f"ipc://{os.environ['UKERNEL_RUN_DIR']}/kernel")

    def misbehave(self) -> None:
        self.alarm_ns = time.monotonic_ns()

    def alarmed(self) -> None:
        for line, frame in zip(self.lines * AT_ONCE, cycle(FRAMES), strict=False):
            with contextlib.suppress(zmq.Again):
                line.send(frame, zmq.DONTWAIT)
        for line in self.lines[::2]:
            while line.poll(0):
                line.recv()
        self.alarm_ns = time.monotonic_ns()


if __name__ == "__main__":
    Flooder.run()
