"""brake: keeps a QEMU to its share of a CPU: it is stopped for a while when it has had that."""

from __future__ import annotations

from typing import Protocol

from servers.vmm.share import WINDOW_NS, Share

WHOLE = 100  # percent
LEAST_NS = 1_000_000  # between two looks


class Stoppable(Protocol):
    @property
    def cpu_ns(self) -> int: ...
    def halt(self) -> None: ...
    def go(self) -> None: ...


class Brake:
    """`look` at it now and then; it says when. Who uses little is looked at seldom: what it has had
    beyond its share by then, it waits for."""

    def __init__(self, process: Stoppable, percent: int, now_ns: int) -> None:
        self._process = process
        self._percent = percent
        self._share = Share(percent, now_ns)
        self._used_ns = process.cpu_ns
        self._due_ns = now_ns
        self._held = False
        self.slices = 1  # how often it was let go

    def look(self, now_ns: int, *, free: bool) -> int:
        """Hold it or let it go; when to look again, 0: never. `free`: it must not be held now."""
        if self._percent == WHOLE:
            return 0
        if now_ns >= self._due_ns or (free and self._held):
            self._due_ns = now_ns + max(LEAST_NS, self._weigh(now_ns, free))
        return self._due_ns

    def _weigh(self, now_ns: int, free: bool) -> int:
        """For how long it may be left as it is now."""
        before, self._used_ns = self._used_ns, self._process.cpu_ns
        used_ns = self._used_ns - before
        self._share.spent(used_ns)
        left_ns = self._share.budget_ns(now_ns)
        self._hold(left_ns <= 0 and not free)
        if self._held:
            return self._share.ready_ns(now_ns) - now_ns
        return left_ns if used_ns > left_ns // 2 else WINDOW_NS

    def _hold(self, held: bool) -> None:
        if held and not self._held:
            self._process.halt()
        elif self._held and not held:
            self._process.go()
            self.slices += 1
        self._held = held
