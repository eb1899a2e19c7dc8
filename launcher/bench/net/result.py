"""result: what the visits come to: a row for each stack, whether it can be believed, JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from launcher.bench import stats
from launcher.bench.net.busy import MUCH
from launcher.bench.net.plan import FLOOR, LINUX, MIB, OURS, PEER, Variant

SCHEMA = "bench-net/1"
OK, SUSPECT, INVALID, ABSENT = "ok", "suspect", "invalid", "absent"
STATUSES = (OK, ABSENT, SUSPECT, INVALID)
MOST_SPREAD = 0.2  # of the rounds around their median; beyond it the result is suspect
MOST_STOLEN = 0.02
TRIPS = ("ping", "echo")


class Visit(NamedTuple):
    """One stack, once: a download, and round trips if it answers them. Times are nanoseconds."""

    came: int  # bytes
    took_ns: int
    trips: dict[str, list[int]]
    wrong: int = 0  # of the round trips
    busy: float = 0.0  # share of the processors that others used just before
    stolen: float = 0.0  # and that the hypervisor took meanwhile

    @property
    def mib_per_s(self) -> float:
        return self.came / MIB / (self.took_ns / 1e9)


@dataclass
class Row:
    """What is known of one stack, in the shape of the schema."""

    peer: str
    kind: str
    what: str
    bytes: int = 0  # of each download
    rounds: int = 0
    throughput: dict[str, Any] = field(default_factory=dict)
    rtt: dict[str, dict[str, Any]] = field(default_factory=dict)
    status: str = OK
    reasons: list[str] = field(default_factory=list)

    def blame(self, status: str, reason: str) -> None:
        """A row is as bad as the worst that is said of it."""
        self.status = max(self.status, status, key=STATUSES.index)
        self.reasons.append(reason)


def absent_row(variant: Variant, why: str) -> Row:
    return Row(variant.name, variant.kind, variant.what, status=ABSENT, reasons=[why])


def row_of(variant: Variant, asked: int, visits: Sequence[Visit], failures: Iterable[str]) -> Row:
    """`asked` is the bytes of one download. A visit that failed is no visit, and makes the row
    invalid."""
    row = Row(variant.name, variant.kind, variant.what, asked, len(visits))
    for failure in failures:
        row.blame(INVALID, f"a round came to no result: {failure}")
    if visits:
        row.throughput = {"unit": "MiB/s", **_summed([visit.mib_per_s for visit in visits], 2)}
        for trip in TRIPS if variant.answers else ():
            row.rtt[trip] = _trips([visit.trips[trip] for visit in visits])
        _judge(row, visits)
    return row


def _summed(values: Sequence[float], places: int) -> dict[str, Any]:
    return {
        "median": round(median(values), places),
        "min": round(min(values), places),
        "max": round(max(values), places),
        "spread": round(stats.spread(values), 3),
        "runs": [round(value, places) for value in values],
    }


def _trips(runs: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Percentiles are of all rounds together."""
    found = stats.percentiles([one for run in runs for one in run])
    p50s = [stats.percentiles(run)["p50"] for run in runs]
    return {
        "unit": "ns",
        "n": sum(map(len, runs)),
        **{name: found[name] for name in ("min", "p50", "p99", "max")},
        "spread": round(stats.spread(p50s), 3),
        "runs": p50s,
    }


def _judge(row: Row, visits: Sequence[Visit]) -> None:
    short = [visit.came for visit in visits if visit.came != row.bytes]
    for came in short:
        row.blame(INVALID, f"{came} bytes came, {row.bytes} were asked for")
    if wrong := sum(visit.wrong for visit in visits):
        row.blame(INVALID, f"{wrong} echoes are not what was sent")
    if (busy := median(visit.busy for visit in visits)) > MUCH:
        row.blame(SUSPECT, f"others used {busy:.0%} of the processors")
    if (stolen := median(visit.stolen for visit in visits)) > MOST_STOLEN:
        row.blame(SUSPECT, f"the hypervisor took {stolen:.0%} of the processors")
    for what, found in {"downloads": row.throughput, **row.rtt}.items():
        if found["spread"] > MOST_SPREAD:
            apart, most = found["spread"], f"at most {MOST_SPREAD:.0%}"
            row.blame(SUSPECT, f"the rounds of its {what} lie {apart:.0%} apart, {most}")


def hold_to_floor(rows: Sequence[Row]) -> None:
    """Nothing is quicker than a connection that goes through no card at all."""
    floors = [row for row in rows if row.kind == FLOOR and row.throughput]
    for row in rows:
        for floor in floors:
            if row.throughput and row.throughput["median"] > floor.throughput["max"]:
                row.blame(SUSPECT, f"it is quicker than {floor.peer} ever was")


def ratios_of(rows: Iterable[Row]) -> dict[str, float]:
    """Each of ours over each other stack: of throughput more is better, of the p50s less is."""
    known = [row for row in rows if row.throughput]
    found = {}
    for one in (row for row in known if row.kind == OURS):
        for other in (row for row in known if row.kind in (PEER, LINUX)):
            name = f"{one.peer}_over_{other.peer}"
            found[f"{name}_throughput"] = _over(one.throughput, other.throughput, "median")
            for trip in one.rtt:
                found[f"{name}_{trip}_p50"] = _over(one.rtt[trip], other.rtt[trip], "p50")
    return found


def _over(one: dict[str, Any], other: dict[str, Any], figure: str) -> float:
    return round(one[figure] / other[figure], 4) if other[figure] else 0.0


@dataclass
class NetResult:
    """Everything that `--json` writes."""

    host: dict[str, Any]
    versions: dict[str, str]
    commit: str
    bytes: int
    rounds: int
    results: list[Row]

    @property
    def status(self) -> str:
        """The worst of the rows'."""
        return max((row.status for row in self.results), key=STATUSES.index, default=OK)

    def as_json(self) -> dict[str, Any]:
        rows = []
        for row in self.results:
            fields = asdict(row)
            rows.append({"peer": fields.pop("peer"), "class": fields.pop("kind"), **fields})
        whole = {**asdict(self), "results": rows, "ratios": ratios_of(self.results)}
        return {"schema": SCHEMA, "status": self.status, **whole}

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n")
