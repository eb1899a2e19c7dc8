"""numbers: what the tables and pictures show, computed from the evidence. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from launcher.chaos import journal
from launcher.chaos.evidence import OK, Blast, Evidence, Leg, Operation, Recovery, Snapshot

ROLES = Blast._fields
NEVER = 0.0  # `every_s` of the legs without kills
Span = tuple[int, int]  # ns, from and until


class Ends(NamedTuple):
    """When a run began and ended, as far as the evidence says."""

    begun_ns: int
    ended_ns: int

    def second(self, at_ns: int) -> float:
        return (at_ns - self.begun_ns) / 1e9


class ClientRow(NamedTuple):
    """What one client saw; the summaries are of ms, None where it did nothing."""

    client: str
    bystander: bool
    operations: int
    availability: float  # 0 to 1: the share that was answered
    at_rest: dict[str, float] | None
    disturbed: dict[str, float] | None  # operations that an outage or a pause overlaps


class SweepRow(NamedTuple):
    """All legs of one interval between kills."""

    every_s: float
    rounds: int
    kills: int
    median_bytes_s: float
    loss: float | None  # 0 to 1, of the median without kills; None without such a leg
    right: int  # rounds whose checksum was right


def ends(evidence: Evidence) -> Ends:
    """Of everything that is known to have happened in the run."""
    known = [evidence.begun_ns, evidence.ended_ns]
    known += [at_ns for each in evidence.history for at_ns in (each.begun_ns, each.ended_ns)]
    known += [at_ns for each in evidence.injections for at_ns in (each.landed_ns, each.healed_ns)]
    known += [at_ns for each in evidence.recoveries for at_ns in (each.killed_ns, each.dead_ns)]
    reached = [at_ns for at_ns in known if at_ns] or [0]
    return Ends(min(reached), max(*reached, min(reached) + 1))


def latency_ms(operation: Operation, until_ns: int) -> float:
    """How long it took; one without an outcome has lasted until the end of the run."""
    return max((operation.ended_ns or until_ns) - operation.begun_ns, 1) / 1e6


def thin(history: Sequence[Operation], limit: int, when: Ends) -> list[Operation]:
    """About `limit` operations that look like all of them, in the order of time.

    Each client's time is cut into bins; of a bin, and of each kind of outcome in it, the slowest
    stays, and the first for the rest of them. Nothing that stands out is lost.
    """
    if len(history) <= limit:
        return sorted(history, key=lambda operation: operation.begun_ns)
    groups: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in history:
        groups[operation.client, operation.outcome].append(operation)
    kept: list[Operation] = []
    for group in groups.values():
        bins = max(1, limit * len(group) // len(history) // 2)
        kept += _slowest_and_first(group, bins, when)
    return sorted(kept, key=lambda operation: operation.begun_ns)


def _slowest_and_first(group: list[Operation], bins: int, when: Ends) -> Iterable[Operation]:
    first: dict[int, Operation] = {}
    slowest: dict[int, Operation] = {}
    width_ns = (when.ended_ns - when.begun_ns) / bins
    for operation in sorted(group, key=lambda operation: operation.begun_ns):
        at = int((operation.begun_ns - when.begun_ns) // width_ns)
        first.setdefault(at, operation)
        so_far = slowest.setdefault(at, operation)
        if latency_ms(operation, when.ended_ns) > latency_ms(so_far, when.ended_ns):
            slowest[at] = operation
    chosen = {(each.client, each.number): each for each in (*first.values(), *slowest.values())}
    return chosen.values()


def disturbances(evidence: Evidence) -> list[Span]:
    """When something was down, paused or the like: no overlaps, in the order of time."""
    until_ns = ends(evidence).ended_ns
    spans = [outage(recovery, until_ns) for recovery in dated(evidence.recoveries)]
    spans += [(each.landed_ns, each.healed_ns) for each in evidence.injections if each.healed_ns]
    merged: list[Span] = []
    for begun_ns, ended_ns in sorted(spans):
        if merged and begun_ns <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], ended_ns))
        else:
            merged.append((begun_ns, ended_ns))
    return merged


def dated(recoveries: Iterable[Recovery]) -> list[Recovery]:
    """Those of which it is known when the death was."""
    return [recovery for recovery in recoveries if recovery.killed_ns or recovery.dead_ns]


def outage(recovery: Recovery, until_ns: int) -> Span:
    """From the kill to the first good reply, or until it was ready when nobody asked again."""
    begun_ns = recovery.killed_ns or recovery.dead_ns
    ended_ns = recovery.client_ns or recovery.serving_ns or recovery.ready_ns or until_ns
    return begun_ns, max(begun_ns, ended_ns)


def clients(evidence: Evidence) -> list[ClientRow]:
    """What each client saw, those under test first."""
    until_ns = ends(evidence).ended_ns
    spans = disturbances(evidence)
    groups: dict[str, list[Operation]] = defaultdict(list)
    for operation in evidence.history:
        groups[operation.client].append(operation)
    rows = []
    for client, group in groups.items():
        times: tuple[list[float], list[float]] = ([], [])
        for operation in group:
            times[_overlaps(operation, spans, until_ns)].append(latency_ms(operation, until_ns))
        at_rest, disturbed = (journal.summary(t) if t else None for t in times)
        answered = sum(operation.outcome == OK for operation in group) / len(group)
        bystander = client in evidence.bystanders
        rows.append(ClientRow(client, bystander, len(group), answered, at_rest, disturbed))
    return sorted(rows, key=lambda row: (row.bystander, row.client))


def _overlaps(operation: Operation, spans: list[Span], until_ns: int) -> bool:
    ended_ns = operation.ended_ns or until_ns
    before = bisect_left(spans, ended_ns, key=lambda span: span[0])  # these begin before it ends
    return before > 0 and spans[before - 1][1] > operation.begun_ns


def sweep(legs: Sequence[Leg]) -> list[SweepRow]:
    """One row for each interval, from never to the shortest."""
    intervals = sorted({leg.every_s for leg in legs}, key=lambda every_s: -(every_s or 1e18))
    rows = []
    undisturbed = None
    for every_s in intervals:
        same = [leg for leg in legs if leg.every_s == every_s]
        rate = median(bytes_per_s(leg) for leg in same)
        if every_s == NEVER:
            undisturbed = rate
        loss = 1 - rate / undisturbed if undisturbed else None
        kills, right = sum(leg.kills for leg in same), sum(leg.right for leg in same)
        rows.append(SweepRow(every_s, len(same), kills, rate, loss, right))
    return rows


def bytes_per_s(leg: Leg) -> float:
    return leg.moved_bytes / leg.took_s if leg.took_s > 0 else 0.0


def blast(predicted: Blast | None, observed: Blast | None) -> list[tuple[str, str, str]]:
    """Each server, and its role as predicted and as observed; "" where nothing is said of it."""
    before, after = _roles(predicted), _roles(observed)
    names = list(dict.fromkeys([*before, *after]))
    return [(name, before.get(name, ""), after.get(name, "")) for name in names]


def _roles(blast: Blast | None) -> dict[str, str]:
    if blast is None:
        return {}
    return {name: role for role in ROLES for name in getattr(blast, role)}


def usage(before: Snapshot | None, after: Snapshot | None) -> list[tuple[str, list[int | None]]]:
    """Each process: descriptors before and after, resident bytes before and after."""
    sides = [{use.name: use for use in side.usage} if side else {} for side in (before, after)]
    rows = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        found = [side.get(name) for side in sides]
        fds = [use.fds if use else None for use in found]
        rows.append((name, fds + [use.rss_bytes if use else None for use in found]))
    return rows
