"""tables: a comparison for people: figures, latencies, the kill, and the explanation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from launcher.compare import figures
from launcher.compare.cases import MONO, Case
from launcher.compare.figures import JOBS, Figure, Measure
from launcher.compare.guests import Felt, Guest
from launcher.compare.kill import Kill
from launcher.compare.result import Result, clients

Cells = list[list[object]]
TOLD: dict[str, Callable[[Guest], int]] = {
    "wrong bytes": lambda guest: guest.wrong,
    "errors": lambda guest: guest.errors,
    "faults": lambda guest: guest.faults,
}
Table = tuple[str, list[str], Cells]  # what it is about, the titles, the rows


def tables(result: Result) -> list[Table]:
    found = [_figures(result), _latencies(result), _guests(result)]
    found += [_kills(result), _card_kills(result), _felt(result), _explained(result)]
    return [(about, titles, _aligned(rows)) for about, titles, rows in found if rows]


def _aligned(rows: Cells) -> Cells:
    """Figures to the right: they are text here, with as many digits as count."""
    columns = list(zip(*rows, strict=True))
    widths = [max(len(cell) for cell in cells if isinstance(cell, str)) if _numeric(cells) else 0
              for cells in columns]  # fmt: skip
    return [
        [cell.rjust(width) if isinstance(cell, str) else cell
         for cell, width in zip(row, widths, strict=True)]
        for row in rows
    ]  # fmt: skip


def _numeric(cells: Sequence[object]) -> bool:
    words = [cell for cell in cells if isinstance(cell, str)]
    return bool(words) and all(word[:1].isdigit() or word[:1] == "-" for word in words)


def _figures(result: Result) -> Table:
    """A row for each figure; of every case its median, and how often mono's goes into it."""
    cases, rows = result.cases(), []
    for measure in result.measures():
        if not _is_latency(measure):
            rows.append([measure.title, measure.unit, *_cells(result, measure)])
    for job, unit in JOBS.items():
        past = (figures.passed(job, case, result.rounds) for case in cases)
        counted = [cell for value in past for cell in (_short(value), None)]
        rows.append([f"{figures.PASSED} {unit}, {job}", "", *_without_mono(cases, counted)])
    about = "medians; x: times mono's in the same round (?: or just as well the same)"
    return about, ["figure", "unit", *_columns(cases)], rows


def _latencies(result: Result) -> Table:
    rows = [
        [measure.title, *_cells(result, measure)]
        for measure in result.measures()
        if _is_latency(measure)
    ]
    return "latency of each operation, us", ["operation", *_columns(result.cases())], list(rows)


def _cells(result: Result, measure: Measure) -> list[object]:
    found = [result.figure(measure, case) for case in result.cases()]
    cells = [cell for each in found for cell in (_value(each), _ratio(each))]
    return _without_mono(result.cases(), cells)


def _without_mono(cases: list[Case], cells: list[object]) -> list[object]:
    """Two cells of each case: of mono the ratio says nothing."""
    return [cell for at, cell in enumerate(cells) if cases[at // 2] != MONO or at % 2 == 0]


def _columns(cases: list[Case]) -> list[str]:
    return [
        title for case in cases for title in ([case.name] if case == MONO else [case.name, "x"])
    ]


def _is_latency(measure: Measure) -> bool:
    return measure.name.endswith(("_p50_us", "_p99_us"))


def _value(figure: Figure | None) -> object:
    return None if figure is None else _short(figure.median)


def _ratio(figure: Figure | None) -> object:
    if figure is None or figure.ratio is None:
        return None
    return f"{figure.ratio:.2f}{'?' if figure.doubtful else ' '}"


def _short(value: float | None) -> object:
    """Three digits that count."""
    if value is None:
        return None
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _guests(result: Result) -> Table:
    """A row for each figure of each virtual machine, beside mono's."""
    rows = [[m.title, m.unit, *_cells(result, m)] for m in result.guest_measures()]
    about = "virtual machines, while the work above is done"
    return about, ["figure", "unit", *_columns(result.cases())], list(rows)


def _kills(result: Result) -> Table:
    kills = {case: [run.kill for run in result.runs(case)] for case in result.cases()}
    return _deaths(result, "one death", "the disk's driver killed", kills)


def _card_kills(result: Result) -> Table:
    cards = {case: [run.card for run in result.runs(case)] for case in result.cases()}
    kills = {case: [kill for kill in found if kill is not None] for case, found in cards.items()}
    return _deaths(result, "another death", "the network card's driver killed", kills)


def _deaths(result: Result, about: str, who: str, kills: Mapping[Case, list[Kill]]) -> Table:
    """What the same SIGKILL does. Of several runs, whatever any of them saw."""
    titles = [
        who, "lives lost", "of", "who", "clients that noticed",
        "stubs that repeated", "recovery, ms", "acknowledged", "lost", "wrong",
    ]  # fmt: skip
    rows: Cells = []
    for case, found in kills.items():
        if not found:
            continue
        died = list(dict.fromkeys(name for kill in found for name in kill.died))
        seen = list(dict.fromkeys(name for kill in found for name in clients(kill)))
        again = list(dict.fromkeys(name for kill in found for name in kill.repeated))
        rows.append([
            case.name, len(died), len(result.booted()), " ".join(died), " ".join(seen) or None,
            " ".join(again) or None,
            _short(median(kill.recovery_ns / 1e6 for kill in found)),
            sum(kill.acknowledged for kill in found), sum(kill.kept.lost for kill in found),
            sum(kill.kept.wrong for kill in found),
        ])  # fmt: skip
    return about, titles, rows


def _felt(result: Result) -> Table:
    """What each kill did to each virtual machine, over all runs of a case."""
    rows: Cells = []
    for case in result.cases():
        for name in result.cast.vms:
            guests = [run.guests[name] for run in result.runs(case) if name in run.guests]
            kills = zip(*(guest.felt for guest in guests), strict=True)
            told = [sum(of(each) for each in guests) for of in TOLD.values()]
            rows.append([case.name, name, *(c for felt in kills for c in _felt_by(felt)), *told])
    titles = ["case", "virtual machine"]
    for victim in filter(None, (result.cast.victim, result.cast.card)):
        titles += [f"{victim} killed: lives lost", "guest", "longest gap, ms"]
    about = "what the deaths did to virtual machines"
    return about, [*titles, *TOLD], rows


def _felt_by(felt: Sequence[Felt]) -> list[object]:
    """Of one kill in several runs: lives lost, what became of the guest, and the longest time
    without a heartbeat."""
    gaps = [each.gap_ms for each in felt if each.gap_ms is not None]
    return [sum(each.lives for each in felt), _then(felt), _short(max(gaps)) if gaps else None]


def _then(felt: Sequence[Felt]) -> str:
    back = sorted(each.restored_ms for each in felt if each.restored_ms)
    words = ["went on"] if any(not each.lives for each in felt) else []
    words += ["booted"] if any(each.lives and not each.restored_ms for each in felt) else []
    words += [f"back {back[0]} to {back[-1]} ms"] if back else []
    return ", ".join(words)


def _explained(result: Result) -> Table:
    """The difference to mono of one unit of work, by name."""
    rows: Cells = []
    for each in result.explained():
        what, longer = f"{each.case.name}: {each.job}", f"longer than mono, per {JOBS[each.job]}"
        rows.append([what, longer, None, None, None, *map(_short, each.difference)])
        rows += [
            ["", cost.name, f"{cost.number:.2f}", *map(_short, (*cost.each, *cost.total))]
            for cost in each.costs
        ]
        rows.append(["", "not explained", None, None, None, *map(_short, each.rest)])
        if each.kernel_us:
            kernel = "(of all that, the kernel at work)"
            rows.append(["", kernel, None, None, None, None, _short(each.kernel_us)])
    titles = ["difference", "by", "count", "each, us", "each, CPU us", "us", "CPU us"]
    return "where it goes, by medians", titles, rows
