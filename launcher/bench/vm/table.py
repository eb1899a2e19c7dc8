"""table: a result for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.bench.vm.result import Row, VmResult

Cells = list[list[object]]
TITLES = ["figure", "of", "unit", "n", "min", "p50", "p90", "max", "limit", "status"]
WITHIN = {True: "", False: " missed", None: ""}


def table(rows: Sequence[Row]) -> tuple[list[str], Cells]:
    """A line for each figure that was measured."""
    return TITLES, [_line(row) for row in rows if row.summary]


def _line(row: Row) -> list[object]:
    figures = [row.summary[name] for name in ("min", "p50", "p90", "max")]
    limit = None if row.limit is None else f"{row.limit:g}{WITHIN[row.within]}"
    return [row.figure, row.who, row.unit, row.n, *figures, limit, row.status]


def stage_table(rows: Sequence[Row]) -> tuple[list[str], Cells]:
    """When a life had got how far, ms (medians)."""
    told = [row for row in rows if row.stages_p50]
    names = list(told[0].stages_p50) if told else []
    cells: Cells = [
        [f"{row.figure} {row.who}", *(row.stages_p50[name] for name in names)] for row in told
    ]
    return ["reached after, ms", *names], cells


def exit_table(result: VmResult) -> tuple[list[str], Cells]:
    """What guests do in a second."""
    kinds = sorted({kind for each in result.exits for kind in each["per_s"]})
    cells: Cells = [
        [
            each["guest"],
            *(each["per_s"].get(kind, 0.0) for kind in kinds),
            each["requests_per_s"],
            each["cpu_percent"],
        ]
        for each in result.exits
    ]
    return ["in a second", *kinds, "requests", "CPU %"], cells


def notes(result: VmResult) -> list[str]:
    """What somebody must know who reads the tables."""
    lines = [f"{row.figure} {row.who}: {row.what}" for row in result.results if row.summary]
    lines += [
        f"self-test {test.name}: {test.text}{'' if test.held else ', and that is wrong'}"
        for test in result.self_tests
    ]
    lines += _doubts(result.results)
    lines += [
        f"{row.figure} {row.who}: {row.summary['p50']} {row.unit} is not within {row.limit:g}"
        for row in result.missed
    ]
    return lines


def _doubts(rows: Sequence[Row]) -> list[str]:
    """Each reason once, with all that it is said of."""
    whom: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for reason in row.reasons:
            whom.setdefault((row.status, reason), []).append(f"{row.figure} {row.who}")
    return [f"{status}: {reason}: {', '.join(of)}" for (status, reason), of in whom.items()]
