"""witness: what is seen of a run: the trace around its outages, its repairs, what it uses."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from launcher.chaos import blast
from launcher.chaos.evidence import OK, Blast, Operation, Recovery, Snapshot, Usage
from launcher.chaos.injecting import Injecting, Life
from launcher.chaos.roles import served
from launcher.chaos.stage import Stage
from launcher.tasks import Stages, Task
from ukernel.abi.network import Ethernet, Network
from ukernel.abi.syscalls import FAILED, READY, STOPPED, TraceRow

AFTER_NS = 20_000_000  # of an outage, before its trace is fetched: its clients come first
IDLE_NS = 1_000_000_000  # who is READY and has not replied for so long is called by nobody
MOST_ROWS = 4096  # that wait to be fetched: the kernel remembers twice as many
REST_S = 2.0  # for the calls of those who have just left

PATIENT = (Ethernet, Network)  # have operations that wait for what may never come

Counters = dict[str, int]


class Witness:
    """Watches one boot of the system: `watch` before anything is done to it, then ask."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.lives = _lives(stage)
        self.rows: list[TraceRow] = []
        self._next = counters(stage)["calls_done"]  # the first row that may matter
        self._lost = False  # the kernel had forgotten some that did
        self._happened = False  # something, since then
        self._busy_ns = 0  # when it was last going on

    def watch(self, calm: bool) -> None:
        """Once a turn; `calm`: nothing is being done to anybody. What is traced from a fault until
        everybody replies again is fetched; nothing else matters."""
        done, now_ns = counters(self.stage)["calls_done"], time.monotonic_ns()
        if not calm or any(_is_under_repair(t, now_ns) for t in self.stage.system.tasks.values()):
            self._happened, self._busy_ns = True, now_ns
        elif not self._happened:
            self._next = done
        over = self._happened and now_ns - self._busy_ns > AFTER_NS
        if over or done - self._next > MOST_ROWS:
            self.fetch()
            self._happened = not over

    def fetch(self) -> None:
        """The trace from the first row that may matter."""
        while page := self.stage.system.control().trace(self._next):
            self._lost |= page[0].number > self._next
            self.rows += (row._replace(sent_head=b"", got_head=b"") for row in page)
            self._next = page[-1].number + 1

    def observed(self, recoveries: Sequence[Recovery]) -> Blast | None:
        """Who was down and who felt it; None when nobody can tell any more. A link that was
        interposed counts as one step."""
        if self._lost:
            return None
        middle = {name: caller for (caller, _), name in self.stage.through.items()}
        rows = [_direct(row, middle) for row in self.rows if row.server not in middle]
        outside = {c.client for c in self.stage.file.experiment.workload if c.outside}
        unseen = middle.keys() | outside
        after = {name: life for name, life in _lives(self.stage).items() if name not in unseen}
        return blast.observe(self.lives, after, blast.outages(recoveries), rows)


def _lives(stage: Stage) -> dict[str, int]:
    return {name: task.life for name, task in stage.system.tasks.items()}


def _is_under_repair(task: Task, now_ns: int) -> bool:
    """Whether it has died, and is about to reply again."""
    stages = task.stages
    if stages is None or stages.serving_ns or task.state in (FAILED, STOPPED):
        return False
    return task.state != READY or now_ns - stages.ready_ns < IDLE_NS


def _direct(row: TraceRow, middle: Mapping[str, str]) -> TraceRow:
    name, _, life = row.client.partition("#")
    return row._replace(client=f"{middle[name]}#{life}") if name in middle else row


# --- repairs -------------------------------------------------------------------------------------


def recoveries(
    repairs: Iterable[Stages],
    injections: Iterable[Injecting],
    cut: Collection[Life],
    history: Iterable[Operation],
    dependents: Mapping[str, Collection[str]],
) -> list[Recovery]:
    """The repairs of a run. `cut`: lives whose repair ended with the power, which is nobody's
    fault; `dependents`: the clients that a server's outage reaches."""
    struck: dict[Life, int] = {}
    for injecting in injections:
        for life, at_ns in injecting.ends.items():
            struck[life] = max(at_ns, struck.get(life, 0))
    for life in cut:
        struck.pop(life, None)
    good = _answers(history)
    return [
        _recovery(each, struck, [good[name] for name in dependents.get(each.server, ())])
        for each in repairs
    ]


def _answers(history: Iterable[Operation]) -> defaultdict[str, list[int]]:
    """When each client was answered."""
    found = defaultdict[str, list[int]](list)
    for ended_ns, client in sorted((op.ended_ns, op.client) for op in history if op.outcome == OK):
        found[client].append(ended_ns)
    return found


def _recovery(s: Stages, struck: Mapping[Life, int], answers: Iterable[list[int]]) -> Recovery:
    at_ns = struck.get((s.server, s.life), 0)
    firsts = [ends[at] for ends in answers if (at := bisect_left(ends, s.serving_ns)) < len(ends)]
    return Recovery(
        s.server,
        s.life,
        s.cause,
        (s.server, s.life) in struck,
        min(filter(None, (at_ns, s.killed_ns)), default=0),
        s.detected_ns,
        s.dead_ns,
        min(s.spawned_ns, s.hello_ns or s.spawned_ns),  # it may speak before the launcher does
        s.hello_ns,
        s.ready_ns,
        s.serving_ns,
        min(firsts, default=0) if s.serving_ns else 0,
    )


# --- resources -----------------------------------------------------------------------------------


def counters(stage: Stage) -> Counters:
    """What the kernel counts."""
    return {row.name: row.value for row in stage.system.control().counters()}


def at_rest(stage: Stage) -> Counters:
    """The same when no call is open any more, or as soon as it is clear that one stays open. One
    that waits by its nature, for a frame or a client, is counted apart, as standing."""
    deadline = time.monotonic() + REST_S
    while (found := _without_standing(stage))["calls_open"] and time.monotonic() < deadline:
        stage.pump(0.01)
    return found


def _without_standing(stage: Stage) -> Counters:
    found, slots = counters(stage), stage.system.slots()
    servers = stage.file.system.manifest.servers
    patient = [name for name, server in servers.items() if served(server) in PATIENT]
    standing = min(found["calls_open"], sum(slots[name].taken for name in patient))
    return {**found, "calls_open": found["calls_open"] - standing, "calls_standing": standing}


def snapshot(stage: Stage, rest: Counters, outsiders: Collection[int] = ()) -> Snapshot:
    """What every process of the system uses now, to be compared under the same work; `rest` is
    what the kernel counts without any. `outsiders` and what they start are not of the system."""
    system = stage.system
    assert system.kernel is not None
    assert system.zygote is not None
    pids = {t.name: t.process.pid for t in system.tasks.values() if t.process is not None}
    zygote = system.zygote.process.pid
    pids |= {"kernel": system.kernel.process.pid, "zygote": zygote, "launcher": os.getpid()}
    usage = [seen for name, pid in sorted(pids.items()) if (seen := _usage(name, pid)) is not None]
    return Snapshot(tuple(usage), _processes(zygote, set(pids.values()), outsiders), rest)


def _usage(name: str, pid: int) -> Usage | None:
    """None for a process that has just ended."""
    try:
        process = psutil.Process(pid)
        return Usage(name, process.num_fds(), process.memory_info().rss)
    except psutil.Error:
        return None


def _processes(zygote: int, tasks: set[int], outsiders: Collection[int]) -> int:
    """Processes below the launcher, without embryos: they come and go, and are called like the
    zygote until they are somebody."""
    nobody = _comm(zygote)
    below = [process.pid for process in psutil.Process().children(recursive=True)]
    ours = (pid for pid in below if not outsiders or _session(pid) not in outsiders)
    return sum(pid in tasks or _comm(pid) not in ("", nobody) for pid in ours)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""
