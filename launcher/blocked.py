"""blocked: who waits for whom, and who is to blame. Pure: the rows of `ps` in, chains out.

A task is blocked in one call at a time, so the wait-for graph is a set of chains that may end in
the same tail. Blame goes to the deepest callee, as it does when the supervisor looks for hangs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from ukernel.abi.syscalls import DEAD, FAILED, READY, STOPPED

GONE = (DEAD, FAILED, STOPPED)
Rows = Mapping[str, Mapping[str, Any]]  # by name


class Wait(NamedTuple):
    """One task is blocked in a call on another."""

    caller: str
    callee: str
    opcode: int
    badge: int | None  # of the called object; None: the kernel does not say
    since_ns: int  # CLOCK_MONOTONIC
    way: str = ""  # past the kernel: "by channel" or "direct"


class Chain(NamedTuple):
    """From a task that nobody waits for down to the callee that all of them wait for."""

    waits: tuple[Wait, ...]
    culprit: str
    why: str  # what the culprit does instead of answering


class Stall(NamedTuple):
    """A server that has calls and does not get on with them, and whose fault that is."""

    server: str
    queued: int
    taken: int
    culprit: str
    why: str


def chains(
    rows: Iterable[Mapping[str, Any]], suspended: Collection[str], now_ns: int
) -> list[Chain]:
    """Every wait, in chains, the longest wait first. `suspended` are tasks that Linux stopped."""
    known, waits = _graph(rows)
    awaited = {wait.callee for wait in waits.values()}
    found, seen = [], set[str]()
    # Who is waited for comes last: then nobody is left but those that wait in a circle.
    for name in sorted(waits, key=lambda n: (n in awaited, waits[n].since_ns)):
        if name not in seen:
            followed = _follow(waits, name)
            seen |= {wait.caller for wait in followed}
            culprit = followed[-1].callee
            found.append(Chain(tuple(followed), culprit, _why(known, culprit, suspended, now_ns)))
    return found


def stalls(
    rows: Iterable[Mapping[str, Any]], suspended: Collection[str], now_ns: int
) -> list[Stall]:
    """Every server with calls that it does not take, or has taken and cannot work on."""
    known, waits = _graph(rows)
    found = []
    for name, row in known.items():
        idle = row["state"] != READY or name in suspended
        taken = row["taken"] + row.get("in_hand", 0)
        if row["queued"] or (taken and idle):
            culprit = _follow(waits, name)[-1].callee if name in waits else name
            why = _why(known, culprit, suspended, now_ns)
            found.append(Stall(name, row["queued"], taken, culprit, why))
    return found


def _graph(rows: Iterable[Mapping[str, Any]]) -> tuple[Rows, dict[str, Wait]]:
    """The rows by name, and what each blocked task waits for."""
    known = {row["name"]: row for row in rows}
    return known, {name: wait for name, row in known.items() if (wait := _wait(row)) is not None}


def _wait(row: Mapping[str, Any]) -> Wait | None:
    """What the kernel says, or else what the task itself does."""
    if row["waits_for"]:
        badge = row.get("waits_badge")
        return Wait(row["name"], row["waits_for"], row["waits_op"], badge, row["waits_since_ns"])
    told = row.get("waits")
    if not told or row["state"] in GONE:
        return None
    callee = told["callee"]
    whom = row["name"], callee["name"], told["opcode"], callee["badge"]
    return Wait(*whom, told["since_ns"], told["way"])


def _follow(waits: Mapping[str, Wait], name: str) -> list[Wait]:
    """The waits from `name` on. The kernel lets no circle arise; here one would end where it
    closes."""
    followed, callers = [waits[name]], {name}
    while (callee := followed[-1].callee) in waits and callee not in callers:
        callers.add(callee)
        followed.append(waits[callee])
    return followed


def _why(known: Rows, name: str, suspended: Collection[str], now_ns: int) -> str:
    """What the culprit does instead of answering."""
    row = known.get(name)
    if row is None:
        return "is no task of the system"
    if row["state"] != READY:
        return f"is {row['state']}"
    if name in suspended:
        return "is suspended"
    if not row["taken"] and row.get("in_hand"):
        return f"is at work, on {row['in_hand']} by channel"
    if not row["taken"]:
        return "has not taken it"
    return f"is at work, on its oldest call for {(now_ns - row['oldest_ns']) / 1e6:.0f} ms"
