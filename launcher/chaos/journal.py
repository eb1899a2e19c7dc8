"""journal: everything that is known of a run as one JSON document, and back again.

`document` needs nothing but what it is given, and `parse` gives the same evidence and verdicts
back, so a report can be made of a run long after it, and elsewhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import Enum
from operator import attrgetter
from typing import Any

from pydantic import TypeAdapter, ValidationError

from launcher.bench import host, stats
from launcher.chaos import sides
from launcher.chaos.evidence import (
    FAIL,
    INFO,
    OK,
    OPEN,
    Evidence,
    Health,
    Line,
    Operation,
    Recovery,
    Result,
    Verdict,
)

SCHEMA = "chaos-journal/1"
OUTCOMES = (OK, FAIL, INFO, OPEN)
SHOWN_PROBLEMS = 3
TABLES = {"history": Operation._fields, "lines": Line._fields, "health": Health._fields}

# What a recovery goes through, in this order, and when: ns, 0 for a stage that it never reached.
STAGES: dict[str, Callable[[Recovery], int]] = {
    "detected": attrgetter("detected_ns"),
    "dead": attrgetter("dead_ns"),
    "spawned": attrgetter("spawned_ns"),
    "hello": attrgetter("hello_ns"),
    "ready": attrgetter("ready_ns"),
    "first_good_reply": lambda recovery: recovery.client_ns or recovery.serving_ns,
}


class BadJournal(Exception):
    """A document is no journal; the text says where it is wrong."""


@dataclass(frozen=True)
class Origin:
    """Where and when a run was."""

    date: str  # of its end, UTC, ISO 8601
    host: dict[str, Any]
    versions: dict[str, str]
    commit: str  # "" outside a checkout


@dataclass(frozen=True)
class Journal:
    """A run, as `parse` has it."""

    title: str
    experiment: str  # the text of its file
    seed: int
    origin: Origin
    result: Result
    verdicts: list[Verdict]
    evidence: Evidence


def here() -> Origin:
    """This machine, now."""
    facts = host.facts(host.pick_core(0))
    del facts["core"]  # nothing is pinned
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Origin(now, facts, host.versions(), host.commit())


def document(
    title: str, experiment: str, origin: Origin, evidence: Evidence, verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """The journal of a run, ready for `json.dumps`; `experiment` is the text of its file."""
    whole: dict[str, Any] = {
        "schema": SCHEMA,
        "title": title,
        "result": overall(verdicts),
        "seed": evidence.seed,
        "origin": asdict(origin),
        "verdicts": verdicts,
        "figures": figures(evidence),
        "experiment": experiment,
        "evidence": _parts(evidence),
    }
    plain: dict[str, Any] = _plain(whole)
    return plain


def parse(document: object) -> Journal:
    """A journal from what `json.loads` made of one. Raises BadJournal."""
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else None
        raise BadJournal(f"not a journal: its schema is {found!r}, not {SCHEMA!r}")
    try:
        evidence = _whole(document["evidence"])
        found = TypeAdapter(Journal).validate_python({**document, "evidence": evidence})
    except (KeyError, TypeError, ValueError) as error:
        raise BadJournal(f"not a journal: {_problems(error)}") from None
    sides = [side for side in (found.evidence, found.evidence.beside) if side is not None]
    strange = {op.outcome for side in sides for op in side.history} - {*OUTCOMES}
    if strange:
        raise BadJournal(f"not a journal: {min(strange)!r} is no outcome of an operation")
    return found


def overall(verdicts: Iterable[Verdict]) -> Result:
    """Of a run: broken when anything is, held when everything is known to be."""
    results = {verdict.result for verdict in verdicts}
    if Result.BROKEN in results:
        return Result.BROKEN
    return Result.HELD if results == {Result.HELD} else Result.UNKNOWN


# --- what the evidence comes to -----------------------------------------------------------------


def figures(evidence: Evidence) -> dict[str, Any]:
    """In numbers: injections, outcomes by kind, restarts, the stages of the repairs in ms, and what
    is compared with another placement."""
    return {
        "injections": {
            "planned": len(evidence.injections),
            "landed": sum(injection.landed_ns > 0 for injection in evidence.injections),
        },
        "outcomes": outcomes(evidence.history),
        "restarts": dict(Counter(recovery.server for recovery in evidence.recoveries)),
        "recovery_ms": {
            stage: summary(times) for stage, times in stages(studied(evidence)).items() if times
        },
        "placements": sides.compared(sides.sides(evidence)),
    }


def outcomes(history: Iterable[Operation]) -> dict[str, int]:
    """How many operations ended in each way."""
    found = Counter(operation.outcome for operation in history)
    return dict.fromkeys(OUTCOMES, 0) | found


def studied(evidence: Evidence) -> list[Recovery]:
    """The repairs of what the run did; of everything, when it killed nothing itself."""
    injected = [recovery for recovery in evidence.recoveries if recovery.injected]
    return injected or list(evidence.recoveries)


def stages(recoveries: Iterable[Recovery]) -> dict[str, list[float]]:
    """Milliseconds from the kill (or the death) to each stage, of the repairs that reached it."""
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for recovery in recoveries:
        start_ns = recovery.killed_ns or recovery.dead_ns
        for stage, reached in STAGES.items():
            if start_ns and reached(recovery):
                found[stage].append(max(0, reached(recovery) - start_ns) / 1e6)
    return found


def summary(samples: Sequence[float]) -> dict[str, float]:
    """n, p50, p90, p99 and max of at least one sample."""
    ordered = sorted(samples)
    parts = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    found = {name: stats.percentile(ordered, part) for name, part in parts.items()}
    return {"n": len(ordered), **found}


# --- to and from JSON ---------------------------------------------------------------------------


def _parts(evidence: Evidence) -> dict[str, Any]:
    """Its fields by name. Operations, lines and statuses are thousands: tables, not an object for
    each. What it has beside it is the same again."""
    found = {field.name: getattr(evidence, field.name) for field in fields(evidence)}
    for name, columns in TABLES.items():
        found[name] = {"columns": columns, "rows": list(map(list, found[name]))}
    if evidence.beside is not None:
        found["beside"] = _parts(evidence.beside)
    return found


def _whole(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same from a document."""
    whole = {**found}
    for name in {"history"} | (TABLES.keys() & whole.keys()):
        whole[name] = _rows(**whole[name])
    if whole.get("beside") is not None:
        whole["beside"] = _whole(whole["beside"])
    return whole


def _plain(value: Any) -> Any:
    """Records become objects; infinity and NaN, which JSON has not, become null."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _problems(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    places = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    rest = len(places) - SHOWN_PROBLEMS
    return "; ".join(places[:SHOWN_PROBLEMS]) + (f"; and {rest} more" if rest > 0 else "")
