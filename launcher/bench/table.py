"""table: a result for people, in 80 columns. Classes stand in blocks of their own: a floor, a path
of two processes and one of three are not rivals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from launcher.bench.hops import KERNEL_HOPS, Hops
from launcher.bench.job import CLOSED, GAP, OPEN
from launcher.bench.paths import BROKERED, DIRECT, FLOOR, KINDS, WORD
from launcher.bench.plan import SIZE
from launcher.bench.result import ABSENT, INVALID, SHOWN, SUSPECT, Result, Row
from launcher.words import count

KIND_TITLES = {
    FLOOR: "floors: bytes, nothing else",
    DIRECT: "direct: 2 processes",
    BROKERED: "brokered: 3 processes",
}
MARKS = {SUSPECT: "?", INVALID: "!"}
KIB = 1024
NUMBER = re.compile(r"[\d.]+")


def print_table(result: Result, console: Console | None = None) -> None:
    """Everything, on stderr."""
    console = console or Console(stderr=True, highlight=False)
    host = result.host
    console.print(f"{host['cpu']}, {host['cores']} cores, clock {host['clock_source']}")
    console.print("Round trips in µs. p99.9 and max are the host's as much as anybody's.")
    _print_places(console, result.results)
    batched = sorted({f"{row.peer} {row.batch}" for row in result.results if row.batch > 1})
    if batched:
        console.print(f"A sample is the mean of many round trips: {', '.join(batched)}.")
    for name, value in result.ratios.items():
        console.print(f"{name} [bold]{value:.2f}[/]")
    if result.hops:
        console.print(_hops(result.hops))
    for test in result.self_tests:
        verdict = "passed" if test.held else "FAILED"
        console.print(f"self-test {test.name}, {test.path}: {verdict}: {test.text}")
    _print_reasons(console, result.results)


def _print_places(console: Console, rows: Iterable[Row]) -> None:
    """All that is known of one pair of cores of each class; others are for the map."""
    shown: set[str] = set()
    mapped = 0
    for title, of_place in _by_place(rows):
        distance = of_place[0].distance
        if distance in shown:
            mapped += 1
        else:
            _print_place(console, title, of_place)
        shown.add(distance)
    if mapped:
        console.print(f"{count(mapped, 'more pair')} of cores: see --json and --plot")


def _print_place(console: Console, title: str, rows: list[Row]) -> None:
    closed = [row for row in rows if row.mode == CLOSED]
    console.print(_main(title, [row for row in closed if row.size in (WORD, SIZE)]))
    sizes = sorted({row.size for row in closed} - {WORD})
    if len(sizes) > 1:
        heads = [f"{size} B" if size < KIB else f"{size // KIB} KiB" for size in sizes]
        at_size = [sizes.index(row.size) if row.size in sizes else -1 for row in closed]
        console.print(_grid("p50 by size", heads, closed, at_size, "p50"))
    opened = [row for row in rows if row.mode == OPEN]
    if opened:
        loads = sorted({row.load for row in opened})
        heads = [f"{load:.0%} load" for load in loads]
        at_load = [loads.index(row.load) for row in opened]
        console.print(_grid("p99 from the intended send", heads, opened, at_load, "p99"))
    idle = [row for row in rows if _has_gaps(row, rows)]
    if idle:
        gaps = sorted({row.gap_us for row in idle})
        heads = [f"{gap / 1000:g} ms" for gap in gaps]
        at_gap = [gaps.index(row.gap_us) for row in idle]
        console.print(_grid("p50 after a pause of", heads, idle, at_gap, "p50"))


def _has_gaps(row: Row, rows: Iterable[Row]) -> bool:
    """It stands for a pause, or for none beside rows that do."""
    if row.mode == GAP:
        return True
    beside = any(other.mode == GAP and other.peer == row.peer for other in rows)
    return beside and row.mode == CLOSED and row.size == SIZE


def _by_place(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Rows that share their cores, in the order in which they come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.n:
            ends = f"client on core {row.cores['client']}, server on {row.cores['server']}"
            found.setdefault(f"{row.distance}: {ends}", []).append(row)
    return list(found.items())


def _hops(found: Sequence[Hops]) -> Table:
    """Where the time of a call goes, part by part, in the order of the way."""
    table = _table(f"[bold]where a call of {SIZE} B goes[/], mean µs of the part of the way")
    table.columns[0].max_width = None
    for one in found:
        table.add_column(f"{one.path}\n{one.where}", justify="right", max_width=14)
    for name in KERNEL_HOPS:
        table.add_row(name, *(_short(x) if (x := one.parts.get(name)) else "" for one in found))
    table.add_section()
    table.add_row("sum", *(_short(one.sum_ns) for one in found))
    table.add_row("the same calls, not noted", *(_short(one.whole_ns) for one in found))
    told = (f"{one.difference:+.1%}{'' if one.agrees else MARKS[SUSPECT]}" for one in found)
    table.add_row("difference", *told)
    return table


def _main(title: str, rows: Sequence[Row]) -> Table:
    table = _table(f"[bold]{title}[/], {SIZE} B")
    for name in (*SHOWN.values(), "p50 95 %", "calls/s"):
        table.add_column(name, justify="right", no_wrap=True)

    def cells(rows: Sequence[Row]) -> list[str]:
        (row,) = rows
        times = [_short(row.summary[name]) for name in SHOWN]
        low, high = (_short(x) for x in row.summary["ci95"])
        return [*times, f"{low}-{high}", _rate(row.summary["calls_per_s"])]

    _fill(table, rows, cells)
    return table


def _grid(
    title: str, heads: Sequence[str], rows: Sequence[Row], columns: Sequence[int], figure: str
) -> Table:
    """One figure of rows that differ in what the columns stand for; -1 stands for none of them."""
    at = {id(row): column for row, column in zip(rows, columns, strict=True)}
    table = _table(title)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)

    def cells(of_path: Sequence[Row]) -> list[str]:
        found = {at[id(row)]: _short(row.summary[figure]) for row in of_path}
        return [found.get(column, "") for column in range(len(heads))]

    _fill(table, [row for row in rows if at[id(row)] >= 0], cells)
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.padding = 0  # the box has a blank between two columns
    table.add_column("path", no_wrap=True, max_width=18)
    return table


def _fill(table: Table, rows: Sequence[Row], cells: Callable[[Sequence[Row]], list[str]]) -> None:
    """A block for each class, a line for each path."""
    for kind in KINDS:
        paths: dict[str, list[Row]] = {}
        for row in rows:
            if row.kind == kind:
                paths.setdefault(row.peer, []).append(row)
        if not paths:
            continue
        table.add_row(f"[dim]{KIND_TITLES[kind].partition(':')[0]}[/]")
        for name, of_path in paths.items():
            marks = "".join(sorted({MARKS.get(row.status, "") for row in of_path}))
            table.add_row(f" {name}{marks}", *cells(of_path))
        table.add_section()


def _print_reasons(console: Console, rows: Iterable[Row]) -> None:
    """Why rows are marked; what is said of many rows of a path, numbers aside, is said once."""
    said: dict[str, list[tuple[str, Row]]] = {}
    for row in rows:
        for reason in row.reasons:
            text = f"{row.peer} is {row.status}: {reason}"
            said.setdefault(NUMBER.sub("#", text), []).append((text, row))
    for alike in said.values():
        text, row = alike[0]
        where = "" if row.status == ABSENT else f" ({_what(row, len(alike) - 1)})"
        console.print(f"{text}{where}", markup=False)


def _what(row: Row, more: int) -> str:
    load = {OPEN: f", {row.load:.0%} load", GAP: f", gap {row.gap_us} us"}.get(row.mode, "")
    alike = f", and {count(more, 'row')} more" if more else ""
    return f"{row.distance}, {row.size} B{load}{alike}"


def _rate(calls_per_s: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if calls_per_s >= 10 * unit:
            return f"{calls_per_s / unit:.0f}{name}"
        if calls_per_s >= unit:
            return f"{calls_per_s / unit:.1f}{name}"
    return f"{calls_per_s:.0f}"


def _short(value_ns: float) -> str:
    """Microseconds in at most five characters; milliseconds say so."""
    value_us = value_ns / 1000
    for limit, text in ((9.995, "{:.2f}"), (99.95, "{:.1f}"), (999.5, "{:.0f}")):
        if value_us < limit:
            return text.format(value_us)
    return f"{value_us / 1000:.1f}ms" if value_us < 9950 else f"{value_us / 1000:.0f}ms"
