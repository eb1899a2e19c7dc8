"""result: what visits come to: a row for each figure, whether it can be believed, JSON. Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from launcher.bench import stats
from launcher.bench.net.busy import MUCH
from launcher.bench.vm.plan import OURS, Figure

SCHEMA = "bench-vm/1"
OK, SUSPECT, INVALID, ABSENT = "ok", "suspect", "invalid", "absent"
STATUSES = (OK, ABSENT, SUSPECT, INVALID)
MOST_SPREAD = 0.25  # of the samples around their median; beyond it the row is suspect
MOST_STOLEN = 0.02
SHOWN = ("min", "p50", "p90", "max")


class Key(NamedTuple):
    """Which figure, and whose."""

    name: str
    who: str


class Exits(NamedTuple):
    """What a guest did in a while of its run."""

    guest: str
    seconds: float
    times: dict[str, int]  # how often it was left, by kind
    requests: int  # of its disk
    ran_s: float  # it had the processor


@dataclass
class Visit:
    """One subject, once: samples in the units of their figures, and what makes them doubtful."""

    samples: dict[Key, list[float]] = field(default_factory=lambda: defaultdict(list))
    stages: dict[Key, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))
    exits: Exits | None = None
    wrong: list[str] = field(default_factory=list)  # what no figure survives
    busy: float = 0.0  # share of the processors that others used before its round
    stolen: float = 0.0  # and that the hypervisor took meanwhile


@dataclass
class Row:
    """What is known of one figure, in the shape of the schema."""

    figure: str
    who: str
    kind: str
    what: str
    unit: str
    more_is_better: bool
    n: int = 0
    summary: dict[str, Any] = field(default_factory=dict)
    samples: list[float] = field(default_factory=list)
    stages_p50: dict[str, float] = field(default_factory=dict)
    limit: float | None = None
    within: bool | None = None  # whether the median is; None: there is no limit, or no median
    status: str = OK
    reasons: list[str] = field(default_factory=list)

    def blame(self, status: str, reason: str) -> None:
        """A row is as bad as the worst that is said of it."""
        self.status = max(self.status, status, key=STATUSES.index)
        if reason not in self.reasons:
            self.reasons.append(reason)


def absent_row(figure: Figure, why: str) -> Row:
    row = _row(figure)
    row.blame(ABSENT, why)
    return row


def row_of(figure: Figure, visits: Sequence[Visit], failures: Iterable[str]) -> Row:
    """Of the visits that were to measure it. One that failed is no visit, and makes it invalid."""
    row, key = _row(figure), Key(*figure.key)
    for failure in failures:
        row.blame(INVALID, f"a round came to no result: {failure}")
    samples = [sample for visit in visits for sample in visit.samples.get(key, ())]
    if samples:
        _sum_up(row, samples)
        row.stages_p50 = _stages([one for visit in visits for one in visit.stages.get(key, ())])
        _judge(row, [visit for visit in visits if key in visit.samples])
    return row


def _row(figure: Figure) -> Row:
    what = figure.name, figure.who, figure.kind, figure.what, figure.unit, figure.more_is_better
    return Row(*what, limit=figure.limit)


def _sum_up(row: Row, samples: Sequence[float]) -> None:
    found = stats.percentiles(samples)
    low, high = stats.bootstrap(samples)
    row.n = len(samples)
    row.samples = [round(sample, 3) for sample in samples]
    row.summary = {name: round(found[name], 3) for name in SHOWN}
    row.summary |= {"ci95": [round(low, 3), round(high, 3)], "spread": _spread(samples)}
    if row.limit is not None:
        p50 = found["p50"]
        row.within = p50 >= row.limit if row.more_is_better else p50 <= row.limit


def _spread(samples: Sequence[float]) -> float:
    return round(stats.spread(samples), 3) if median(samples) else 0.0


def _stages(lives: Sequence[dict[str, float]]) -> dict[str, float]:
    names = lives[0] if lives else ()
    return {name: round(median(life[name] for life in lives), 3) for name in names}


def _judge(row: Row, visits: Sequence[Visit]) -> None:
    for why in [why for visit in visits for why in visit.wrong]:
        row.blame(INVALID, why)
    if row.summary["min"] <= 0:
        row.blame(INVALID, f"a sample of {row.summary['min']} {row.unit} cannot be")
    if (busy := median(visit.busy for visit in visits)) > MUCH:
        row.blame(SUSPECT, f"others used {busy:.0%} of the processors")
    if (stolen := median(visit.stolen for visit in visits)) > MOST_STOLEN:
        row.blame(SUSPECT, f"the hypervisor took {stolen:.0%} of the processors")
    if (spread := row.summary["spread"]) > MOST_SPREAD:
        row.blame(SUSPECT, f"the samples lie {spread:.0%} apart, at most {MOST_SPREAD:.0%}")


# --- what goes with the rows --------------------------------------------------------------------


def exits_of(visits: Iterable[Visit]) -> list[dict[str, Any]]:
    """Per second of each guest that was looked at, over all its visits."""
    seen: dict[str, list[Exits]] = defaultdict(list)
    for visit in visits:
        if visit.exits is not None:
            seen[visit.exits.guest].append(visit.exits)
    return [_rates(guest, each) for guest, each in sorted(seen.items())]


def _rates(guest: str, seen: Sequence[Exits]) -> dict[str, Any]:
    seconds = sum(one.seconds for one in seen)
    kinds = sorted({kind for one in seen for kind in one.times})
    return {
        "guest": guest,
        "seconds": round(seconds, 3),
        "per_s": {
            kind: round(sum(one.times.get(kind, 0) for one in seen) / seconds, 1) for kind in kinds
        },
        "requests_per_s": round(sum(one.requests for one in seen) / seconds, 1),
        "cpu_percent": round(100 * sum(one.ran_s for one in seen) / seconds, 1),
    }


def ratios_of(rows: Iterable[Row]) -> dict[str, float]:
    """Each of ours over whoever else has the same figure, by the medians."""
    known = [row for row in rows if row.summary]
    return {
        f"{one.figure}_{one.who}_over_{other.who}": round(
            one.summary["p50"] / other.summary["p50"], 4
        )
        for one in known
        for other in known
        if one.figure == other.figure and one.kind == OURS != other.kind and other.summary["p50"]
    }


class SelfTest(NamedTuple):
    """Whether the bench sees what was done on purpose."""

    name: str
    held: bool
    text: str


@dataclass
class VmResult:
    """Everything that `--json` writes."""

    host: dict[str, Any]
    versions: dict[str, str]
    commit: str
    rounds: int
    results: list[Row]
    exits: list[dict[str, Any]]
    self_tests: list[SelfTest]

    @property
    def status(self) -> str:
        """The worst of the rows', and invalid when a self-test failed."""
        if not all(test.held for test in self.self_tests):
            return INVALID
        return max((row.status for row in self.results), key=STATUSES.index, default=OK)

    @property
    def missed(self) -> list[Row]:
        """Claims that did not hold."""
        return [row for row in self.results if row.within is False]

    @property
    def exit_code(self) -> int:
        """1: a figure is invalid, or a claim did not hold; 3: it did not, on a host that may be
        the reason."""
        if self.status == INVALID or any(row.status == OK for row in self.missed):
            return 1
        return 3 if self.missed else 0

    def as_json(self) -> dict[str, Any]:
        rows = []
        for row in self.results:
            fields = asdict(row)
            fields["class"] = fields.pop("kind")
            rows.append(fields)
        whole = asdict(self) | {"self_tests": [test._asdict() for test in self.self_tests]}
        more = {"results": rows, "ratios": ratios_of(self.results)}
        return {"schema": SCHEMA, "status": self.status, **whole, **more}

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n")
