"""stubborn: a server whose handlers do not come back, or take their time, each in another way.

Started with `args: {to: NAME}` it has the server called NAME do it instead, and waits.
"""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from ukernel.abi.interface import Interface, op, u32
from ukernel.abi.services import Echo
from ukernel.lib.server import Server
from ukernel.lib.stub import connect

LONG_S = 1.2  # of a handler: four times what silence is allowed to last
STEP_S = 0.05  # from one `progress` to the next
PAUSE_S = 0.2  # of work between two nested calls: less than silence may last


class Stubborn(Interface):
    """What a handler can do to its request loop."""

    @op(1)
    def spin(self) -> u32:
        """Busy for ever."""

    @op(2)
    def block(self) -> u32:
        """Waiting for ever, for nobody: only ZeroMQ's thread goes on."""

    @op(3)
    def work(self) -> u32:
        """Busy for LONG_S, with progress. How often it said so."""

    @op(4)
    def nested(self) -> u32:
        """Busy for LONG_S, with calls to `echo` now and then. How many."""

    @op(5)
    def starve(self) -> u32:
        """Busy until others have had its processor for LONG_S."""

    @op(6)
    def hold(self) -> u32:
        """Never answered, while the request loop goes on."""

    @op(7)
    def hold_on(self) -> u32:
        """The same, and the loop says all the time that it is getting on."""

    @op(8)
    def pass_on(self, hops: u32, what: str) -> u32:
        """Have the server that is so many hops away do `what`."""

    @op(9, idempotent=True)
    def life(self) -> u32:
        """Which life answers."""


class StubbornServer(Server, Stubborn):
    def setup(self) -> None:
        self.next = connect(Stubborn, self.args["to"]) if "to" in self.args else None

    def spin(self) -> int:
        while True:
            pass

    def block(self) -> int:
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
        return 0

    def work(self) -> int:
        count = 0
        for _ in _until(time.monotonic() + LONG_S, STEP_S):
            self.progress()
            count += 1
        return count

    def nested(self) -> int:
        echo, count = connect(Echo, "echo"), 0
        for _ in _until(time.monotonic() + LONG_S, PAUSE_S):
            echo.echo(b"while I work")
            count += 1
        return count

    def starve(self) -> int:
        begun_s, used_s = time.monotonic(), time.thread_time()
        while time.monotonic() - begun_s - (time.thread_time() - used_s) < LONG_S:
            pass
        return 0

    def hold(self) -> int:
        later: int = self.pending().later
        return later

    def hold_on(self) -> int:
        self.alarm_ns = time.monotonic_ns()
        return self.hold()

    def alarmed(self) -> None:
        self.progress()
        self.alarm_ns = time.monotonic_ns() + int(STEP_S * 1e9)

    def pass_on(self, hops: int, what: str) -> int:
        assert self.next is not None
        if hops > 1:
            return self.next.pass_on(hops - 1, what)
        done: int = getattr(self.next, what)()
        return done

    def life(self) -> int:
        return self.connection.life


def _until(end_s: float, step_s: float) -> Iterator[None]:
    """Busy until then; once in each step."""
    while (now_s := time.monotonic()) < end_s:
        yield
        while time.monotonic() < now_s + step_s:
            pass


if __name__ == "__main__":
    StubbornServer.run()
