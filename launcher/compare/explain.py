"""explain: why a unit of work takes longer than under mono, by name as far as that goes. Pure.

The arithmetic: so many calls, each at what an empty call costs in the same case, less what the
same call costs under mono; so many words with the kernel, each at what one costs; and, by its own
clock, what the kernel does more for calls that lend memory or pass capabilities. An empty call by
channel never sleeps, one that waits for a device does: how many of them slept is told by context
switches, and what that costs by empty calls after a pause. It is all done twice:
for the time that passes, of medians, and for processor time, which a busy machine changes least.
What is left over has no name here: colder caches, copies of bodies, servers that wait for each
other, what is done more or less often.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from launcher.compare.cases import MONO, Case
from launcher.compare.figures import (
    JOBS,
    MICRO,
    Rounds,
    calls_per_unit,
    channel_calls_per_unit,
    cpu_ns,
    kernel_ns,
    switches_per_unit,
    traps_per_unit,
    typical_ns,
)
from launcher.compare.run import Run


class Span(NamedTuple):
    """Microseconds, as time passes and of all processors together."""

    time_us: float
    cpu_us: float

    def minus(self, other: Span) -> Span:
        return Span(self.time_us - other.time_us, self.cpu_us - other.cpu_us)

    def times(self, number: float) -> Span:
        return Span(number * self.time_us, number * self.cpu_us)


class Cost(NamedTuple):
    """So many of something, and what one costs more than under mono."""

    name: str
    number: float
    each: Span

    @property
    def total(self) -> Span:
        return self.each.times(self.number)


class Explained(NamedTuple):
    """The difference of one unit of a job between a case and mono."""

    case: Case
    job: str
    takes: Span
    mono: Span
    costs: list[Cost]
    kernel_us: float  # of the named costs: the kernel's own work, by its own clock

    @property
    def difference(self) -> Span:
        return self.takes.minus(self.mono)

    @property
    def rest(self) -> Span:
        rest = self.difference
        for cost in self.costs:
            rest = rest.minus(cost.total)
        return rest

    def as_json(self) -> dict[str, object]:
        return {
            "case": self.case.name,
            "workload": self.job,
            "unit": JOBS[self.job],
            "takes": self.takes._asdict(),
            "mono": self.mono._asdict(),
            "difference": self.difference._asdict(),
            "named": [
                {
                    "name": cost.name,
                    "number": cost.number,
                    "each": cost.each._asdict(),
                    "total": cost.total._asdict(),
                }
                for cost in self.costs
            ],
            "of_which_kernel_us": self.kernel_us,
            "rest": self.rest._asdict(),
        }


def explain(rounds: Rounds) -> list[Explained]:
    """Every workload in every case but mono itself."""
    if not rounds.get(MONO):
        return []
    cases = [case for case, runs in rounds.items() if runs and case != MONO]
    return [_explained(case, job, rounds) for case in cases for job in JOBS]


def _explained(case: Case, job: str, rounds: Rounds) -> Explained:
    runs, base = list(rounds[case].values()), list(rounds[MONO].values())

    def more(of: Callable[[Run, str], float]) -> float:
        return max(0.0, median(of(r, job) for r in runs) - median(of(r, job) for r in base))

    call, direct = _span(runs, "call"), _span(base, "call")
    seen = list(rounds.get(MICRO, {}).values())  # a case by channel has no empty call by the kernel
    by_kernel = _span(seen, "call") if case.via == "channel" and seen else call
    costs = [
        Cost("calls through the kernel", more(calls_per_unit), by_kernel.minus(direct)),
        Cost("calls by channel", more(channel_calls_per_unit), call.minus(direct)),
        Cost("system calls", more(traps_per_unit), _span(runs, "trap")),
    ]
    if case.via == "channel":
        costs.insert(2, _slept(job, costs, (runs, base, seen or runs)))
    known = costs[0].number * _kernel_us(seen or runs, "call")
    known += costs[-1].number * _kernel_us(runs, "trap")
    beyond = max(0.0, more(kernel_ns) / 1e3 - known)
    costs.append(Cost("the kernel, beyond empty calls", 1.0, Span(beyond, beyond)))
    named = [cost for cost in costs if cost.number and any(cost.each)]
    return Explained(case, job, _span(runs, job), _span(base, job), named, more(kernel_ns) / 1e3)


def _slept(job: str, costs: list[Cost], measured: tuple[list[Run], list[Run], list[Run]]) -> Cost:
    """Of the calls by channel (`costs` has those by the kernel first and system calls last), those
    for which both ends went to sleep, and what that costs beyond an empty one that does not."""
    runs, base, by_kernel = measured
    switches = _switches(runs, job) - _switches(base, job)
    switches -= costs[0].number * _switches(by_kernel, "call")
    switches -= costs[-1].number * _switches(runs, "trap")
    of_one = _switches(runs, "rested") - _switches(base, "rested") - _switches(runs, "call")
    number = max(0.0, switches) / of_one if of_one > 0 else 0.0
    pause = _span(base, "rested").minus(_span(base, "call"))  # of which a part is the pause itself
    each = _span(runs, "rested").minus(_span(runs, "call")).minus(pause)
    return Cost("of these, woken from sleep", min(number, costs[1].number), each)


def _switches(runs: list[Run], job: str) -> float:
    return median(switches_per_unit(run, job) for run in runs)


def _kernel_us(runs: list[Run], job: str) -> float:
    """What the kernel itself does for one unit."""
    return median(kernel_ns(run, job) for run in runs) / 1e3


def _span(runs: list[Run], job: str) -> Span:
    """One unit of a job."""
    return Span(*(median(of(run, job) for run in runs) / 1e3 for of in (typical_ns, cpu_ns)))
