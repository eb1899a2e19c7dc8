"""faults: the sections about what was done to the system, and how it bore it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from launcher.chaos import journal
from launcher.chaos.evidence import Recovery
from launcher.chaos.journal import STAGES, Journal
from launcher.chaos.report import charts, numbers, svg
from launcher.chaos.report.markup import Cell, Markup, fold, join, table, tag
from launcher.chaos.report.words import (
    ABSENT,
    STAGE_NAMES,
    change,
    interval,
    mib,
    ms,
    percent,
    seconds,
    short,
)

MOST_ROWS = 500  # of one table; the journal has them all
SUMMARY = ("p50", "p90", "p99", "max")


def recovery(run: Journal) -> Markup:
    recoveries = run.evidence.recoveries
    if not recoveries:
        return Markup()
    studied = journal.studied(run.evidence)
    found = {
        stage: journal.summary(times) for stage, times in journal.stages(studied).items() if times
    }
    rows: list[list[Cell]] = [
        [STAGE_NAMES[stage], int(each["n"]), *(short(each[part]) for part in SUMMARY)]
        for stage, each in found.items()
    ]
    parts = [_stages_picture(found)] if found else []
    columns = ["reached", "repairs", "p50, ms", "p90, ms", "p99, ms", "max, ms"]
    parts.append(table(columns, rows, "Time from the kill to each stage"))
    parts += [tag("h3", "By server: the kill to the first good reply"), _by_server(recoveries)]
    return join([*parts, _every_recovery(run)])


def _stages_picture(found: dict[str, dict[str, float]]) -> Markup:
    said = "; ".join(
        f"{STAGE_NAMES[stage]} {', '.join(f'{part} {short(each[part])}' for part in charts.PARTS)}"
        for stage, each in found.items()
    )
    alt = f"Milliseconds from the kill to each stage of the repair: {said}."
    caption = (
        "Each stage counts from the kill. Detected: the supervisor knows; dead: the process is "
        "gone and its calls have their outcome; HELLO and READY: the next life has spoken to the "
        "kernel, and serves."
    )
    return svg.picture("stages", alt, caption, lambda: charts.draw_stages(found))


def _by_server(recoveries: Sequence[Recovery]) -> Markup:
    groups: dict[tuple[str, bool], list[Recovery]] = defaultdict(list)
    for each in recoveries:
        groups[each.server, each.injected].append(each)
    rows: list[list[Cell]] = []
    for (server, injected), group in sorted(groups.items()):
        times = [each.outage_ms for each in group if each.outage_ms >= 0]
        found = journal.summary(times) if times else None
        cause = "an injection" if injected else "something else"
        silent = len(group) - len(times)
        rows.append([server, cause, len(group), silent, *(ms(found, part) for part in SUMMARY)])
    columns = [
        "server", "died of", "deaths", "no reply after", "p50, ms", "p90, ms", "p99, ms", "max, ms"
    ]  # fmt: skip
    return table(columns, rows, "Outages by server")


def _every_recovery(run: Journal) -> Markup:
    begun_ns = numbers.ends(run.evidence).begun_ns
    rows: list[list[Cell]] = []
    for each in run.evidence.recoveries[:MOST_ROWS]:
        start_ns = each.killed_ns or each.dead_ns
        times = [
            short((reached(each) - start_ns) / 1e6) if reached(each) else ABSENT
            for reached in STAGES.values()
        ]
        rows.append([each.server, each.life, seconds(start_ns, begun_ns), *times, each.cause])
    columns = [
        "server", "life", "died at, s", *(f"{name}, ms" for name in STAGE_NAMES.values()), "cause"
    ]  # fmt: skip
    count = len(run.evidence.recoveries)
    return fold(f"Every death ({count:,})", table(columns, rows, "Deaths"), _cut(count))


def sweep(run: Journal) -> Markup:
    legs = run.evidence.sweep
    if not legs:
        return Markup()
    rows = numbers.sweep(legs)
    said = ", ".join(f"{interval(row.every_s)}: {short(row.median_bytes_s / 1e6)}" for row in rows)
    alt = f"Median throughput in MB/s by seconds between two kills: {said}."
    caption = "A point is one bulk transfer; MB are 1,000,000 bytes."
    cells: list[list[Cell]] = [
        [
            interval(row.every_s),
            row.rounds,
            row.kills,
            short(row.median_bytes_s / 1e6),
            percent(row.loss, 1) if row.every_s else ABSENT,
            f"{row.right} of {row.rounds}",
        ]
        for row in rows
    ]
    columns = [
        "a kill every, s", "transfers", "kills", "median, MB/s", "loss", "checksums right"
    ]  # fmt: skip
    return join([
        svg.picture("sweep", alt, caption, lambda: charts.draw_sweep(legs)),
        table(columns, cells, "Throughput by interval"),
    ])  # fmt: skip


def blast(run: Journal) -> Markup:
    rows: list[list[Cell]] = []
    for name, predicted, observed in numbers.blast(run.evidence.predicted, run.evidence.observed):
        agree = _same(predicted == observed) if predicted and observed else ABSENT
        rows.append([name, predicted or ABSENT, observed or ABSENT, agree])
    if not rows:
        return Markup()
    return table(["server", "predicted", "observed", "as predicted"], rows, "Blast radius")


def _same(same: bool) -> Markup:
    return tag("span", "✓ yes" if same else "✗ no", class_="held" if same else "broken")


def resources(run: Journal) -> Markup:
    before, after = run.evidence.before, run.evidence.after
    if before is None and after is None:
        return Markup()
    rows: list[list[Cell]] = []
    for name, (fds, fds_after, rss, rss_after) in numbers.usage(before, after):
        grown = change(rss and rss / 2**20, rss_after and rss_after / 2**20, 1)
        rows.append([
            name, _count(fds), _count(fds_after), change(fds, fds_after),
            mib(rss), mib(rss_after), grown,
        ])  # fmt: skip
    columns = ["process", *["before", "after", "change"] * 2]
    groups = [("", 1), ("descriptors", 3), ("resident memory, MiB", 3)]
    sides = [{"processes": side.processes, **side.counters} if side else {}
             for side in (before, after)]  # fmt: skip
    counts: list[list[Cell]] = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        one, two = sides[0].get(name), sides[1].get(name)
        counts.append([name.replace("_", " "), _count(one), _count(two), change(one, two)])
    return join([
        tag("p", "The system at rest, before the first fault and after the last."),
        table(columns, rows, "Descriptors and memory of each process", groups),
        tag("h3", "The whole system and its kernel"),
        table(["count", "before", "after", "change"], counts, "Counters"),
    ])  # fmt: skip


def _count(value: int | None) -> Cell:
    return ABSENT if value is None else value


def injections(run: Journal) -> Markup:
    planned = run.evidence.injections
    begun_ns = numbers.ends(run.evidence).begun_ns
    rows: list[list[Cell]] = []
    for each in planned[:MOST_ROWS]:
        late = short((each.landed_ns - each.planned_ns) / 1e6) if each.landed_ns else ABSENT
        rows.append([
            each.number, each.fault, each.target, seconds(each.planned_ns, begun_ns),
            seconds(each.landed_ns, begun_ns), late, seconds(each.healed_ns, begun_ns),
            _count(each.life or None), each.detail,
        ])  # fmt: skip
    if not rows:
        return Markup()
    columns = [
        "number", "fault", "target", "planned, s", "landed, s", "late, ms", "healed, s", "life",
        "detail",
    ]  # fmt: skip
    missed = sum(not each.landed_ns for each in planned)
    said = f"{len(planned):,} were planned; {missed or 'none'} of them never landed."
    listed = table(columns, rows, "Injections")
    return join([tag("p", said), fold("Every injection", listed, _cut(len(planned)))])


def _cut(count: int) -> Markup:
    rest = count - MOST_ROWS
    return tag("p", f"and {rest:,} more, which the journal has") if rest > 0 else Markup()
