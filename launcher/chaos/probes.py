"""probes: what must hold of the system before the first fault, and again after the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from launcher.bench.stats import percentile
from launcher.chaos.checks import P99, AllReady, Availability, NoFaults, Probe
from launcher.chaos.evidence import OK, OPEN, Operation
from launcher.chaos.stage import Stage
from ukernel.abi.syscalls import READY

Look = Callable[[Stage, Sequence[Operation], Probe], str]


def wrong(stage: Stage, history: Sequence[Operation], probes: Sequence[Probe]) -> Iterator[str]:
    """What does not hold, in words. Clients are judged by this part of their history."""
    recent = [op for op in history if op.outcome != OPEN]
    for probe in probes:
        if why := PROBES[type(probe)](stage, recent, probe):
            yield f"{probe.probe}: {why}"


def _all_ready(stage: Stage, _: Sequence[Operation], __: Probe) -> str:
    return ", ".join(f"{t.name} is {t.state}" for t in stage.booted() if t.state != READY)


def _p99(_: Stage, history: Sequence[Operation], probe: Probe) -> str:
    assert isinstance(probe, P99)
    times = sorted((op.ended_ns - op.begun_ns) / 1e6 for op in history if op.client == probe.client)
    if not times:
        return f"{probe.client} has done nothing yet"
    found = percentile(times, 0.99)
    return f"{probe.client} needs {found:.1f} ms, at most {probe.max:g}" * (found > probe.max)


def _availability(_: Stage, history: Sequence[Operation], probe: Probe) -> str:
    assert isinstance(probe, Availability)
    outcomes = [op.outcome for op in history if op.client == probe.client]
    if not outcomes:
        return f"{probe.client} has done nothing yet"
    share = outcomes.count(OK) / len(outcomes)
    return f"{probe.client} is answered {share:.4f}, at least {probe.min:g}" * (share < probe.min)


def _no_faults(stage: Stage, _: Sequence[Operation], __: Probe) -> str:
    rows = [row for row in stage.system.slots().values() if row.faults]
    return ", ".join(f"{row.name} has broken {row.faults} rules" for row in rows)


PROBES: dict[type[Probe], Look] = {
    AllReady: _all_ready,
    P99: _p99,
    Availability: _availability,
    NoFaults: _no_faults,
}
