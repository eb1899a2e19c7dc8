"""job: what a client measures in one life: steps one after the other, each summed up at once.

Runs in the client's process, whatever the path. Only sums leave it: the figures of a step, and
points of its distribution.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from launcher.bench import host, stats
from launcher.bench.load import (
    BATCH,
    BATCH_BELOW_NS,
    Call,
    Load,
    batched,
    closed_loop,
    open_loop,
    pipelined,
    warm_up,
)

CLOSED, GAP, OPEN, PIPELINED = "closed", "gap", "open", "pipelined"


class Client(NamedTuple):
    """The client's end of a path. Without `post` and `collect` it makes one call at a time."""

    call: Call
    post: Callable[[bytes], object] | None = None
    collect: Callable[[], bytes] | None = None
    batch: int = 0  # round trips in a sample; 0: as many as their length asks for


@dataclass(frozen=True)
class Step:
    """One measurement. `load` is a share of the capacity that the closed loop before it found."""

    mode: str = CLOSED
    size: int = 64
    gap_us: int = 0
    load: float = 0.0
    period_us: float = 0.0  # of an open loop at a rate of its own


@dataclass(frozen=True)
class Counts:
    """How much is measured: as many samples as fit into the budget, within these bounds."""

    warmup_calls: int = 1000  # of a process set; a later step warms up as `settle_` says
    warmup_ms: float = 100
    settle_calls: int = 50
    settle_ms: float = 10
    samples: int = 20_000
    least: int = 20
    budget_ms: float = 200
    pipelined: int = 8000
    depth: int = 64

    def fitting(self, each_ns: float) -> int:
        fit = int(self.budget_ms * 1e6 / each_ns) if each_ns else self.samples
        return max(self.least, min(self.samples, fit))


@dataclass(frozen=True)
class Job:
    """What a client is told; `cores` are those whose stolen time matters to it."""

    counts: Counts
    steps: tuple[Step, ...]
    core: int
    cores: tuple[int, ...]

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def parsed(text: str) -> Job:
        told = json.loads(text)
        steps = tuple(Step(**step) for step in told["steps"])
        return Job(Counts(**told["counts"]), steps, told["core"], tuple(told["cores"]))


@dataclass
class Seen:
    """A step as one process set saw it."""

    step: Step
    n: int  # samples
    batch: int  # round trips in each
    figures: dict[str, float]
    curve: list[float]  # at stats.POINTS
    calls_per_s: float
    wrong: int = 0
    steal_ticks: int = 0  # of the cores used, taken by the hypervisor meanwhile


@dataclass
class Run:
    """A process set: its steps, and which of its threads could or did leave their cores."""

    seen: list[Seen]
    strays: list[str] = field(default_factory=list)
    kernel_calls: int = 0  # that a client of ours made through the kernel

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def parsed(text: str | bytes) -> Run:
        """Raises ValueError or TypeError for what is not a run."""
        told = json.loads(text)
        seen = [Seen(**{**one, "step": Step(**one["step"])}) for one in told.pop("seen")]
        return Run(seen, **told)


def carry_out(job: Job, client: Client) -> Run:
    """Warm up, take every step, and see whether this process stayed where it was put."""
    gc.collect()
    gc.freeze()
    before = host.migrations(os.getpid(), job.core)
    warm_up(client.call, job.steps[0].size, job.counts.warmup_calls, job.counts.warmup_ms)
    seen: list[Seen] = []
    capacity = 0.0  # calls per second
    for step in job.steps:
        stolen = host.steal_ticks(*job.cores)
        found = _measured(job.counts, step, client, capacity)
        found.steal_ticks = host.steal_ticks(*job.cores) - stolen
        if step.mode == CLOSED and not capacity:
            capacity = found.calls_per_s
        seen.append(found)
    strays = host.strays(os.getpid(), job.core) + host.moved(os.getpid(), job.core, before)
    return Run(seen, strays)


def _measured(counts: Counts, step: Step, client: Client, capacity: float) -> Seen:
    if step.mode == PIPELINED:
        assert client.post is not None
        assert client.collect is not None
        rate, wrong = pipelined(
            client.post, client.collect, counts.pipelined, step.size, counts.depth
        )
        return Seen(step, counts.pipelined, counts.pipelined, {}, [], rate, wrong)
    rtt_ns = warm_up(client.call, step.size, counts.settle_calls, counts.settle_ms)
    load = _loaded(counts, step, client, rtt_ns, capacity)
    ordered = sorted(load.samples)
    return Seen(
        step,
        len(ordered),
        load.batch,
        stats.percentiles(ordered),
        [stats.percentile(ordered, point) for point in stats.POINTS],
        1e9 * len(ordered) / sum(ordered),
        load.wrong,
    )


def _loaded(counts: Counts, step: Step, client: Client, rtt_ns: float, capacity: float) -> Load:
    if step.mode == GAP:
        count = counts.fitting(rtt_ns + step.gap_us * 1e3)
        return closed_loop(client.call, count, step.size, step.gap_us)
    if step.mode == OPEN:
        period_ns = step.period_us * 1e3 or 1e9 / (capacity * step.load)
        return open_loop(client.call, counts.fitting(period_ns), step.size, period_ns)
    batch = client.batch or (BATCH if rtt_ns < BATCH_BELOW_NS else 1)
    if batch == 1:
        return closed_loop(client.call, counts.fitting(rtt_ns), step.size)
    return batched(client.call, counts.fitting(rtt_ns * batch), step.size, batch)
