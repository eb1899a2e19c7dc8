"""lifelines: when each life of each task began and ended. Pure; CLOCK_MONOTONIC throughout.

No single source knows all of it. The launcher's recoveries are exact, but of deaths that nobody
had asked for; its events tell of READY and of deaths, a moment later; the kernel knows the life
of each slot now; and whoever calls, or answers a call, is alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ukernel.abi import syscalls
from ukernel.abi.syscalls import TraceRow

Facts = Iterable[Mapping[str, Any]]  # as the control socket gives them
ALIVE = (syscalls.STARTING, syscalls.READY)


class Lifeline(NamedTuple):
    """One life. `ready_ns` is 0 when it never was, or nobody knows; `cause` is of its death."""

    task: str
    life: int
    begin_ns: int
    ready_ns: int
    end_ns: int
    cause: str


@dataclass
class _Known:
    begin_ns: int = 0
    ready_ns: int = 0
    end_ns: int = 0
    cause: str = ""
    first_ns: int = 0  # it was seen alive
    last_ns: int = 0

    def seen(self, at_ns: int) -> None:
        self.first_ns = min(self.first_ns or at_ns, at_ns)
        self.last_ns = max(self.last_ns, at_ns)


class _Lives(dict[tuple[str, int], _Known]):
    def __missing__(self, key: tuple[str, int]) -> _Known:
        self[key] = _Known()
        return self[key]


def task_and_life(who: str) -> tuple[str, int]:
    """`disk#2` taken apart; life 0 for `disk`, and for `disk (standby)`."""
    name, _, life = who.partition(" ")[0].partition("#")
    return name, int(life or 0)


def lifelines(
    rows: Iterable[TraceRow], events: Facts, recoveries: Facts, slots: Facts, now_ns: int
) -> dict[str, list[Lifeline]]:
    """By task, in order, and never overlapping; who lives at `now_ns` ends there."""
    known = _Lives()
    _from_calls(known, rows)
    _from_events(known, events)
    _from_slots(known, slots, now_ns)
    _from_recoveries(known, recoveries)
    found: dict[str, list[Lifeline]] = {}
    for (task, life), k in sorted(known.items()):
        line = found.setdefault(task, [])
        begin_ns = max(k.begin_ns or k.first_ns, line[-1].end_ns if line else 0)
        end_ns = max(k.end_ns or k.last_ns, begin_ns)
        line.append(Lifeline(task, life, begin_ns, k.ready_ns, end_ns, k.cause))
    return found


def _from_calls(known: _Lives, rows: Iterable[TraceRow]) -> None:
    for row in rows:
        client = known[task_and_life(row.client)]
        client.seen(row.queued_ns)
        client.seen(row.done_ns)
        if row.life and row.taken_ns:
            server = known[row.server, row.life]
            server.seen(row.taken_ns)
            server.seen(row.done_ns)


def _from_events(known: _Lives, events: Facts) -> None:
    for event in events:
        task, life = task_and_life(event["who"])
        if not life:
            continue
        known[task, life].seen(event["at_ns"])
        if event["kind"] == syscalls.EVENT_READY:
            known[task, life].ready_ns = event["at_ns"]
        elif event["kind"] == "died":
            known[task, life].end_ns, known[task, life].cause = event["at_ns"], event["text"]


def _from_slots(known: _Lives, slots: Facts, now_ns: int) -> None:
    for slot in slots:
        if slot["life"] and slot["state"] in ALIVE:
            k = known[slot["name"], slot["life"]]
            k.begin_ns, k.ready_ns, k.end_ns = slot["begun_ns"], slot["ready_ns"], now_ns


def _from_recoveries(known: _Lives, recoveries: Facts) -> None:
    for stages in recoveries:
        dead = known[stages["server"], stages["life"]]
        dead.end_ns, dead.cause = stages["dead_ns"], stages["cause"]
        dead.seen(stages["dead_ns"])
        if stages["spawned_ns"]:
            after = known[stages["server"], stages["life"] + 1]
            after.begin_ns = stages["spawned_ns"]
            after.ready_ns = stages["ready_ns"] or after.ready_ns
            after.seen(max(stages["spawned_ns"], stages["ready_ns"]))
