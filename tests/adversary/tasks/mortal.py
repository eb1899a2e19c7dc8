"""mortal: a server that dies at a moment of the test's choice. Its effects are in kept memory."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import os
import signal

from ukernel.abi.interface import Interface, op, u32
from ukernel.lib.server import Server


class Mortal(Interface):
    """Each `add` has an effect that outlives the process."""

    @op(1)
    def add(self, lives: u32) -> u32:
        """Add one; die before the reply in each of the first `lives` lives. The sum."""

    @op(2, idempotent=True)
    def add_again(self, lives: u32) -> u32:
        """The same, and may be repeated."""

    @op(3, idempotent=True)
    def total(self) -> u32:
        """The sum."""

    @op(4, idempotent=True)
    def hold(self) -> u32:
        """Never answered."""

    @op(5, idempotent=True)
    def fork(self, session: u32) -> u32:
        """A child that outlives us; with `session` in a session of its own. Its process id."""

    @op(6)
    def leave(self, status: u32) -> u32:
        """End with this exit status, before the reply."""

    @op(7, idempotent=True)
    def leave_again(self, status: u32) -> u32:
        """The same, and may be repeated."""


class MortalServer(Server, Mortal):
    def setup(self) -> None:
        self.kept = self.region("total", 4096, persistent=True).view.cast("I")

    def add(self, lives: int) -> int:
        self.kept[0] += 1
        if self.connection.life <= lives:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.kept[0]

    def add_again(self, lives: int) -> int:
        return self.add(lives)

    def total(self) -> int:
        return self.kept[0]

    def hold(self) -> int:
        later: int = self.pending().later
        return later

    def fork(self, session: int) -> int:
        child = os.fork()
        if child:
            return child
        if session:
            os.setsid()
        while True:
            signal.pause()

    def leave(self, status: int) -> int:
        os._exit(status)

    def leave_again(self, status: int) -> int:
        return self.leave(status)


if __name__ == "__main__":
    MortalServer.run()
