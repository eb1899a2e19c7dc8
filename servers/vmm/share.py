"""share: how much of a CPU a guest has, as credit that grows with time. Pure: time comes in.

A guest that mostly waits has some credit when it wakes up, and runs at once; one that never waits
gets its part in small pieces. What it gets in any longer time is at most its share and one burst.
"""

from __future__ import annotations

WINDOW_NS = 10_000_000  # the credit of so long is the most that is kept
LEAST_NS = 1_000_000  # to begin with, after all was spent


class Share:
    """`percent` of one CPU."""

    def __init__(self, percent: int, now_ns: int) -> None:
        self._percent = percent
        self._most_ns = WINDOW_NS * percent // 100
        self._least_ns = min(LEAST_NS, self._most_ns)
        self._credit_ns = self._most_ns
        self._at_ns = now_ns

    def _grow(self, now_ns: int) -> None:
        grown = self._credit_ns + (now_ns - self._at_ns) * self._percent // 100
        self._credit_ns, self._at_ns = min(grown, self._most_ns), now_ns

    def budget_ns(self, now_ns: int) -> int:
        """How long it may run now; not positive: `ready_ns` says when it may."""
        self._grow(now_ns)
        return self._credit_ns

    def spent(self, cpu_ns: int) -> None:
        """So much of a CPU it has used."""
        self._credit_ns -= cpu_ns

    def ready_ns(self, now_ns: int) -> int:
        """When it may run: `now_ns`, or later."""
        self._grow(now_ns)
        if self._credit_ns > 0:
            return now_ns
        return now_ns + (self._least_ns - self._credit_ns) * 100 // self._percent
