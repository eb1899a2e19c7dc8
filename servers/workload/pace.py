"""pace: when the next operation is due, and whether there is to be one: until the input ends."""

from __future__ import annotations

import os
import select
import time

AFTER_FAILURE_NS = 1_000_000  # who is refused at once must not ask at once again


class Pace:
    """An operation every `every_ms` or, when they take longer, as soon as the last has ended."""

    def __init__(self, fd: int, every_ms: int) -> None:
        self._fd = fd
        self._every_ns = every_ms * 1_000_000
        self._due_ns = 0

    def wait(self, good: bool) -> bool:
        """Wait for the next turn, the last having been `good` or not. False: the input has ended,
        which is seen at once. Whatever else comes in is dropped."""
        now_ns = time.monotonic_ns()
        due_ns = self._due_ns if good else max(self._due_ns, now_ns + AFTER_FAILURE_NS)
        while select.select([self._fd], [], [], max(0, due_ns - now_ns) / 1e9)[0]:
            if not os.read(self._fd, 4096):
                return False
            now_ns = time.monotonic_ns()
        self._due_ns = time.monotonic_ns() + self._every_ns
        return True
