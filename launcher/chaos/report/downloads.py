"""downloads: the section about what clients outside have fetched, and over which connections."""

from __future__ import annotations

from launcher.chaos.checkers.downloads import downloads as made
from launcher.chaos.checkers.downloads import opened, survived
from launcher.chaos.evidence import Evidence, Operation, Transfer
from launcher.chaos.journal import Journal
from launcher.chaos.report import numbers
from launcher.chaos.report.markup import Cell, Markup, join, table, tag
from launcher.chaos.report.words import ABSENT, OUTCOME_NAMES, seconds, short

MOST_ROWS = 200
MEGA = 1e6


def downloads(run: Journal) -> Markup:
    evidence = run.evidence
    every = made(evidence)
    if not every:
        return Markup()
    transfers = {(each.client, each.number): each for each in evidence.transfers}
    rows = [_row(evidence, op, transfers.get((op.client, op.number))) for op in every[:MOST_ROWS]]
    columns = [
        "number", "client", "outcome", "begun at, s", "took, s", "MB", "MB/s", "port",
        "connections", "acknowledged, MB", "faults meanwhile",
    ]  # fmt: skip
    seen = f"Not all connections are known: {evidence.unheard}." if evidence.unheard else ""
    note = (
        "A port is the client's own. Connections are those that the frames of the card show to have"
        " been opened while the download lasted; faults are those that landed while one was open."
    )
    rest = len(every) - len(rows)
    more = tag("p", f"and {rest:,} more, which the journal has") if rest > 0 else ""
    return join([tag("p", seen or note), table(columns, rows, "Downloads"), more])


def _row(evidence: Evidence, op: Operation, transfer: Transfer | None) -> list[Cell]:
    when = numbers.ends(evidence)
    took_s = numbers.latency_ms(op, when.ended_ns) / 1e3
    cells: list[Cell] = [op.number, op.client, OUTCOME_NAMES[op.outcome]]
    cells += [seconds(op.begun_ns, when.begun_ns), short(took_s)]
    if transfer is None:
        return [*cells, *[ABSENT] * 6]
    came = transfer.moved_bytes / MEGA
    cells += [short(came), short(came / took_s), transfer.port]
    if evidence.unheard:
        return [*cells, *[ABSENT] * 3]
    found = opened(evidence, op, transfer)
    acked = short(sum(each.acked_bytes for each in found) / MEGA)
    return [*cells, len(found), acked, sum(len(survived(each, evidence)) for each in found)]
