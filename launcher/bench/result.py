"""result: what the runs come to: one row per path, its gates, the ratios, JSON and a table."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from launcher.bench import stats
from launcher.bench.load import Counts, Run

SCHEMA = "bench-ipc/1"
MAX_SPREAD = 0.25  # of the runs' p50s around their median; beyond it the result is suspect
OK, SUSPECT, INVALID = "ok", "suspect", "invalid"
SHOWN = {"min": "min", "p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9", "max": "max"}


@dataclass
class Row:
    """One path under the closed loop, in the shape of the schema; times are nanoseconds."""

    peer: str
    size: int
    cores: dict[str, int]
    n: int
    depth: int
    runs: list[dict[str, float]]
    summary: dict[str, Any]
    status: str = OK
    reasons: list[str] = field(default_factory=list)
    mode: str = "closed"
    gap_us: int = 0
    unit: str = "ns"
    metric: str = "rtt"


@dataclass
class QuickResult:
    """Everything that `--json` writes."""

    host: dict[str, Any]
    versions: dict[str, str]
    commit: str
    results: list[Row]
    ratios: dict[str, float]

    @property
    def status(self) -> str:
        """The worst of the rows'."""
        return max((row.status for row in self.results), key=(OK, SUSPECT, INVALID).index)

    def as_json(self) -> dict[str, Any]:
        rows = [{**asdict(row), "class": "brokered"} for row in self.results]
        return {"schema": SCHEMA, **asdict(self), "results": rows}

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n")


def row_of(peer: str, runs: list[Run], counts: Counts, core: int) -> Row:
    """The row of one path. Percentiles are medians over the runs, min and max are of all."""
    each = [stats.percentiles(run.samples) for run in runs]
    summary: dict[str, Any] = {name: median(p[name] for p in each) for name in SHOWN}
    summary["min"], summary["max"] = min(p["min"] for p in each), max(p["max"] for p in each)
    summary["ci95"] = list(stats.bootstrap([p["p50"] for p in each]))
    summary["calls_per_s"] = round(median(run.calls_per_s for run in runs))
    summary["calls_per_s_ci95"] = [round(x) for x in stats.bootstrap([r.calls_per_s for r in runs])]
    status, reasons = judge(runs, [p["p50"] for p in each])
    return Row(
        peer=peer,
        size=counts.size,
        cores=dict.fromkeys(("client", "server", "broker"), core),
        n=sum(len(run.samples) for run in runs),
        depth=counts.depth,
        runs=[{**p, "calls_per_s": round(r.calls_per_s)} for p, r in zip(each, runs, strict=True)],
        summary=summary,
        status=status,
        reasons=reasons,
    )


def judge(runs: list[Run], p50s: list[int]) -> tuple[str, list[str]]:
    """The gates: a wrong echo or a thread off its core is invalid, an unsteady host suspect."""
    wrong = sum(run.wrong for run in runs)
    invalid = [f"{wrong} echoes are not what was sent"] if wrong else []
    invalid += sorted({stray for run in runs for stray in run.strays})
    steal = sum(run.steal_ticks for run in runs)
    suspect = [f"the hypervisor took {steal} ticks of the core"] if steal else []
    apart = stats.spread(p50s)
    if apart > MAX_SPREAD:
        suspect.append(f"the p50s of the runs lie {apart:.0%} apart, at most {MAX_SPREAD:.0%}")
    return (INVALID if invalid else SUSPECT if suspect else OK), invalid + suspect


def ratios_of(rows: list[Row]) -> dict[str, float]:
    """The kernel over each peer: p50 (lower is better) and throughput (higher is better)."""
    kernel, *peers = rows
    ratios = {}
    for peer in peers:
        name, ours, theirs = f"kernel_over_{peer.peer}", kernel.summary, peer.summary
        ratios[f"{name}_p50"] = round(ours["p50"] / theirs["p50"], 3)
        ratios[f"{name}_throughput"] = round(ours["calls_per_s"] / theirs["calls_per_s"], 3)
    return ratios


def print_table(result: QuickResult) -> None:
    """The result for people, on stderr."""
    console = Console(stderr=True)
    console.print(_rows_table(result))
    for name, value in result.ratios.items():
        console.print(f"{name} [bold]{value:.2f}[/]")
    for row in result.results:
        for reason in row.reasons:
            console.print(f"{row.peer} is {row.status}: {reason}", highlight=False)


def _rows_table(result: QuickResult) -> Table:
    """Narrow enough for 80 columns; a status other than ok is told below it, with its reasons."""
    sizes = {f"{row.size} B, {row.depth} deep" for row in result.results}
    host = result.host
    where = f"{host['cpu']}, all on core {host['core']}, clock {host['clock_source']}"
    title = f"brokered round trip in µs, {', '.join(sizes)}\n{where}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("path", no_wrap=True)
    for name in (*SHOWN.values(), "p50 95 %", "calls/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result.results:
        times = [_short(row.summary[name] / 1000) for name in SHOWN]
        low, high = (_short(x / 1000) for x in row.summary["ci95"])
        table.add_row(row.peer, *times, f"{low}-{high}", f"{row.summary['calls_per_s']:,}")
    return table


def _short(value_us: float) -> str:
    return f"{value_us:.1f}" if value_us < 100 else f"{value_us:.0f}"


def say(text: str) -> None:
    """A progress line."""
    print(text, file=sys.stderr, flush=True)
