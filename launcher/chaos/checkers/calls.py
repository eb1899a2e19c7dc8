"""calls: every operation of every client has exactly one outcome."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from launcher.chaos.checkers.common import Params, judged
from launcher.chaos.evidence import FAIL, INFO, OK, Evidence, Operation, Verdict
from launcher.words import count

OUTCOMES = (OK, FAIL, INFO)


def one_outcome_per_call(evidence: Evidence, params: Params) -> Verdict:
    """No operation is without an outcome or has two, and at rest the kernel has no open call."""
    history = evidence.history
    broken = [f"{_name(op)} {wrong}" for op in history if (wrong := _wrong(op))]
    broken += [f"{text} was begun {times} times" for text, times in _repeated(history)]
    if evidence.calls_open:
        broken.append(f"{count(evidence.calls_open, 'call')} of the kernel still open at rest")
    unknown = [] if history else ["no client has done anything"]
    unknown += _gaps(history)
    kinds = Counter(op.outcome for op in history)
    figures = {"operations": len(history), **kinds, "calls_open": evidence.calls_open}
    told = ", ".join(f"{kinds[kind]} {kind}" for kind in OUTCOMES)
    text = f"{count(len(history), 'operation')}: {told}"
    return judged("one_outcome_per_call", text, broken, unknown, figures)


def _name(op: Operation) -> str:
    return f"{op.op} {op.number} of {op.client}"


def _wrong(op: Operation) -> str:
    if op.outcome not in OUTCOMES or op.outcomes < 1:
        return "has no outcome"
    if op.outcomes > 1:
        return f"has {op.outcomes} outcomes"
    return "ended before it began" if op.ended_ns < op.begun_ns else ""


def _repeated(history: Iterable[Operation]) -> list[tuple[str, int]]:
    times = Counter((op.client, op.number) for op in history)
    return [(f"operation {n} of {client}", some) for (client, n), some in times.items() if some > 1]


def _gaps(history: Iterable[Operation]) -> list[str]:
    """Numbers that a client's history skips: what was lost there may have had no outcome."""
    numbers: defaultdict[str, set[int]] = defaultdict(set)
    for op in history:
        numbers[op.client].add(op.number)
    missing = {client: set(range(max(seen))) - seen for client, seen in numbers.items()}
    return [
        f"the history of {client} lacks {count(len(lost), 'operation')}, the first is {min(lost)}"
        for client, lost in missing.items()
        if lost
    ]
