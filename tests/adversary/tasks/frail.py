"""frail: a server that dies, or hangs, while it sets itself up: as often as it was told to."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from ukernel.abi.interface import Interface, op, u32
from ukernel.lib.server import Server

LIVES, WAY = 0, 1  # places in the kept memory


def _fail() -> None:
    raise RuntimeError("this life was cursed")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    while True:
        signal.pause()


WAYS: dict[str, Callable[[], None]] = {"raise": _fail, "kill": _kill, "hang": _hang}


class Frail(Interface):
    """What is said here concerns lives to come."""

    @op(1)
    def curse(self, lives: u32, way: str) -> None:
        """So many of the next lives end in `setup`, in that way."""

    @op(2, idempotent=True)
    def life(self) -> u32:
        """Which life answers."""


class FrailServer(Server, Frail):
    def setup(self) -> None:
        if "born" in self.args:
            WAYS[self.args["born"]]()
        self.kept = self.region("curse", 4096, persistent=True).view.cast("I")
        if self.kept[LIVES]:
            self.kept[LIVES] -= 1
            [*WAYS.values()][self.kept[WAY]]()

    def curse(self, lives: int, way: str) -> None:
        self.kept[LIVES], self.kept[WAY] = lives, [*WAYS].index(way)

    def life(self) -> int:
        return self.connection.life


if __name__ == "__main__":
    FrailServer.run()
