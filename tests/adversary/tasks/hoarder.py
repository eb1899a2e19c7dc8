"""hoarder: makes regions until it gets no more, new ones in each life, and dies of the refusal."""

from __future__ import annotations

from itertools import count

from tests.adversary.tasks.hostile import Hostile
from ukernel.lib.stub import kernel


class Hoarder(Hostile):
    def misbehave(self) -> None:
        life, size = self.connection.life, int(self.args["size"])
        persistent = bool(self.args["persistent"])
        for number in count():
            kernel(self.connection).region(f"{life}.{number}", size, persistent)


if __name__ == "__main__":
    Hoarder.run()
