"""bystanders: clients that have nothing to do with the victims notice nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from launcher.chaos.checkers.common import Params, judged, summary
from launcher.chaos.evidence import OK, Evidence, Operation, Verdict
from launcher.words import count


def bystanders(evidence: Evidence, params: Params) -> Verdict:
    """Each bystander's share of answered operations is at least `availability` (1.0), and 99 of
    100 of its operations took at most `p99_ms` (not limited)."""
    least, most = params.get("availability", 1.0), params.get("p99_ms")
    broken, unknown, figures = [], [], {}
    for client in evidence.bystanders:
        its_own = [op for op in evidence.history if op.client == client]
        if not its_own:
            unknown.append(f"{client} has done nothing")
            continue
        figures[client] = seen = _seen(its_own)
        if seen["availability"] < least:
            wrong = _first_wrong(its_own)
            broken.append(f"{client}: {seen['ok']} of {len(its_own)} answered; {wrong}")
        if most is not None and seen["latency_ms"].get("p99", 0.0) > most:
            broken.append(f"{client}: p99 is {seen['latency_ms']['p99']:g} ms, more than {most:g}")
    if not evidence.bystanders:
        unknown.append("no client is a bystander")
    every = sum(seen["operations"] for seen in figures.values())
    text = f"{count(len(figures), 'bystander')}, {count(every, 'operation')}"
    return judged("bystanders", text, broken, unknown, figures)


def _seen(operations: Sequence[Operation]) -> dict[str, Any]:
    """What a client saw. Its longest gap: the longest time between two good answers."""
    answered = [op for op in operations if op.outcome == OK]
    ends = sorted(op.ended_ns for op in answered)
    return {
        "operations": len(operations),
        "ok": len(answered),
        "availability": len(answered) / len(operations),
        "latency_ms": summary(
            [(op.ended_ns - op.begun_ns) / 1e6 for op in operations if op.ended_ns]
        ),
        "longest_gap_ms": round(max((b - a for a, b in pairwise(ends)), default=0) / 1e6, 3),
    }


def _first_wrong(operations: Sequence[Operation]) -> str:
    op = next(op for op in operations if op.outcome != OK)
    return f"{op.op} {op.number}: {op.outcome} {op.error}".rstrip()
