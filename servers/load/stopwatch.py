"""stopwatch: how long each operation of a job took, and whether what it brought was right.

A job is a row of units, one file for instance, and is divided into stretches of as many units
each. What is told of the whole is the median of the stretches: a moment in which the machine did
something else is in one of them, and an average would have it in all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ParamSpec, TypeVar

from ukernel.abi.services import Timed

P = ParamSpec("P")
T = TypeVar("T")
STRETCHES = 16  # of a job
SIGN_NS = 50_000_000  # between two signs of life: half of what a ping is given by default


class Stopwatch:
    """One job. `sign` is called now and then, so that a long job is not taken for a hang."""

    def __init__(self, sign: Callable[[], None]) -> None:
        self._sign = sign
        self._signed_ns = time.monotonic_ns()
        self._samples: dict[str, list[int]] = {}
        self._moved: dict[str, int] = {}
        self._wrong: dict[str, int] = {}
        self._begun_ns = time.monotonic_ns()
        self._units: list[int] = []  # when each was done

    def unit(self) -> None:
        """One unit of the job is done."""
        self._units.append(time.monotonic_ns())

    def time(self, operation: str, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        begun = time.monotonic_ns()
        result = do(*args, **kwargs)
        ended = time.monotonic_ns()
        self._samples.setdefault(operation, []).append(ended - begun)
        if ended - self._signed_ns > SIGN_NS:
            self._signed_ns = ended
            self._sign()
        return result

    def moved(self, operation: str, count: int) -> None:
        """So many bytes of files went with the last operation of this kind."""
        self._moved[operation] = self._moved.get(operation, 0) + count

    def check(self, operation: str, right: bool) -> None:
        """Whether it brought what it should."""
        self._wrong[operation] = self._wrong.get(operation, 0) + (not right)

    def row(self, operation: str) -> Timed:
        samples = sorted(self._samples[operation])
        moved, wrong = self._moved.get(operation, 0), self._wrong.get(operation, 0)
        p50, p99 = _percentile(samples, 50), _percentile(samples, 99)
        return Timed(operation, len(samples), moved, sum(samples), p50, p99, wrong)

    def rows(self, job: str) -> list[Timed]:
        """The job as a whole, by its units, and then its operations."""
        each = [self.row(operation) for operation in self._samples]
        moved, wrong = sum(row.moved for row in each), sum(row.wrong for row in each)
        stretches = sorted(self._stretches())
        total_ns = self._units[-1] - self._begun_ns if self._units else 0
        p50, p99 = _percentile(stretches, 50), _percentile(stretches, 99)
        return [Timed(job, len(self._units), moved, total_ns, p50, p99, wrong), *each]

    def _stretches(self) -> list[int]:
        """Of each stretch, nanoseconds for a unit; units that make no whole stretch are left out,
        the first ones."""
        size = max(1, len(self._units) // STRETCHES)
        ends = [self._begun_ns, *self._units][::-size][::-1]
        return [(ended - begun) // size for begun, ended in pairwise(ends)]


def _percentile(ordered: Sequence[int], percent: int) -> int:
    """The smallest that so many of a hundred do not exceed; 0 of nothing."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)] if ordered else 0
