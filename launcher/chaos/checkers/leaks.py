"""leaks: the system at rest is as large afterwards as it was before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from launcher.chaos.checkers.common import Params, judged
from launcher.chaos.evidence import Evidence, Snapshot, Usage, Verdict

COUNTERS = ("caps", "lives", "objects", "calls_open")  # of the kernel
MIB = 1 << 20
FDS, RSS_MIB = 0, 8  # what a process may have more
CAPS = 8  # and the kernel: what is lent is found again at the next loan, so a few come and go


class Growth(NamedTuple):
    """Of one process."""

    name: str
    fds: int
    rss_mib: float


def no_leak(evidence: Evidence, params: Params) -> Verdict:
    """No process has more than `fds` (0) more descriptors or `rss_mib` (8) MiB more memory than
    before, there are no more processes, and the kernel holds no more than it did, but for `caps`
    (8) capabilities."""
    before, after = evidence.before, evidence.after
    if before is None or after is None:
        return judged("no_leak", "", [], ["the system was not looked at before and after"])
    grown = _grown(before, after)
    broken = [*_processes(grown, params), *_counters(before, after, params)]
    if after.processes > before.processes:
        broken.append(f"{after.processes} processes, {before.processes} before")
    figures = {
        "processes": _pair(before.processes, after.processes),
        "usage": {g.name: {"fds": g.fds, "rss_mib": round(g.rss_mib, 2)} for g in grown},
        "counters": {n: _pair(before.counters.get(n), after.counters.get(n)) for n in COUNTERS},
    }
    most = max(grown, key=lambda g: g.rss_mib, default=Growth("nobody", 0, 0.0))
    text = f"{len(grown)} processes; {most.name} grew most, by {most.rss_mib:.1f} MiB"
    return judged("no_leak", text, broken, list(_not_looked_at(before, after)), figures)


def _grown(before: Snapshot, after: Snapshot) -> list[Growth]:
    """Of those that there were before; a further process is seen in their number."""
    old, new = (_totals(snapshot.usage) for snapshot in (before, after))
    return [
        Growth(name, now.fds - then.fds, (now.rss_bytes - then.rss_bytes) / MIB)
        for name, then in old.items()
        if (now := new.get(name)) is not None
    ]


def _totals(usage: Iterable[Usage]) -> dict[str, Usage]:
    fds, rss = Counter[str](), Counter[str]()
    for one in usage:
        fds[one.name] += one.fds
        rss[one.name] += one.rss_bytes
    return {name: Usage(name, fds[name], rss[name]) for name in fds}


def _processes(grown: Iterable[Growth], params: Params) -> Iterator[str]:
    fds, rss_mib = params.get("fds", FDS), params.get("rss_mib", RSS_MIB)
    for each in grown:
        if each.fds > fds:
            yield f"{each.name} has {each.fds} descriptors more, {fds} are allowed"
        if each.rss_mib > rss_mib:
            yield f"{each.name} has {each.rss_mib:.1f} MiB more, {rss_mib:g} are allowed"


def _counters(before: Snapshot, after: Snapshot, params: Params) -> Iterator[str]:
    room = {"caps": params.get("caps", CAPS)}
    for name in COUNTERS:
        then, now = before.counters.get(name), after.counters.get(name)
        if then is not None and now is not None and now > then + room.get(name, 0):
            yield f"the kernel's {name}: {now}, {then} before"


def _not_looked_at(before: Snapshot, after: Snapshot) -> Iterator[str]:
    for when, snapshot in (("before", before), ("after", after)):
        if not snapshot.usage:
            yield f"no process was looked at {when} the faults"
        for name in COUNTERS:
            if name not in snapshot.counters:
                yield f"the kernel's {name} was not read {when} the faults"


def _pair(before: Any, after: Any) -> dict[str, Any]:
    return {"before": before, "after": after}
