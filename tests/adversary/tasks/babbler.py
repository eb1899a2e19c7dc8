"""babbler: prints without end, and answers its pings meanwhile."""

from __future__ import annotations

import sys
import time

from tests.adversary.tasks.hostile import Hostile

LINE = "I have nothing to say, and I am saying it.\n"
AT_ONCE = LINE * (1 << 14)


class Babbler(Hostile):
    def misbehave(self) -> None:
        self.alarm_ns = time.monotonic_ns()

    def alarmed(self) -> None:
        sys.stdout.write(AT_ONCE)
        sys.stdout.flush()
        self.alarm_ns = time.monotonic_ns()


if __name__ == "__main__":
    Babbler.run()
