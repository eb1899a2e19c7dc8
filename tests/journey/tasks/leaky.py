"""leaky: a monitor with faults of its own, which somebody brings out by typing at its console."""

from __future__ import annotations

import os

from servers.vmm import Vmm

LEAK, DIE = b"leak", b"die"
LEAK_BYTES = 16 << 20


class Leaky(Vmm):
    def setup(self) -> None:
        self.lost: list[bytes] = []
        super().setup()

    def enter(self, data: bytes) -> int:
        if data == DIE:
            os._exit(1)
        if data == LEAK:
            self.lost.append(b"x" * LEAK_BYTES)
        return super().enter(data)


if __name__ == "__main__":
    Leaky.run()
