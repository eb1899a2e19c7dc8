"""clerk: does what it is asked, and keeps a record of it that outlives it."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import os
import random
import signal

from ukernel.abi.errors import Answer
from ukernel.abi.interface import Interface, Lent, op, u8, u32, u64
from ukernel.lib.server import Server
from ukernel.lib.stub import connect
from ukernel.lib.way import Pending

MOST = 4 << 20  # deeds that its record has room for
PAGE = 64 << 10  # of the record, told at once


class Full(Answer):
    """No more."""


class Clerk(Interface):
    """Deeds are numbered by who asks for them."""

    answers = (Full,)

    @op(1)
    def do(self, deed: u64, sent: bytes, size: u32) -> bytes:
        """Do it; so many bytes."""

    @op(2, idempotent=True)
    def do_again(self, deed: u64, sent: bytes, size: u32) -> bytes:
        """The same, and may be repeated."""

    @op(3, idempotent=True)
    def record(self, first: u64) -> bytes:
        """How often each of the next PAGE deeds was done."""

    @op(4)
    def decline(self, why: str) -> u32:
        """No."""

    @op(5)
    def hold(self, deed: u64) -> u64:
        """Do it; its number, once somebody says `let_go`."""

    @op(6)
    def held(self) -> u32:
        """How many are held."""

    @op(7)
    def let_go(self) -> u32:
        """Answer all that are held, the last one first; how many."""

    @op(8)
    def fill(self, box: Lent, value: u8) -> u32:
        """Fill it with a value; how many bytes."""

    @op(9)
    def channels(self) -> u32:
        """How many it has open."""

    @op(10)
    def pass_on(self, deed: u64) -> u64:
        """Have the clerk above `hold` it."""

    @op(11, idempotent=True)
    def hold_again(self, deed: u64) -> u64:
        """As `hold`, and may be repeated."""


class ClerkServer(Server, Clerk):
    def setup(self) -> None:
        self.done = self.region("record", MOST, persistent=True).view
        self.one_in = int(self.args.get("dies_once_in", 0))
        self.random = random.Random(self.connection.life)
        if above := self.args.get("above"):
            self.above = connect(Clerk, above)
        self.waiting: list[tuple[int, Pending[int]]] = []

    def do(self, deed: int, sent: bytes, size: int) -> bytes:
        self.may_die()
        self.done[deed] += 1
        self.may_die()
        return bytes(size) if size else sent

    def may_die(self) -> None:
        """As if killed while it has a deed in hand."""
        if self.one_in and self.random.randrange(self.one_in) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def do_again(self, deed: int, sent: bytes, size: int) -> bytes:
        return self.do(deed, sent, size)

    def record(self, first: int) -> bytes:
        return bytes(self.done[first : first + PAGE])

    def decline(self, why: str) -> int:
        raise Full(why)

    def hold(self, deed: int) -> int:
        self.done[deed] += 1
        self.waiting.append((deed, self.pending()))
        later: int = self.waiting[-1][1].later
        return later

    def hold_again(self, deed: int) -> int:
        return self.hold(deed)

    def held(self) -> int:
        return len(self.waiting)

    def let_go(self) -> int:
        waiting, self.waiting = self.waiting, []
        for deed, pending in reversed(waiting):
            pending.answer(deed)
        return len(waiting)

    def fill(self, box: Lent, value: int) -> int:
        self.memory(box, write=True)[:] = bytes([value]) * box.length
        return box.length

    def channels(self) -> int:
        return len(self.doors)

    def pass_on(self, deed: int) -> int:
        return self.above.hold(deed)


if __name__ == "__main__":
    ClerkServer.run()
