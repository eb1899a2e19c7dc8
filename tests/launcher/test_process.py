"""process: where a child of the launcher may run, and that asking too much harms nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from launcher.process import Process

PROGRAM = """
import sys, threading
threading.Thread(target=sys.stdin.read, daemon=True).start()
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child() -> Iterator[Process]:
    """It has two threads, and ends when it is killed."""
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        assert popen.stdout is not None
        popen.stdout.readline()
        made = Process(popen.pid)
        yield made
        os.close(made.fd)
        popen.kill()


def threads(process: Process) -> list[int]:
    found = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]
    assert len(found) > 1
    return found


def test_all_threads_keep_to_their_cores(child: Process) -> None:
    core = max(os.sched_getaffinity(0))
    child.schedule([core], None)
    assert [os.sched_getaffinity(thread) for thread in threads(child)] == [{core}] * 2
    assert os.sched_getscheduler(child.pid) == os.SCHED_OTHER


def test_without_cores_they_stay_where_they_are(child: Process) -> None:
    before, own = os.sched_getaffinity(child.pid), os.sched_getscheduler(0)
    child.schedule([], 255)
    assert [os.sched_getaffinity(thread) for thread in threads(child)] == [before] * 2
    assert os.sched_getscheduler(0) == own  # and nobody else is scheduled


@pytest.mark.parametrize("priority", [0, 100, 255])
def test_real_time_is_for_all_threads_or_refused(child: Process, priority: int) -> None:
    child.schedule([], priority)
    for thread in threads(child):
        if os.sched_getscheduler(thread) == os.SCHED_FIFO:  # else this host does not allow it
            level = os.sched_getparam(thread).sched_priority
            assert level == max(1, priority * os.sched_get_priority_max(os.SCHED_FIFO) // 256)


def test_cores_that_there_are_not_change_nothing(child: Process) -> None:
    before = os.sched_getaffinity(child.pid)
    assert child.schedule([1 << 14], None).startswith("cores and policy stay as they are: ")
    assert os.sched_getaffinity(child.pid) == before


def test_the_dead_are_not_scheduled(child: Process) -> None:
    child.send(9)
    os.waitid(os.P_PIDFD, child.fd, os.WEXITED | os.WNOWAIT)
    child.schedule([0], 100)
