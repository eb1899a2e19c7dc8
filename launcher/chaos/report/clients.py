"""clients: the sections about what the clients of the workload saw."""

from __future__ import annotations

from collections import Counter, defaultdict

from launcher.chaos import journal
from launcher.chaos.journal import OUTCOMES, Journal
from launcher.chaos.report import numbers, svg
from launcher.chaos.report import timeline as picture
from launcher.chaos.report.markup import Cell, Markup, join, table, tag
from launcher.chaos.report.words import ABSENT, OUTCOME_NAMES, ms, percent

MOST_ERRORS = 12
ERROR_CHARS = 160


def timeline(run: Journal) -> Markup:
    evidence = run.evidence
    if not (evidence.history or evidence.injections or evidence.recoveries):
        return Markup()
    latencies = _latencies(run)
    seen = f"; the slowest took {ms(journal.summary(latencies), 'max')} ms" if latencies else ""
    alt = (
        f"Latency of {len(latencies):,} operations over time, a row for each client, on a "
        f"logarithmic scale{seen}. Above them {len(evidence.injections)} injections by fault and "
        f"target, below them a lane for each server with {len(evidence.recoveries)} deaths."
    )
    caption = (
        "One clock for everything. A point is one operation at the moment it began; a thin "
        "vertical line is the moment an injection landed. Behind a fault and its target stands how "
        "often it landed, behind a server how often it died. Shades of a lane alternate with "
        "each life."
    )
    if len(latencies) > picture.MAX_POINTS:
        caption += (
            f" Of {len(latencies):,} operations about {picture.MAX_POINTS:,} are drawn: of each "
            "short stretch, client and outcome the slowest and the first."
        )
    return svg.picture("timeline", alt, caption, lambda: picture.draw(evidence))


def outcomes(run: Journal) -> Markup:
    history = run.evidence.history
    if not history:
        return Markup()
    groups = defaultdict(list)
    for operation in history:
        groups[operation.client, operation.op].append(operation)
    rows: list[list[Cell]] = []
    for (client, op), group in sorted(groups.items()):
        found = journal.outcomes(group)
        odd = sum(operation.outcomes != 1 for operation in group)
        rows.append([client, op, len(group), *(found[kind] for kind in OUTCOMES), odd])
    found = journal.outcomes(history)
    odd = sum(operation.outcomes != 1 for operation in history)
    rows.append(["all", "", len(history), *(found[kind] for kind in OUTCOMES), odd])
    kinds = [OUTCOME_NAMES[kind] for kind in OUTCOMES]
    columns = ["client", "operation", "count", *kinds, "not exactly one outcome"]
    return join([table(columns, rows, "Outcomes by client and operation"), _errors(run)])


def _errors(run: Journal) -> Markup:
    heard = Counter(each.error[:ERROR_CHARS] for each in run.evidence.history if each.error)
    if not heard:
        return Markup()
    rows: list[list[Cell]] = [[error, count] for error, count in heard.most_common(MOST_ERRORS)]
    rest = len(heard) - len(rows)
    more = tag("p", f"and {rest} other errors", class_="faint") if rest > 0 else ""
    return join([tag("h3", "Errors that were heard"), table(["error", "times"], rows, "Errors"),
                 more])  # fmt: skip


def clients(run: Journal) -> Markup:
    rows: list[list[Cell]] = []
    for row in numbers.clients(run.evidence):
        answered = percent(row.availability, 3)
        at_rest = [ms(row.at_rest, part) for part in ("p50", "p99", "max")]
        disturbed = [ms(row.disturbed, part) for part in ("p50", "p99", "max")]
        count = int(row.disturbed["n"]) if row.disturbed else 0
        role = "bystander" if row.bystander else "under test"
        rows.append([row.client, role, row.operations, answered, *at_rest, count, *disturbed])
    silent = sorted(set(run.evidence.bystanders) - {str(row[0]) for row in rows})
    rows += [[client, "bystander", 0, *[ABSENT] * 4, 0, *[ABSENT] * 3] for client in silent]
    if not rows:
        return Markup()
    times = ["p50, ms", "p99, ms", "max, ms"]
    columns = ["client", "role", "operations", "availability", *times, "operations", *times]
    groups = [("", 4), ("at rest", 3), ("while something was down or paused", 4)]
    note = (
        "Availability is the share of operations that were answered. A bystander must notice "
        "nothing: its latency while something else is down is to be that at rest."
    )
    return join([tag("p", note), table(columns, rows, "Clients", groups)])


def _latencies(run: Journal) -> list[float]:
    until_ns = numbers.ends(run.evidence).ended_ns
    return [numbers.latency_ms(operation, until_ns) for operation in run.evidence.history]
