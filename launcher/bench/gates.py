"""gates: whether a result can be believed: ok, suspect or invalid, and why.

A wrong echo, a thread off its core, a channel whose calls went through the kernel, and a path
whose usual call is quicker than its floor ever was are invalid. An unsteady host is suspect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from launcher.bench import stats
from launcher.bench.job import CLOSED, Run, Seen
from launcher.bench.paths import PATHS
from launcher.bench.result import ABSENT, INVALID, OK, SUSPECT, Row
from launcher.words import count

MAX_SPREAD = 0.25  # of the runs' p50s around their median; beyond it the result is suspect
BY_KERNEL = 100  # calls of a channel's client that may go through the kernel: to find its server


def judge(row: Row, runs: Sequence[Run], seen: Sequence[Seen]) -> None:
    """What the runs themselves say. `seen` is what they saw of this row."""
    wrong = sum(one.wrong for one in seen)
    if wrong:
        blame(row, INVALID, f"{wrong} echoes are not what was sent")
    for stray in sorted({stray for run in runs for stray in run.strays}):
        blame(row, INVALID, stray)
    by_kernel = max((run.kernel_calls for run in runs), default=0)
    if PATHS[row.peer].is_channel and by_kernel > BY_KERNEL:
        blame(row, INVALID, f"{by_kernel} calls of a run went through the kernel: no channel")
    steal = sum(one.steal_ticks for one in seen)
    if steal:
        blame(row, SUSPECT, f"the hypervisor took {count(steal, 'tick')} of its cores")
    apart = stats.spread([run["p50"] for run in row.runs]) if row.runs else 0.0
    if apart > MAX_SPREAD:
        blame(row, SUSPECT, f"the p50s of the runs lie {apart:.0%} apart, at most {MAX_SPREAD:.0%}")


def hold_to_floors(rows: Iterable[Row]) -> None:
    """Nothing is quicker than what it is made of, between the same cores."""
    measured = [row for row in rows if row.mode == CLOSED and row.n]
    for row in measured:
        for floor in measured:
            if floor.peer in PATHS[row.peer].floors and _comparable(row, floor):
                _compare(row, floor)


def _comparable(row: Row, floor: Row) -> bool:
    if PATHS[floor.peer].ends == 1:
        return True  # the clock is the same everywhere
    ends = all(row.cores[end] == floor.cores[end] for end in ("client", "server"))
    return ends and (PATHS[floor.peer].only_word or row.size == floor.size)


def _compare(row: Row, floor: Row) -> None:
    p50, low = row.summary["p50"], floor.summary["min"]
    if p50 < low:
        text = f"its p50 of {p50 / 1e3:.2f} µs is below the quickest {floor.peer}, {low / 1e3:.2f}"
        blame(row, INVALID, text)
    elif row.summary["ci95"][1] < floor.summary["ci95"][0]:
        usual = floor.summary["p50"]
        blame(
            row, SUSPECT, f"its p50 is below that of its floor {floor.peer}, {usual / 1e3:.2f} µs"
        )


def blame(row: Row, status: str, reason: str) -> None:
    """A row is as bad as the worst that is said of it."""
    row.status = max(row.status, status, key=(OK, ABSENT, SUSPECT, INVALID).index)
    row.reasons.append(reason)
