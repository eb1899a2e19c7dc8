"""outages: what the samples of a recovery bench come to: percentiles, stages, ratios, limits.

An outage lasts from just before the signal is sent to the end of the first call that the next
life answered, on the one clock that all processes share. Pure; times are nanoseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from launcher.bench import stats
from launcher.tasks import Stages

SCHEMA = "bench-recovery/1"
DETECTION = {
    "ours": "the kernel tells the client of the death, and holds its call for the next life",
    "baseline": "the client sees the end of its connection, and by inotify(7) the next socket",
}  # both are events: no interval of polling is in an outage
LIMITS_MS = {"standby": 2.0, "zygote": 6.0, "cold": 80.0}  # of the p50
STAGES = ("detected", "dead", "spawned", "hello", "ready", "serving")
REACHED = (*STAGES, "client")
SHOWN = ("min", "p50", "p90", "p99", "max")
MEASURED, ABSENT = "measured", "absent"


class NoRecovery(Exception):
    """None of the calls that were written down was answered by the next life."""


class Call(NamedTuple):
    """One call of a client. `life` is the process that answered; 0: not known to the client."""

    begun_ns: int
    ended_ns: int
    life: int


class Sample(NamedTuple):
    """One outage."""

    killed_ns: int
    ended_ns: int  # of the first call that the next life answered
    stages: Stages | None = None

    @property
    def outage_ns(self) -> int:
        return self.ended_ns - self.killed_ns

    def after_kill_ns(self) -> dict[str, int]:
        """When each stage was reached; what was reached before the kill is not among them."""
        told = {name: getattr(self.stages, f"{name}_ns", 0) - self.killed_ns for name in STAGES}
        return {name: at for name, at in told.items() if self.stages and at >= 0}


def first_after(calls: Iterable[Call], moment_ns: int) -> int:
    """When the first call ended that ended after this moment."""
    return _first(call.ended_ns for call in calls if call.ended_ns >= moment_ns)


def first_of_another(calls: Iterable[Call], life: int) -> int:
    """When the first call ended that another life than this one answered."""
    return _first(call.ended_ns for call in calls if call.life != life)


def _first(ends: Iterable[int]) -> int:
    found = min(ends, default=0)
    if not found:
        raise NoRecovery("the client wrote down no answer of the next life")
    return found


@dataclass
class Row:
    """What is known of one way to come back, in the shape of the schema."""

    variant: str
    kind: str  # "ours" or "baseline"
    status: str
    reason: str = ""  # of what is absent
    n: int = 0
    unit: str = "ns"
    metric: str = "outage"
    summary: dict[str, Any] = field(default_factory=dict)
    stages_p50: dict[str, int | None] = field(default_factory=dict)
    samples: list[int] = field(default_factory=list)
    limit_ms: float | None = None
    within: bool | None = None  # whether the p50 is; None: there is no limit, or no p50


def absent_row(variant: str, kind: str, reason: str) -> Row:
    return Row(variant, kind, ABSENT, reason, limit_ms=LIMITS_MS.get(variant))


def row_of(variant: str, kind: str, samples: Sequence[Sample]) -> Row:
    """The row of at least one sample."""
    outages = [sample.outage_ns for sample in samples]
    found = stats.percentiles(outages)
    summary: dict[str, Any] = {name: found[name] for name in SHOWN}
    summary["ci95"] = [round(at) for at in stats.bootstrap(outages)]
    limit_ms = LIMITS_MS.get(variant)
    within = found["p50"] <= limit_ms * 1e6 if limit_ms is not None else None
    return Row(
        variant=variant,
        kind=kind,
        status=MEASURED,
        n=len(samples),
        summary=summary,
        stages_p50=_stages(samples) if samples[0].stages else {},
        samples=outages,
        limit_ms=limit_ms,
        within=within,
    )


def _stages(samples: Sequence[Sample]) -> dict[str, int | None]:
    """Medians after the kill, of who reached the stage after it; None: nobody did."""
    each = [sample.after_kill_ns() for sample in samples]
    reached = {name: [at[name] for at in each if name in at] for name in STAGES}
    reached["client"] = [sample.outage_ns for sample in samples]
    return {name: stats.percentiles(at)["p50"] if at else None for name, at in reached.items()}


def ratios_of(rows: Iterable[Row]) -> dict[str, float]:
    """The p50 of each of ours over that of each baseline: lower is better."""
    known = [row for row in rows if row.status == MEASURED]
    return {
        f"{one.variant}_over_{other.variant}_p50": round(
            one.summary["p50"] / other.summary["p50"], 4
        )
        for one in known
        for other in known
        if one.kind == "ours" and other.kind == "baseline"
    }


@dataclass
class RecoveryResult:
    """Everything that `--json` writes."""

    host: dict[str, Any]
    versions: dict[str, str]
    commit: str
    results: list[Row]

    def as_json(self) -> dict[str, Any]:
        limits = {row.variant: row.within for row in self.results if row.limit_ms is not None}
        return {
            "schema": SCHEMA,
            **asdict(self),
            "detection": DETECTION,
            "ratios": ratios_of(self.results),
            "limits_ms": LIMITS_MS,
            "within": limits,
        }

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n")


Cells = list[list[object]]


def outage_table(rows: Sequence[Row]) -> tuple[list[str], Cells]:
    """The outages for people, in microseconds, and how often each goes into a baseline's."""
    known = [row for row in rows if row.status == MEASURED]
    baselines = [row for row in known if row.kind == "baseline"]
    titles = ["outage, us", "kills", *SHOWN, "limit", "within"]
    cells: Cells = [
        [
            row.variant,
            row.n,
            *(_us(row.summary[name]) for name in SHOWN),
            row.limit_ms and round(row.limit_ms * 1000),
            WITHIN[row.within],
            *(other.summary["p50"] / row.summary["p50"] for other in baselines),
        ]
        for row in known
    ]
    return [*titles, *(f"{row.variant} / it" for row in baselines)], cells


WITHIN = {True: "yes", False: "no", None: None}


def stage_table(rows: Sequence[Row]) -> tuple[list[str], Cells]:
    """When each stage was reached, in microseconds after the kill (medians)."""
    told = [row for row in rows if row.stages_p50]
    cells: Cells = [[row.variant, *(_us(row.stages_p50[name]) for name in REACHED)] for row in told]
    return ["reached after, us", *REACHED], cells


def notes(result: RecoveryResult) -> list[str]:
    """What somebody must know who reads the tables."""
    absent = [f"{r.variant} is {r.status}: {r.reason}" for r in result.results if r.reason]
    found = [f"{kind}: {how}" for kind, how in DETECTION.items()]
    if result.host["bytecode"] != "written":
        found.append("PYTHONDONTWRITEBYTECODE is set: a start may compile all that it imports")
    return [*found, *absent]


def _us(value_ns: int | None) -> int | None:
    return None if value_ns is None else round(value_ns / 1000)
