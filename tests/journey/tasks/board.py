"""board: signals its subscribers when somebody posts; keeps some callers waiting for a post."""

from __future__ import annotations

from ukernel.abi.interface import Interface, op, u32, u64
from ukernel.abi.syscalls import Kernel
from ukernel.lib.server import Server
from ukernel.lib.way import Pending


class Board(Interface):
    """A notice board."""

    @op(1)
    def subscribe(self, line: Kernel) -> None:
        """Signal `line` at every post."""

    @op(2)
    def post(self, value: u64) -> u32:
        """Put `value` up; how many readers and subscribers heard of it."""

    @op(3)
    def read_next(self) -> u64:
        """The next value to be posted."""


class BoardServer(Server, Board):
    def setup(self) -> None:
        self.lines: list[Kernel] = []
        self.readers: list[Pending[int]] = []

    def subscribe(self, line: Kernel) -> None:
        self.lines.append(line)

    def post(self, value: int) -> int:
        heard = len(self.lines) + len(self.readers)
        for reader in self.readers:
            reader.answer(value)
        self.readers.clear()
        for line in self.lines:
            line.signal()
        return heard

    def read_next(self) -> int:
        pending: Pending[int] = self.pending()
        self.readers.append(pending)
        return pending.later


if __name__ == "__main__":
    BoardServer.run()
