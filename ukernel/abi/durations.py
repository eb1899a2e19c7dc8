"""durations: `500ms` as seconds, as files spell it."""

from __future__ import annotations

import math
import re

UNITS_PER_S = {"ms": 1000, "s": 1, "m": 1 / 60}
DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m)")


def seconds_of(value: object) -> float | None:
    """Seconds of `500ms`, `2s`, `1m` or a number of seconds; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    found = DURATION.fullmatch(value) if isinstance(value, str) else None
    return float(found[1]) / UNITS_PER_S[found[2]] if found is not None else None
