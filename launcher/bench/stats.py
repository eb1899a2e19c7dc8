"""stats: what a list of round trips says, and how sure it is. Pure; times are nanoseconds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median
from typing import TypeVar

Number = TypeVar("Number", int, float)

RESAMPLES = 2000
SEED = 1  # the interval of the same figures is always the same
# Parts of a distribution, for a curve of it: denser where it gets rare.
POINTS = (
    *(n / 100 for n in range(0, 90, 5)), *(n / 1000 for n in range(900, 990, 10)),
    *(n / 10000 for n in range(9900, 9990, 10)), 0.999, 0.9995, 0.9999, 1.0,
)  # fmt: skip


def percentile(ordered: Sequence[Number], part: float) -> Number:
    """The smallest sample that at least `part` (0 to 1) of all samples do not exceed."""
    rank = -int(-part * len(ordered) // 1)  # rounded up
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def percentiles(samples: Sequence[Number]) -> dict[str, Number]:
    """min, p50, p90, p99, p999 and max of at least one sample."""
    ordered = sorted(samples)
    parts = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {name: percentile(ordered, part) for name, part in parts.items()}


def bootstrap(values: Sequence[float], resamples: int = RESAMPLES) -> tuple[float, float]:
    """A 95 % interval of the median of `values`, by drawing them again with replacement."""
    dice = random.Random(SEED)
    medians = sorted(median(dice.choices(values, k=len(values))) for _ in range(resamples))
    return medians[int(0.025 * resamples)], medians[int(0.975 * resamples)]


def spread(values: Sequence[float]) -> float:
    """How far the runs lie apart: the distance of their quartiles over their median."""
    ordered = sorted(values)
    count = len(ordered)
    low, high = ordered[count // 4], ordered[(3 * count) // 4 - (count % 4 == 0)]
    return (high - low) / median(ordered)
