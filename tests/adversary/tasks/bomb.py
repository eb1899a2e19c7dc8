"""bomb: forks, and so do its children; some leave its session. In its first life, and bounded."""

from __future__ import annotations

import os
import signal

from tests.adversary.tasks.hostile import Hostile

CHILDREN = 30
PROCESSES = 1 + 2 * CHILDREN


class Bomb(Hostile):
    def misbehave(self) -> None:
        if self.connection.life > 1:
            return
        for number in range(CHILDREN):
            if os.fork() == 0:
                if number % 2:
                    os.setsid()
                os.fork()
                while True:
                    signal.pause()


if __name__ == "__main__":
    Bomb.run()
