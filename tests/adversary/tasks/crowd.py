"""crowd: connects to the kernel as often as it can, says nothing, and dies when it can no more."""

from __future__ import annotations

import os
import socket

from tests.adversary.tasks.hostile import Hostile


class Crowd(Hostile):
    def misbehave(self) -> None:
        lines: list[socket.socket] = []
        while self.connection.life == 1:
            lines.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            lines[-1].connect(f"{os.environ['UKERNEL_RUN_DIR']}/kernel")


if __name__ == "__main__":
    Crowd.run()
