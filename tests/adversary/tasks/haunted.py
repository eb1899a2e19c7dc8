"""haunted: a driver that leaves a ghost behind: a fork with all that it has, which outlives it.

The ghost gives up its session and its name, so that nobody finds it before the system ends. It
acts for its dead parent when it is told to (ACT), and on the second time it says by its exit
status whether anything has come of it.
"""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
from pathlib import Path

from servers.rng import Rng
from ukernel.abi import wire
from ukernel.abi.interface import Interface, op, u32
from ukernel.abi.virtio import Reg
from ukernel.lib.virtqueue import Segment

ACT = signal.SIGUSR1
IN_VAIN, IT_MATTERED = 0, 1  # exit status
LENGTH = 32  # bytes of random data
LONG_FRAME = struct.Struct(">BQ")  # ZMTP 3.1 §3.3: flags (2: long, the last), length
MESSAGES = 3  # that a ghost sends


class Haunted(Interface):
    """Random bytes, and a ghost."""

    @op(1, idempotent=True)
    def read(self, count: u32) -> bytes:
        """Random bytes."""

    @op(2)
    def haunt(self) -> u32:
        """Leave a ghost behind; its process id."""


class HauntedDriver(Haunted, Rng):
    def read(self, count: int) -> bytes:
        return Rng.read(self, count)

    def haunt(self) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [ACT])
        ghost = os.fork()
        if ghost:
            return ghost
        os.setsid()
        Path("/proc/self/comm").write_text(Path(sys.executable).name)
        before = bytes(self.pool.view)
        signal.sigwait([ACT])
        self._act()
        signal.sigwait([ACT])
        os._exit(IN_VAIN if bytes(self.pool.view) == before else IT_MATTERED)

    def _act(self) -> None:
        """All that the dead driver could do: its messages, its device, its lines."""
        self.queue.submit([Segment(self.pool.iova, LENGTH, True)], None)  # type: ignore[arg-type]
        os.eventfd_write(self.dev.doorbell, 1)
        os.eventfd_write(self.dev.interrupt, 1)
        own, store = self.connection.named["self"], wire.pack([Reg.STATUS, 0])
        frames = (
            wire.encode(wire.RECV, seq=8, token=own),
            wire.encode(wire.CALL, opcode=2, seq=9000, token=self.dev.token, body=store),
            wire.encode(wire.SYS, opcode=6, seq=9001, token=own, body=wire.pack([])),
        )
        line = _line_to_the_kernel()
        for frame in frames:
            os.write(line, LONG_FRAME.pack(2, len(frame)) + frame)


def _line_to_the_kernel() -> int:
    """The descriptor behind the ZeroMQ socket, whose thread a fork does not have."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            with socket.socket(fileno=os.dup(fd)) as found:
                if str(found.getpeername()).endswith("/kernel"):
                    return fd
        except OSError:  # no socket, or a socket pair
            continue
    raise LookupError("no line to the kernel")


if __name__ == "__main__":
    HauntedDriver.run()
