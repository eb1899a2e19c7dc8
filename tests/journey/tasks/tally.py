"""tally: a sum that is added to one-way."""

from __future__ import annotations

from ukernel.abi.interface import Interface, op, u32, u64
from ukernel.lib.server import Server


class Tally(Interface):
    """A sum."""

    @op(1, posted=True)
    def add(self, amount: u32) -> None:
        """Nobody waits for it."""

    @op(2)
    def total(self) -> u64:
        """All that was added before."""


class TallyServer(Server, Tally):
    def setup(self) -> None:
        self.sum = 0

    def add(self, amount: int) -> None:
        self.sum += amount

    def total(self) -> int:
        return self.sum


if __name__ == "__main__":
    TallyServer.run()
