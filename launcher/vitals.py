"""vitals: what the kernel and Linux say of the living servers, once a round."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from launcher.heartbeat import Vital
from launcher.tasks import Task
from ukernel.abi.syscalls import SlotRow

STARVED = 0.5  # share of a round for which a server waited for a processor
PAGE = os.sysconf("SC_PAGE_SIZE")
RESIDENT, SHARED, DATA = 1, 2, 5  # columns of statm; the last is what RLIMIT_DATA counts
LOG_LIMIT = 4 << 20  # bytes of a task's log
LAST_LINES = 8  # of a log, in a message
LOG_KEPT = 64 << 10  # bytes that stay of one that was too long


class Examiner:
    """Takes the vitals of each round; remembers the last to tell what has changed."""

    def __init__(self) -> None:
        self._waited_ns: dict[int, int] = {}  # by process: for a processor, since it began
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
            limit = task.spec.memory if task.spec is not None else None
            found[task.name] = Vital(
                row.heard_ns / 1e9,
                row.progress_ns / 1e9,
                row.oldest_ns / 1e9,
                row.waits_for,
                starved,
                self._used_bytes(pid, settled, limit) if limit is not None else 0,
            )
        return found

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
