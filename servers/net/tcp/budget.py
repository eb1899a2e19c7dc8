"""budget: so much a second, and no more, of what strangers can make us do. Pure."""

from __future__ import annotations

SECOND_US = 1_000_000


class Budget:
    """A token bucket: `rate` a second on average, that many at once."""

    def __init__(self, rate: int) -> None:
        self._price = SECOND_US // rate
        self._full = SECOND_US
        self._saved = self._full
        self._since = 0

    def take(self, now: int) -> bool:
        """There is one left, and it is taken."""
        passed = max(0, now - self._since)
        self._since += passed
        self._saved = min(self._full, self._saved + passed)
        if self._saved < self._price:
            return False
        self._saved -= self._price
        return True
