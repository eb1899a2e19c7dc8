"""recovery: what was killed serves again, and soon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from launcher.bench.stats import percentile
from launcher.chaos.blast import repaired_by
from launcher.chaos.checkers.common import PARTS, Params, judged, summary
from launcher.chaos.evidence import Evidence, Recovery, Verdict
from launcher.words import count

STAGES: dict[str, Callable[[Recovery], int]] = {  # when a repair got there; 0: it did not
    "detect": attrgetter("detected_ns"),
    "dead": attrgetter("dead_ns"),
    "spawned": attrgetter("spawned_ns"),
    "hello": attrgetter("hello_ns"),
    "ready": attrgetter("ready_ns"),
    "serving": attrgetter("serving_ns"),
    "client": attrgetter("client_ns"),
}
KILL = "kill"  # the fault that is a death in any case


def recovery_ms(evidence: Evidence, params: Params) -> Verdict:
    """Outages of this run's own making, from the kill to the next good reply, in milliseconds.

    An outage that a further death of the server drew out lasts until a later life replied. One
    that nothing ended breaks, unless the server was given up. Parameters: `p50`, `p99`, `max`.
    """
    injected = [r for r in evidence.recoveries if r.injected]
    outages = [_outage_ms(r, evidence.recoveries) for r in injected]
    came = sorted(outage for outage in outages if outage >= 0)
    broken = [
        f"{r.server}#{r.life} ({r.cause}) was never followed by a life that replied"
        for r, outage in zip(injected, outages, strict=True)
        if outage < 0 and r.server not in evidence.failed
    ]
    broken += _beyond(came, params)
    unknown = [] if came else ["no death of this run's making was repaired"]
    unknown += _unrecorded(evidence)
    figures = {"outage_ms": summary(came), "stages_ms": _stages(injected)}
    return judged("recovery_ms", _text(came), broken, unknown, figures)


def _outage_ms(recovery: Recovery, every: Sequence[Recovery]) -> float:
    end = repaired_by(recovery, every)
    if end is recovery or end is None:
        return recovery.outage_ms
    return (end.client_ns or end.serving_ns) / 1e6 - (recovery.killed_ns or recovery.dead_ns) / 1e6


def _text(came: Sequence[float]) -> str:
    figures = [f"{name} {value:.1f}" for name, value in summary(came).items() if name != "n"]
    return f"{count(len(came), 'outage')} ended" + (f", ms: {', '.join(figures)}" if came else "")


def _beyond(came: Sequence[float], params: Params) -> list[str]:
    reached = {name: percentile(came, part) for name, part in PARTS.items() if came}
    return [
        f"{name} is {value:.1f} ms, more than {params[name]:g}"
        for name, value in reached.items()
        if params.get(name) is not None and value > params[name]
    ]


def _stages(recoveries: Sequence[Recovery]) -> Mapping[str, Any]:
    """From the kill (or the death) to each stage, of the repairs that reached it."""
    return {
        stage: summary(
            [(when(r) - (r.killed_ns or r.dead_ns)) / 1e6 for r in recoveries if when(r)]
        )
        for stage, when in STAGES.items()
    }


def _unrecorded(evidence: Evidence) -> list[str]:
    """Kills that landed on a life of whose end nobody has a record."""
    recorded = {(r.server, r.life) for r in evidence.recoveries}
    return [
        f"{KILL} {i.number} landed on {i.target}#{i.life}, and no repair of it is recorded"
        for i in evidence.injections
        if i.fault == KILL and i.landed_ns and i.life and i.target not in evidence.failed
        if (i.target, i.life) not in recorded
    ]
