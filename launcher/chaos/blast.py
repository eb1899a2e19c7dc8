"""blast: who is down, who feels it and who must not, when something dies. Pure.

`predict` reads it from the system file: authority is the graph of calls, so nobody else can feel
it. `observe` reads it from facts: the numbers of the lives, and the kernel's trace of calls.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from launcher.board import MACHINE
from launcher.chaos.evidence import Blast, Recovery
from launcher.rules import hint
from launcher.supervisor import State
from ukernel.abi.errors import Code
from ukernel.abi.manifest import Link, Manifest, start_order
from ukernel.abi.syscalls import TraceRow

DIED = frozenset((Code.E_DEAD_NOTRUN, Code.E_DEAD_UNKNOWN, Code.E_POISON))  # with its server

# --- from the system file -----------------------------------------------------------------------


def predict(
    manifest: Manifest,
    victims: Iterable[str],
    *,
    clients: Iterable[str] = (),
    also_down: Iterable[str] = (),
) -> Blast:
    """Who is down, degraded and untouched when `victims` die, each in the order of the file.

    down       `victims`, `also_down` (see `taken_along`) and, when the machine is among them,
               every driver: its device is gone.
    degraded   whoever may call one that is down or degraded.
    untouched  whoever else runs: the machine, servers that start at boot, and `clients`, which
               are `start: demand` servers by name (`shell`) or further ones of them (`shell.2`).

    Raises LookupError for a name that the system has not.
    """
    dying = [*victims, *also_down]
    running = _running(manifest, [*clients, *dying])
    down = _down(manifest, running, dying)
    feel = reach(manifest, running, down)
    return Blast(
        tuple(name for name in running if name in down),
        tuple(name for name in running if name in feel),
        tuple(name for name in running if name not in down and name not in feel),
    )


def taken_along(manifest: Manifest, victims: Iterable[str]) -> list[str]:
    """Whom the restart strategies of `victims` start again with them: `also_down` of `predict`."""
    servers = {name: manifest.servers[name] for name in start_order(manifest)}
    family = State(servers, manifest.groups)
    dying = [family.children[name] for name in victims if name in family.children]
    names = dict.fromkeys(each.name for child in dying for each in family.companions(child))
    return [name for name in names if servers[name].start == "boot"]


def node(callee: str, badge: int) -> str:
    """What a link leads to: a server, or one of its objects: `parts:1`."""
    return f"{callee}:{badge}" if badge else callee


def holdings(manifest: Manifest, name: str) -> dict[str, tuple[str, ...]]:
    """What a server may call, and who else may call the very same: `{"parts:1": ("vm-a2",)}`.

    Whoever takes the server over has these and nothing else: another's object is not among them.
    """

    def held_by(server: str) -> dict[str, None]:
        return {node(c, link.badge): None for c, link in _links(manifest, server).items()}

    others = {other: held_by(other) for other in manifest.servers if other != _template(name)}
    return {
        what: tuple(other for other, held in others.items() if what in held)
        for what in held_by(name)
    }


def reach(
    manifest: Manifest, running: Iterable[str], down: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Who may call one that is down, and by which calls: `{"shell": ("shell", "fs", "disk")}`.

    The path is a shortest one, from the caller to the one that is down, by the objects that the
    links are for: `("vm-a", "parts:1", "disk")`.
    """
    names = list(running)
    dead = set(down)
    paths: dict[str, tuple[str, ...]] = {name: (name,) for name in names if name in dead}
    waiting = deque(paths)
    while waiting:
        callee = waiting.popleft()
        for caller in names:
            link = _links(manifest, caller).get(callee)
            if caller not in paths and link is not None:
                paths[caller] = (caller, node(callee, link.badge), *paths[callee][1:])
                waiting.append(caller)
    return {name: path for name, path in paths.items() if name not in dead}


def _running(manifest: Manifest, named: Iterable[str]) -> list[str]:
    """What runs from boot and what is named; LookupError for what is not in the file."""
    booted = [name for name, server in manifest.servers.items() if server.start == "boot"]
    every = {*([MACHINE] if manifest.hardware else []), *booted, *named}
    for name in every:
        _check(manifest, name)
    rank = {name: at for at, name in enumerate([MACHINE, *manifest.servers])}
    return sorted(every, key=lambda name: (rank[_template(name)], name))


def _down(manifest: Manifest, running: Iterable[str], dying: Iterable[str]) -> set[str]:
    down = set(dying)
    if MACHINE in down and manifest.hardware:
        servers = manifest.servers
        down |= {n for n in running if n != MACHINE and servers[_template(n)].devices}
    return down


def _check(manifest: Manifest, name: str) -> None:
    names = [*([MACHINE] if manifest.hardware else []), *manifest.servers]
    if _template(name) in names:
        return
    if name in manifest.hardware:
        drivers = [n for n, server in manifest.servers.items() if name in server.devices]
        raise LookupError(f"{name} is a device; name its driver: {', '.join(drivers) or 'none'}")
    raise LookupError(f"system {manifest.system} has no task {name!r}{hint(name, names, 'tasks')}")


def _template(name: str) -> str:
    """The server in the file that `shell.2` is one more of."""
    return name.partition(".")[0]


def _links(manifest: Manifest, name: str) -> Mapping[str, Link]:
    server = manifest.servers.get(_template(name))
    return server.calls if server is not None else {}


# --- from facts ---------------------------------------------------------------------------------


class Window(NamedTuple):
    """A time in which a server answered nobody: from its death to its next good reply."""

    server: str
    begun_ns: int
    ended_ns: int  # 0: it never did again


def repaired_by(recovery: Recovery, every: Iterable[Recovery]) -> Recovery | None:
    """The recovery whose life ended this outage: this one or, when that died too before it had
    replied to anybody, the next of the server that did. None: nobody has."""
    later = sorted(
        (r for r in every if r.server == recovery.server and r.life > recovery.life),
        key=lambda r: r.life,
    )
    return next((r for r in (recovery, *later) if r.client_ns or r.serving_ns), None)


def outages(recoveries: Sequence[Recovery]) -> list[Window]:
    """The windows of a run's recoveries, as the kernel saw them end."""
    ends = [repaired_by(r, recoveries) for r in recoveries]
    return [
        Window(r.server, r.killed_ns or r.dead_ns, end.serving_ns or end.client_ns if end else 0)
        for r, end in zip(recoveries, ends, strict=True)
    ]


def observe(
    lives_before: Mapping[str, int],
    lives_after: Mapping[str, int],
    windows: Iterable[Window],
    rows: Iterable[TraceRow],
) -> Blast:
    """Who was down, degraded and untouched, each in the order of `lives_after`.

    The lives are each slot's number of lives so far; `rows` the kernel's trace.

    down       its number has grown since it was first started, or a window of it never ended.
    degraded   it had a call that was open during a window of one that is down, or that ended
               because its server died; or a call to one that is degraded, open while that one
               waited in such a call: from where it met the outage to its outcome.
    untouched  every other slot that has had a life.

    The trace has finished calls: one that was refused at once (E_UNAVAILABLE), or has no outcome
    yet, is not seen here.
    """
    outages = list(windows)
    down = {name for name, life in lives_after.items() if life > lives_before.get(name, 0) > 0}
    down |= {window.server for window in outages if not window.ended_ns}
    troubled = _troubled(outages, down, list(rows))
    lived = [name for name, life in lives_after.items() if life > 0 or name in down]
    return Blast(
        tuple(name for name in lived if name in down),
        tuple(name for name in lived if name in troubled and name not in down),
        tuple(name for name in lived if name not in down and name not in troubled),
    )


def _troubled(windows: Iterable[Window], down: set[str], rows: Sequence[TraceRow]) -> set[str]:
    """Slots whose calls met an outage, or somebody who waited because of one.

    Each call that did makes a time of trouble for its caller, until nothing new comes of it.
    """
    traced = _Traced(rows)
    begin = [(w.server, w.begun_ns, w.ended_ns or math.inf) for w in windows]
    begin += [(row.server, row.done_ns, row.done_ns) for row in rows if row.status in DIED]
    waiting = deque(each for each in begin if each[0] in down)
    since: dict[int, float] = {}  # call -> from when on it was in trouble
    troubled = set()
    while waiting:
        server, begun_ns, ended_ns = waiting.popleft()
        for row in traced.during(server, begun_ns, ended_ns):
            met_ns = max(row.queued_ns, begun_ns)
            if met_ns < since.get(row.number, math.inf):
                since[row.number] = met_ns
                caller = _slot(row.client)
                troubled.add(caller)
                waiting.append((caller, met_ns, row.done_ns))
    return troubled


def _slot(client: str) -> str:
    """`fs` of `fs#3`."""
    return client.partition("#")[0]


class _Traced:
    """The calls of a trace by their server, to be found by time."""

    def __init__(self, rows: Iterable[TraceRow]) -> None:
        self.rows = defaultdict[str, list[TraceRow]](list)
        for row in sorted(rows, key=lambda row: row.queued_ns):
            self.rows[row.server].append(row)
        self.begun = {name: [row.queued_ns for row in some] for name, some in self.rows.items()}
        self.longest = {
            name: max(row.done_ns - row.queued_ns for row in some)
            for name, some in self.rows.items()
        }

    def during(self, server: str, begun_ns: float, ended_ns: float) -> Iterator[TraceRow]:
        """Calls to `server` that were open at some moment from `begun_ns` to `ended_ns`."""
        rows = self.rows.get(server, [])
        if not rows:
            return
        first = bisect_left(self.begun[server], begun_ns - self.longest[server])
        last = bisect_right(self.begun[server], ended_ns)
        yield from (row for row in rows[first:last] if row.done_ns >= begun_ns)
