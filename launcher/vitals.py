"""vitals: what the kernel and Linux say of the living servers, once a round."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from launcher.heartbeat import Vital
from launcher.tasks import Task
from ukernel.abi.syscalls import SlotRow

STARVED = 0.5  # share of a round for which a server waited for a processor
PAGE = os.sysconf("SC_PAGE_SIZE")
RESIDENT, SHARED, DATA = 1, 2, 5  # columns of statm; the last is what RLIMIT_DATA counts
LOG_LIMIT = 4 << 20  # bytes of a task's log
LAST_LINES = 8  # of a log, in a message
LOG_KEPT = 64 << 10  # bytes that stay of one that was too long


class Seen(NamedTuple):
    """What a round has found, and since when."""

    what: tuple[int, ...]
    since_ns: int


class Examiner:
    """Takes the vitals of each round; remembers the last to tell what has changed."""

    def __init__(self) -> None:
        self._waited_ns: dict[int, int] = {}  # by process: for a processor, since it began
        self._seen: dict[str, dict[str, Seen]] = {}  # by task: requests in hand, see `_begun_ns`
        self._forked: set[int] = set()  # processes below the servers' own
        self._at_ns = 0

    def examine(
        self, tasks: Iterable[Task], slots: Mapping[str, SlotRow], now_ns: int
    ) -> dict[str, Vital]:
        """The vitals of every task that lives."""
        round_ns, self._at_ns = now_ns - self._at_ns, now_ns
        before, self._waited_ns = self._waited_ns, {}
        settled, self._forked = self._forked, set()
        found = {}
        for task in tasks:
            if task.process is None or task.name not in slots:
                continue
            pid, row = task.process.pid, slots[task.name]
            waited_ns = self._waited_ns[pid] = _waited_ns(pid)
            starved = waited_ns - before.get(pid, waited_ns) > STARVED * round_ns
            alone = task is task.lead and task.terms is not None  # once for each process
            limit = task.terms.memory if alone and task.terms else None
            begun = [ns for ns in (row.oldest_ns, *self._begun_ns(task, now_ns)) if ns]
            waiting = None if row.waits_for else task.waiting
            found[task.name] = Vital(
                row.heard_ns / 1e9,
                row.progress_ns / 1e9,
                min(begun, default=0) / 1e9,
                row.waits_for,
                starved,
                self._used_bytes(pid, settled, limit) if limit is not None else 0,
                waiting.callee.name if waiting else "",
            )
        return found

    def _begun_ns(self, task: Task, now_ns: int) -> list[int]:
        """Of what the kernel may not have brought, since when we see the same in hand: the request
        that it handles, and those of its doors, of which none has had its outcome since."""
        counts = task.box.tally.counts()
        answered = (counts.doors - counts.in_hand,) if counts.in_hand else ()
        now = {"in hand": task.box.in_hand(), "put off": answered}
        before = self._seen.get(task.name, {})
        self._seen[task.name] = seen = {
            how: before[how] if how in before and before[how].what == (task.life, *what)
            else Seen((task.life, *what), now_ns)
            for how, what in now.items() if what
        }  # fmt: skip
        return [each.since_ns for each in seen.values()]

    def _used_bytes(self, pid: int, settled: set[int], limit: int) -> int:
        """Private memory of a server and of what it has forked; beyond `limit` nothing is added,
        so that a fork bomb costs no more. A child that is not `settled` may be about to become
        another program: it counts from the next round on."""
        used, parents = _pages(pid, DATA) * PAGE, [pid]
        while parents and used <= limit:
            children = _children(parents.pop())
            self._forked.update(children)
            parents += children
            used += PAGE * sum(
                _pages(child, RESIDENT) - _pages(child, SHARED) for child in settled & children
            )
        return used


def of_processes(tasks: Iterable[Task], found: Mapping[str, Vital]) -> dict[str, Vital]:
    """The vitals of each process by the name of its first task: what any member says, all of them
    say, because one loop runs them. A member waits in turn if its process does."""
    joint = {}
    for task in (t for t in tasks if t.lead is t and t.name in found):
        each = [(t, found[t.name]) for t in task.housemates if t.name in found]
        limited = [t for t, _ in each if t.spec and t.spec.heartbeat.max_call_s is not None]
        taken = [v.oldest_s for t, v in each if v.oldest_s and (t in limited or len(each) == 1)]
        vitals = [vital for _, vital in each]
        within = {t.name for t in task.housemates}  # who waits for one of these is no excuse
        joint[task.name] = found[task.name]._replace(
            heard_s=max(v.heard_s for v in vitals),
            progress_s=max(v.progress_s for v in vitals),
            oldest_s=min(taken, default=0.0),
            waits_for=_elsewhere((v.waits_for for v in vitals), within),
            says_it_waits_for=_elsewhere((v.says_it_waits_for for v in vitals), within),
        )
    return joint


def _elsewhere(waits: Iterable[str], within: set[str]) -> str:
    """Of whom the members of a process wait for, somebody who is not in it."""
    return next((name for name in waits if name not in {"", *within}), "")


def _waited_ns(pid: int) -> int:
    """Nanoseconds that its threads were ready to run and did not (/proc/PID/schedstat)."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        return sum(
            int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_bytes().split()[1])
            for thread in threads
        )
    except (OSError, IndexError, ValueError):  # gone meanwhile, or a Linux without schedstat
        return 0


def _pages(pid: int, column: int) -> int:
    """A column of /proc/PID/statm."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[column])
    except (OSError, IndexError, ValueError):
        return 0


def _children(pid: int) -> set[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        found = [Path(f"/proc/{pid}/task/{thread}/children").read_bytes() for thread in threads]
        return set(map(int, b" ".join(found).split()))
    except OSError:
        return set()


def trim(log: Path) -> int:
    """Cut a log that has grown too long down to its end; how many bytes it had, 0: it may stay.

    Its writers append, and so do we: what comes meanwhile stays, whole, before what is kept. A
    writer may be as fast as we are, so nothing here goes on until the end of the file.
    """
    try:
        size = log.stat().st_size
        if size <= LOG_LIMIT:
            return 0
        with log.open("a+b", buffering=0) as file:
            file.seek(size - LOG_KEPT)
            kept = file.read(LOG_KEPT)
            file.truncate(0)
            with contextlib.suppress(OSError):  # no room on the host, not even for this
                file.write(b"[... %d bytes are cut here ...]\n" % (size - LOG_KEPT) + kept)
    except OSError:
        return 0
    return size


def tail(log: Path) -> list[str]:
    """The last lines of a log, of at most LOG_KEPT bytes; none when there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_KEPT))
            return file.read(LOG_KEPT).decode(errors="replace").strip().splitlines()[-LAST_LINES:]
    except OSError:
        return []
