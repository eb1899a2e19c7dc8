"""figures: what is told of each case, its median over the rounds, and what it is of mono's. Pure.

A ratio is made within a round, of two runs that were close in time, and then its median is taken:
what the machine does in an hour is in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

from launcher.bench import stats
from launcher.compare.cases import MONO, Case
from launcher.compare.run import Run
from ukernel.abi.services import Timed

JOBS = {"files": "file", "write": "piece", "read": "piece", "metadata": "round"}
MEGA = 1e6
FEW = 10  # fewer operations of a kind have no percentiles worth telling
PASSED = "calls past the kernel per"  # begins the titles of what clients count
MICRO = Case("micro", "kernel")

Rounds = Mapping[Case, Mapping[int, Run]]  # what came to its end, by round


class Measure(NamedTuple):
    """One figure of a run. `more` is better, or less is, or (None) neither."""

    name: str
    title: str
    unit: str
    of: Callable[[Run], float | None]  # None: this run has no such figure
    more: bool | None = False


class Figure(NamedTuple):
    """A measure over all rounds; the intervals are of 95 %. None: there is no mono beside it."""

    median: float
    ci95: tuple[float, float]
    ratio: float | None
    ratio_ci95: tuple[float, float] | None
    values: list[float]

    @property
    def doubtful(self) -> bool:
        """Whether it may just as well be mono's."""
        return self.ratio_ci95 is not None and self.ratio_ci95[0] <= 1 <= self.ratio_ci95[1]

    def as_json(self) -> dict[str, Any]:
        return self._asdict()


def measures(run: Run) -> list[Measure]:
    """Everything that is told of a run, in the order of the tables. `run` says which operations
    there are; they are the same in all."""
    return [*_throughput(), *_costs(), *_latencies(run), *_system()]


def figure(measure: Measure, case: Case, rounds: Rounds) -> Figure | None:
    """None: the case has no run, or none with this figure."""
    values = _values(measure, rounds.get(case, {}))
    if not values:
        return None
    base = _values(measure, rounds.get(MONO, {}))
    ratios = [values[n] / base[n] for n in values if base.get(n)]
    every = list(values.values())
    return Figure(
        median(every),
        stats.bootstrap(every),
        median(ratios) if ratios else None,
        stats.bootstrap(ratios) if ratios else None,
        every,
    )


def _values(measure: Measure, runs: Mapping[int, Run]) -> dict[int, float]:
    found = {number: measure.of(run) for number, run in runs.items()}
    return {number: value for number, value in found.items() if value is not None}


def per_unit_ns(run: Run, job: str) -> float:
    """Nanoseconds for one file, piece or round, in the median stretch of the job."""
    return float(run.jobs[job].whole.p50_ns)


def typical_ns(run: Run, job: str) -> float:
    """Nanoseconds for one unit if each operation in it took its median: for sums, since the moments
    that such a measure leaves out are not in what it is compared with either."""
    whole, *each = run.jobs[job].rows
    return sum(row.times * row.p50_ns for row in each) / whole.times


def cpu_ns(run: Run, job: str) -> float:
    """Of all processes of the system, for one unit."""
    return run.jobs[job].used.cpu_ns / run.jobs[job].whole.times


def calls_per_unit(run: Run, job: str) -> float:
    """Calls that the kernel passed on."""
    return run.jobs[job].used.calls / run.jobs[job].whole.times


def channel_calls_per_unit(run: Run, job: str) -> float:
    """Calls that went by channel, as clients count them."""
    return run.jobs[job].used.channel / run.jobs[job].whole.times


def traps_per_unit(run: Run, job: str) -> float:
    """Words with the kernel itself: of its messages, a call takes two, and the rest are these."""
    used = run.jobs[job].used
    return max(0.0, used.events - 2 * used.calls) / run.jobs[job].whole.times


def switches_per_unit(run: Run, job: str) -> float:
    """From one thread of the system to another."""
    return run.jobs[job].used.switches / run.jobs[job].whole.times


def kernel_ns(run: Run, job: str) -> float:
    """Of the kernel, between taking a message and having done all that follows from it."""
    return run.jobs[job].used.busy_ns / run.jobs[job].whole.times


def p50_ns(run: Run, job: str) -> float:
    """Of the one kind of operation of `call` and `trap`."""
    return float(run.jobs[job].rows[1].p50_ns)


def _throughput() -> list[Measure]:
    return [
        Measure("files_per_s", "small files", "files/s", lambda r: _per_s(r, "files"), True),
        Measure("write_mb_s", "sequential write", "MB/s", lambda r: _mb_s(r, "write"), True),
        Measure("read_mb_s", "sequential read", "MB/s", lambda r: _mb_s(r, "read"), True),
        Measure("metadata_per_s", "metadata", "rounds/s", lambda r: _per_s(r, "metadata"), True),
    ]


def _per_s(run: Run, job: str) -> float:
    return 1e9 / per_unit_ns(run, job)


def _mb_s(run: Run, job: str) -> float:
    whole = run.jobs[job].whole
    return whole.moved / whole.times / MEGA * _per_s(run, job)


def _costs() -> list[Measure]:
    """By workload. Closures over a loop variable would all see the last one: hence `_cost`."""
    made = [Measure("call_us", "an empty call, p50", "us", lambda r: p50_ns(r, "call") / 1e3)]
    made += [Measure("rested_us", "after 2 ms, p50", "us", lambda r: p50_ns(r, "rested") / 1e3)]
    made += [Measure("trap_us", "a system call, p50", "us", lambda r: p50_ns(r, "trap") / 1e3)]
    for kind in (_cpu, _calls, _switches, _kernel):
        made += [kind(job, unit) for job, unit in JOBS.items()]
    return made


def _cpu(job: str, unit: str) -> Measure:
    return Measure(f"{job}_cpu_s", f"CPU, {job}", "s", lambda r: r.jobs[job].used.cpu_ns / 1e9)


def _calls(job: str, unit: str) -> Measure:
    title = f"calls through the kernel per {unit}, {job}"
    return Measure(f"{job}_kernel_calls", title, "", lambda r: calls_per_unit(r, job))


def _switches(job: str, unit: str) -> Measure:
    title = f"context switches per {unit}, {job}"
    return Measure(f"{job}_switches", title, "", lambda r: switches_per_unit(r, job))


def _kernel(job: str, unit: str) -> Measure:
    title = f"the kernel at work per {unit}, {job}"
    return Measure(f"{job}_kernel_us", title, "us", lambda r: kernel_ns(r, job) / 1e3)


def _latencies(run: Run) -> list[Measure]:
    return [
        _latency(job, at, row, part)
        for job in JOBS
        for at, row in enumerate(run.jobs[job].rows)
        for part in ("p50", "p99")
        if at and row.times >= FEW  # the first is the job as a whole
    ]


def _latency(job: str, at: int, row: Timed, part: str) -> Measure:
    name = f"{job}_{row.operation}_{part}_us"
    title = f"{job}: {row.operation}, {part}"
    return Measure(name, title, "us", lambda r: getattr(r.jobs[job].rows[at], f"{part}_ns") / 1e3)


def _system() -> list[Measure]:
    return [
        Measure("processes", "processes", "", lambda r: float(r.processes), None),
        Measure("pss_mb", "memory (PSS)", "MB", lambda r: r.pss_bytes / MEGA),
        Measure("boot_ms", "boot", "ms", lambda r: r.boot_ms),
        Measure("recovery_ms", "recovery", "ms", lambda r: r.kill.recovery_ns / 1e6),
    ]


def passed(job: str, case: Case, rounds: Rounds) -> float | None:
    """Calls of a unit that did not go through the kernel, as those who made them count."""
    jobs = [run.jobs[job] for run in rounds.get(case, {}).values()]
    each = [(job.used.channel + job.used.direct) / job.whole.times for job in jobs]
    return median(each) if each else None
