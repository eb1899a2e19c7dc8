"""table: a result for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.bench.net.plan import MIB, PEER
from launcher.bench.net.result import TRIPS, NetResult, Row

Cells = list[list[object]]
TITLES = [
    "stack", "MiB", "MiB/s", "spread %", "ping p50 us", "p99", "echo p50 us", "p99", "status",
]  # fmt: skip


def table(rows: Sequence[Row]) -> tuple[list[str], Cells]:
    """A line for each stack that was measured."""
    return TITLES, [_line(row) for row in rows if row.throughput]


def _line(row: Row) -> list[object]:
    found = row.throughput
    times = [_us(row, trip, figure) for trip in TRIPS for figure in ("p50", "p99")]
    head = [row.peer, round(row.bytes / MIB, 2), found["median"], 100 * found["spread"]]
    return [*head, *times, row.status]


def _us(row: Row, trip: str, figure: str) -> int | None:
    return round(row.rtt[trip][figure] / 1000) if trip in row.rtt else None


def notes(result: NetResult) -> list[str]:
    """What somebody must know who reads the table."""
    lines = [f"{row.peer}: {row.what}" for row in result.results]
    lines += [
        f"{row.peer} is asked for {row.bytes / MIB:g} MiB only, which takes it long enough"
        for row in result.results
        if row.kind == PEER and row.throughput and row.bytes < result.bytes
    ]
    lines += [
        f"{row.peer} is {row.status}: {reason}" for row in result.results for reason in row.reasons
    ]
    return lines
