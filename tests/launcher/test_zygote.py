"""A start finds an embryo, waiting or dead, and hands no task the lines of another."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.bench.recovery import SYSTEM_FILE
from launcher.config import load
from launcher.system import System
from launcher.tasks import Task
from tests.conftest import TIMEOUT_S
from ukernel.abi.syscalls import READY

LOOK_S = 0.01  # between two looks at what comes without an event


@pytest.fixture
def system(runtime_dir: Path) -> Iterator[System]:
    """An echo server of each kind: with a standby, from the zygote, and started cold."""
    with System(load(SYSTEM_FILE), name="zygote-test") as booted:
        booted.boot()
        yield booted


def until(system: System, happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        system.pump(LOOK_S)


def restarted(system: System, task: Task) -> None:
    life = task.life
    system.signal(task.name, signal.SIGKILL)
    until(system, lambda: task.life > life and task.state == READY)


def embryos(system: System) -> list[int]:
    """Our children that are called what the zygote is called: no task's yet, nor dead."""
    assert system.zygote is not None
    zygote = system.zygote.process.pid
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    same = [pid for pid in map(int, children) if said(pid, "cmdline") == said(zygote, "cmdline")]
    return [pid for pid in same if pid != zygote and said(pid, "comm") == said(zygote, "comm")]


def said(pid: int, what: str) -> str:
    return Path(f"/proc/{pid}/{what}").read_text()


def test_a_start_takes_the_embryo_that_waits_and_another_follows(system: System) -> None:
    task = system.tasks["echo-zygote"]
    until(system, lambda: embryos(system) and task.line >= 0)
    (waiting,) = embryos(system)
    restarted(system, task)
    assert task.process is not None
    assert task.process.pid == waiting
    until(system, lambda: embryos(system))
    assert waiting not in embryos(system)


def test_an_embryo_that_was_killed_is_replaced_and_reaped(system: System) -> None:
    task = system.tasks["echo-zygote"]
    until(system, lambda: embryos(system))
    (dead,) = embryos(system)
    fd = os.pidfd_open(dead)
    os.kill(dead, signal.SIGKILL)
    os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOWAIT)
    os.close(fd)
    restarted(system, task)
    assert task.process is not None
    assert task.process.pid != dead
    with pytest.raises(ChildProcessError):
        os.waitpid(dead, os.WNOHANG)


def test_a_cold_start_inherits_no_line_of_another_task(system: System) -> None:
    """The control socket of a prepared life brings that life's secret."""
    cold, other = system.tasks["echo-cold"], system.tasks["echo-zygote"]
    until(system, lambda: other.line >= 0 and embryos(system))
    restarted(system, cold)
    assert cold.process is not None
    inherited = Path(f"/proc/{cold.process.pid}/fd")
    theirs = {os.readlink(fd) for fd in inherited.iterdir()}
    ours = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if is_open(fd)}
    shared = {what for what in theirs & ours if what.startswith("socket:")}
    assert os.readlink(f"/proc/self/fd/{other.line}") not in theirs
    assert shared == set()


def is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")
