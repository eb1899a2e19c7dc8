"""glutton: takes more memory than it may have, in its first life; `how` says in which way."""

from __future__ import annotations

from typing import Any

from tests.adversary.tasks.hostile import Hostile
from ukernel.abi import wire

SLOWLY = "slowly"  # a little with each ping, that is in each round of the launcher
AT_ONCE = "at_once"  # more than there is, in one piece
IN_PIECES = "in_pieces"  # without end, as fast as it can
BITE = 4 << 20  # bytes
FEAST = 1 << 30


class Glutton(Hostile):
    def setup(self) -> None:
        self.eaten: list[bytearray] = []
        self.how = str(self.args["how"]) if self.connection.life == 1 else ""

    def notice(self, kind: int, body: Any) -> None:
        super().notice(kind, body)
        if kind == wire.NOTICE_PING and self.how == SLOWLY:
            self.eaten.append(bytearray(BITE))

    def misbehave(self) -> None:
        if self.how == AT_ONCE:
            self.eaten.append(bytearray(FEAST))
        while self.how == IN_PIECES:
            self.eaten.append(bytearray(BITE))


if __name__ == "__main__":
    Glutton.run()
