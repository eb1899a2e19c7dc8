"""busy: what the processors of this host do, by /proc/stat (proc(5))."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

STAT = Path("/proc/stat")
IDLE, IOWAIT, STEAL = 3, 4, 7  # columns after the name
GUEST = 8  # from here on, what is in the others already
LOOK_S = 0.1
MUCH = 0.25  # that others may have of the processors


class Ticks(NamedTuple):
    """Of all processors together, since boot."""

    total: int
    busy: int
    stolen: int

    def since(self, before: Ticks) -> tuple[float, float]:
        """The shares (0 to 1) that were busy, and that the hypervisor took."""
        total = self.total - before.total
        if total <= 0:
            return 0.0, 0.0
        return (self.busy - before.busy) / total, (self.stolen - before.stolen) / total


def parsed(text: str) -> Ticks:
    """The first line of /proc/stat."""
    columns = [int(word) for word in text.partition("\n")[0].split()[1 : 1 + GUEST]]
    total = sum(columns)
    return Ticks(total, total - columns[IDLE] - columns[IOWAIT], columns[STEAL])


def ticks() -> Ticks:
    return parsed(STAT.read_text())


def by_others() -> float:
    """The share of the processors that others use, while nothing of ours runs."""
    before = ticks()
    time.sleep(LOOK_S)
    return ticks().since(before)[0]
