"""placement: who shares a process. Pure: servers in, units out.

A *unit* is what is spawned, watched, killed and restarted: one process with its members. Under
`micro` everybody is a unit; under `hybrid` the members of each group are one; under `mono` all
that start with the system are. A unit has the name of its first member in start order: that is a
slot, and whatever knows slots (the supervisor, `ps`, the events) needs to know nothing new.

Only servers that serve somebody are joined. An application runs for itself (it may have a `main`
of its own, or never come back to a loop), so it stays a process and calls through the kernel, as
programs call a monolithic kernel; so do the commands (`start: demand`), and the machine, which is
the hardware.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ukernel.abi.manifest import Backoff, Heartbeat, Manifest, Restart, Server, start_order

PLACEMENTS = ("micro", "hybrid", "mono")
MONO = "mono"
HOUSEHOLD = "ukernel.lib.household"  # the program of a process with several members
MOST = 64  # members of one process: their descriptors come in one message (SCM_MAX_FD is 253)
MEMORY = 256 << 20  # bytes that a member without `memory` adds to the limit of its process
STRATEGIES = ("one_for_one", "rest_for_one", "one_for_all")  # the strictest last
WHENS = ("crashed", "always", "never")


class Unit(NamedTuple):
    """One process: its members in start order, and the one policy that the supervisor goes by."""

    members: tuple[str, ...]
    spec: Server

    @property
    def name(self) -> str:
        return self.members[0]


def joins(server: Server) -> bool:
    """Whether it can live in one loop with others."""
    return server.start == "boot" and server.serves is not None


def shared(
    servers: Mapping[str, Server], groups: Mapping[str, Sequence[str]], placement: str
) -> dict[str, tuple[str, ...]]:
    """Those that share a process, by the name of what joins them. Whoever is alone is not here."""
    wanted: Mapping[str, Sequence[str]] = {}
    if placement == "mono":
        wanted = {MONO: tuple(servers)}
    elif placement == "hybrid":
        wanted = groups
    able = {
        label: tuple(name for name in names if name in servers and joins(servers[name]))
        for label, names in wanted.items()
    }
    return {label: names for label, names in able.items() if len(names) > 1}


def calls_of_units(
    servers: Mapping[str, Server], sharing: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Which process waits for which at the start: the call graph with each unit as one node, by
    what joins its members, or by the name of who is alone."""
    home = {name: label for label, names in sharing.items() for name in names}
    calls: dict[str, list[str]] = {}
    for name, server in servers.items():
        own = calls.setdefault(home.get(name, name), [])
        callees = (home.get(callee, callee) for callee in server.calls if callee in servers)
        own += [callee for callee in callees if callee != home.get(name, name)]
    return calls


def units(manifest: Manifest) -> list[Unit]:
    """The processes of the servers that start with the system: each after those that it calls,
    members in start order."""
    servers = {n: s for n, s in manifest.servers.items() if s.start == "boot"}
    order = [name for name in start_order(manifest) if name in servers]
    sharing = shared(servers, manifest.groups, manifest.placement)
    home = {name: label for label, names in sharing.items() for name in names}
    waiting: dict[str, list[str]] = {}
    for name in order:
        waiting.setdefault(home.get(name, name), []).append(name)
    calls = calls_of_units(servers, sharing)
    found = []
    while waiting:  # a checked file has such an order, see `rules`
        label = next(u for u in waiting if not waiting.keys() & calls[u])
        members = tuple(waiting.pop(label))
        found.append(Unit(members, merged([servers[name] for name in members])))
    return found


def merged(members: Sequence[Server]) -> Server:
    """The one policy of a process with these members: for each setting the strictest.

    It is restarted the least often that any of them allows (`never` before `always` before
    `crashed`), with the longest back-off and the widest strategy; it is critical, has a standby or
    starts cold when one of them does. `ready_timeout_s` and `memory` add up (who has no `memory`
    adds MEMORY; with none at all there is no limit). It may be silent for as long as the most
    patient `heartbeat` allows: one loop cannot answer sooner than its slowest member. It runs on
    the cores that all agree on.
    """
    if len(members) == 1:
        return members[0]
    limited = any(s.memory for s in members)
    cold = any(s.spawn == "cold" for s in members)
    together = {
        "priority": max(s.priority for s in members),
        "cores": common_cores(members),
        "memory": sum(s.memory or MEMORY for s in members) if limited else None,
        "spawn": "cold" if cold else "zygote",
        "standby": any(s.standby for s in members),
        "critical": any(s.critical for s in members),
        "restart": _restart([s.restart for s in members]),
        "heartbeat": _heartbeat([s.heartbeat for s in members]),
    }
    return members[0].model_copy(update=together)


def common_cores(members: Sequence[Server]) -> tuple[int, ...] | None:
    """The cores on which all of them may run; empty: they disagree; None: on any."""
    chosen = [set(s.cores) for s in members if s.cores is not None]
    return tuple(sorted(set.intersection(*chosen))) if chosen else None


def _restart(each: Sequence[Restart]) -> Restart:
    backoffs = [r.backoff for r in each]
    return Restart(
        when=max((r.when for r in each), key=WHENS.index),
        max_restarts=min(r.max_restarts for r in each),
        within_s=max(r.within_s for r in each),
        strategy=max((r.strategy for r in each), key=STRATEGIES.index),
        backoff=Backoff(
            first_ms=max(b.first_ms for b in backoffs),
            factor=max(b.factor for b in backoffs),
            max_ms=max(b.max_ms for b in backoffs),
            jitter=max(b.jitter for b in backoffs),
        ),
        ready_timeout_s=sum(r.ready_timeout_s for r in each),
    )


def _heartbeat(each: Sequence[Heartbeat]) -> Heartbeat:
    """A period of 0 watches for no hangs, which is the most patient of all."""
    patient = max(each, key=lambda h: h.period_ms * h.misses or float("inf"))
    limits = [h.max_call_s for h in each if h.max_call_s is not None]
    return Heartbeat(
        period_ms=patient.period_ms, misses=patient.misses, max_call_s=min(limits, default=None)
    )
