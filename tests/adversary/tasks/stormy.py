"""stormy: a driver whose device never stops raising its line, or who never stops ringing."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import contextlib
import os

from servers.rng import Rng
from ukernel.abi.interface import Interface, op, u32


class Stormy(Interface):
    """Random bytes, in any weather."""

    @op(1, idempotent=True)
    def read(self, count: u32) -> bytes:
        """Random bytes."""

    @op(2)
    def storm(self, line: str) -> u32:
        """Raise `interrupt` or `doorbell` without end, from a process of its own: which."""

    @op(3, idempotent=True)
    def looks(self) -> u32:
        """How often the driver has looked at its ring."""


class StormyDriver(Stormy, Rng):
    count = 0

    def read(self, count: int) -> bytes:
        return Rng.read(self, count)

    def take(self) -> int:
        self.count += 1
        return super().take()

    def looks(self) -> int:
        return self.count

    def storm(self, line: str) -> int:
        fd = {"interrupt": self.dev.interrupt, "doorbell": self.dev.doorbell}[line]
        child = os.fork()
        if child:
            return child
        os.nice(19)  # it is the line that is to be stormy, not the processor
        while True:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(fd, 1)


if __name__ == "__main__":
    StormyDriver.run()
