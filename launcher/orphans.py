"""orphans: what a task forked and left behind ends with it.

The launcher is a subreaper: it inherits them. Whose they are shows in their session, which is the
task's, and in their environment, which is the zygote's. A process that gives up both, and its
name, is found by nobody without a cgroup.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterator
from pathlib import Path

MARK = "UKERNEL_RUN_DIR"  # in the environment of the zygote and of all that comes from it
TASK_PASSES = 20  # over our children, for one task
PASSES = 1000  # over all processes: some are still being forked, and a killed one dies soon


def end_children(run_dir: Path, task: int, zygote: int, known: Collection[int]) -> bool:
    """Kill and reap what the process `task`, which is dead, left behind; never one of `known`.
    Whether nothing is left: who forks as fast as we kill has to be met again.

    A process id is not used again while it names a session, and our children wait for us to reap
    them: nobody else is ever hit.
    """
    nobody = _read(f"{zygote}/comm")  # the name of an embryo too: it is no task's yet

    def left(pid: int) -> bool:
        if pid in known:
            return False
        stray = _read(f"{pid}/comm") != nobody and _marked(pid, run_dir)
        return stray or _session(pid) == task

    for _ in range(TASK_PASSES):
        found = [pid for pid in _children() if left(pid)]
        if not found:
            return True
        if any(_session(pid) == task for pid in found):  # so the group is theirs
            with contextlib.suppress(ProcessLookupError):
                os.killpg(task, signal.SIGKILL)  # in one breath: they may fork faster than we look
        _end(found)
    return False


def end_all_children(run_dir: Path) -> None:
    """Kill and reap what is left of the system in `run_dir` when its zygote has ended."""
    while found := [pid for pid in _children() if _marked(pid, run_dir)]:
        _end(found)


def kill_all(run_dir: Path) -> None:
    """Said by the zygote when the launcher is dead: kill all that comes from it but itself."""
    for _ in range(PASSES):
        every = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        found = [pid for pid in every if pid != os.getpid() and _marked(pid, run_dir)]
        if not found:
            return
        _kill(found)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _end(children: list[int]) -> None:
    _kill(children)
    for pid in children:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _children() -> Iterator[int]:
    for thread in os.listdir("/proc/self/task"):
        yield from map(int, _read(f"self/task/{thread}/children").split())


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _marked(pid: int, run_dir: Path) -> bool:
    return f"{MARK}={run_dir}".encode() in _read(f"{pid}/environ").split(b"\0")


def _read(path: str) -> bytes:
    try:
        return Path("/proc", path).read_bytes()
    except OSError:
        return b""
