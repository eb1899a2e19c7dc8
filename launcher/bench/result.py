"""result: what the runs come to: a row per path, placement and load; ratios; JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path as File
from statistics import median
from typing import Any, NamedTuple

from launcher.bench import stats
from launcher.bench.cores import Placement
from launcher.bench.hops import Hops
from launcher.bench.job import CLOSED, Seen, Step
from launcher.bench.paths import BROKERED, FLOOR, KERNEL, PATHS, Path

SCHEMA = "bench-ipc/1"
OK, SUSPECT, INVALID, ABSENT = "ok", "suspect", "invalid", "absent"
STATUSES = (OK, ABSENT, SUSPECT, INVALID)
SHOWN = {"min": "min", "p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9", "max": "max"}
SAME_CORE, CROSS_CORE = False, True


@dataclass
class Row:
    """A path under one load, in the shape of the schema; times are nanoseconds.

    `depth` calls were under way for `calls_per_s`, one for all else; `batch` round trips are in
    each sample, which is their mean.
    """

    peer: str
    kind: str
    size: int = 0
    cores: dict[str, int] = field(default_factory=dict)
    distance: str = ""
    mode: str = CLOSED
    gap_us: int = 0
    load: float = 0.0
    n: int = 0
    batch: int = 1
    depth: int = 1
    runs: list[dict[str, float]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)
    status: str = OK
    reasons: list[str] = field(default_factory=list)
    unit: str = "ns"
    metric: str = "rtt"

    @property
    def is_cross(self) -> bool:
        return self.cores.get("client") != self.cores.get("server")


class SelfTest(NamedTuple):
    """Whether the bench sees what was done to a server on purpose."""

    name: str
    path: str
    held: bool
    text: str


@dataclass
class Result:
    """Everything that `--json` writes."""

    host: dict[str, Any]
    versions: dict[str, str]
    commit: str
    results: list[Row]
    ratios: dict[str, float]
    self_tests: list[SelfTest] = field(default_factory=list)
    hops: list[Hops] = field(default_factory=list)

    @property
    def status(self) -> str:
        """The worst of the rows', and invalid when a self-test failed."""
        if not all(test.held for test in self.self_tests):
            return INVALID
        return max((row.status for row in self.results), key=STATUSES.index)

    def as_json(self) -> dict[str, Any]:
        rows = []
        for row in self.results:
            fields = asdict(row)
            rows.append({"peer": fields.pop("peer"), "class": fields.pop("kind"), **fields})
        tests = [test._asdict() for test in self.self_tests]
        return {"schema": SCHEMA, **asdict(self), "results": rows} | {
            "self_tests": tests,
            "hops": [hops.as_json() for hops in self.hops],
        }

    def write(self, file: File) -> None:
        file.write_text(json.dumps(self.as_json(), indent=1) + "\n")


def absent_row(path: Path, why: str) -> Row:
    return Row(path.name, path.kind, status=ABSENT, reasons=[why])


def row_of(
    path: Path,
    where: Placement,
    step: Step,
    seen: Sequence[Seen],
    deep: Sequence[Seen] = (),
    depth: int = 1,
) -> Row:
    """The row of one step. Percentiles are medians over the runs, min and max are of all.
    `deep` is what the pipelined load saw, where there was one."""
    cores = {"client": where.client, "server": where.server}
    if path.kind == BROKERED:
        cores["broker"] = where.broker
    row = Row(path.name, path.kind, step.size, cores, where.distance, step.mode, step.gap_us)
    row.load, row.n = step.load, sum(one.n for one in seen)
    if not seen:
        return row
    row.batch, row.depth = max(one.batch for one in seen), depth if deep else 1
    rates = [one.calls_per_s for one in deep or seen]
    row.runs = [
        {**{k: round(v, 1) for k, v in one.figures.items()}, "calls_per_s": round(rate)}
        for one, rate in zip(seen, rates, strict=True)
    ]
    row.summary = {k: round(median(run[k] for run in row.runs), 1) for k in SHOWN}
    row.summary["min"] = min(run["min"] for run in row.runs)
    row.summary["max"] = max(run["max"] for run in row.runs)
    row.summary["ci95"] = list(stats.bootstrap([run["p50"] for run in row.runs]))
    row.summary["calls_per_s"] = round(median(rates))
    row.summary["calls_per_s_ci95"] = [round(rate) for rate in stats.bootstrap(rates)]
    points = zip(*(one.curve for one in seen), strict=True)
    row.curve = [
        [at, round(median(values), 1)] for at, values in zip(stats.POINTS, points, strict=True)
    ]
    return row


# --- ratios -------------------------------------------------------------------------------------

# Ours over theirs, by the p50 of the closed loop of 64 B, where it counts.
RATIOS = (
    ("channel_spin", "unix_socket", CROSS_CORE),
    ("channel_block", "unix_socket", SAME_CORE),
    ("ring_spin", "unix_socket", CROSS_CORE),
    ("ring_block", "unix_socket", SAME_CORE),
    *((KERNEL, name, SAME_CORE) for name, path in PATHS.items()
      if path.kind != FLOOR and not path.is_channel and name != KERNEL),
)  # fmt: skip


def ratios_of(rows: list[Row], size: int) -> dict[str, float]:
    """p50: lower is better. Throughput, of those who can have calls under way: higher is."""
    near = {(row.peer, row.is_cross): row for row in reversed(rows) if _counts(row, size)}
    ratios = {}
    for ours, theirs, cross in RATIOS:
        one, other = near.get((ours, cross)), near.get((theirs, cross))
        if one is None or other is None:
            continue
        ratios[f"{ours}_over_{theirs}_p50"] = round(one.summary["p50"] / other.summary["p50"], 3)
        if one.depth > 1 and other.depth > 1:
            rates = one.summary["calls_per_s"], other.summary["calls_per_s"]
            ratios[f"{ours}_over_{theirs}_throughput"] = round(rates[0] / rates[1], 3)
    return ratios


def _counts(row: Row, size: int) -> bool:
    return row.mode == CLOSED and row.size == size and row.n > 0
