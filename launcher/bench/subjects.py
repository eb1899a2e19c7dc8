"""subjects: what `ukernel bench recovery` kills, ours and others', by one contract.

A subject is a server that something brings back, and a client of it that calls without a pause
while it is told to. `prepared` says whether all is as it was before the last kill, `kill` ends
the server and says when, `recovered` says whether the next life has answered.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.bench import lone_keeper
from launcher.bench.outages import Call, Sample, first_after, first_of_another
from launcher.system import System
from launcher.tasks import Stages, Task
from ukernel.abi.syscalls import READY

OURS = ("standby", "zygote", "cold")
LONE = ("subprocess", "supervisord")
PYPI = {"supervisord": "supervisor"}  # who is not part of Python: the name of the package
CHUNK = 64 * 1024


def slot(name: str) -> str:
    """The server of one of ours, as `recovery.yaml` calls it."""
    return f"echo-{name}"


class Line:
    """This end of a caller: its stdin, and what it has said since it last began."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        stdin, self._tell = os.pipe()
        self._hear, stdout = os.pipe()
        self.theirs = (stdin, stdout)
        self.said: dict[str, Any] = {}
        self.ended = False
        self._text = b""
        self._selector = selector
        selector.register(self._hear, selectors.EVENT_READ, self._listen)

    def started(self) -> None:
        """The caller has its ends: without ours, it comes to the end of its stdin."""
        for fd in self.theirs:
            os.close(fd)

    def begin(self, good: int) -> None:
        """Let it call, and say so when `good` calls were answered."""
        self.said = {}
        os.write(self._tell, b"%d" % good)

    def finish(self) -> None:
        os.write(self._tell, b"0")

    def _listen(self) -> None:
        chunk = os.read(self._hear, CHUNK)
        if not chunk:
            self._leave()
        *lines, self._text = (self._text + chunk).split(b"\n")
        for line in lines:
            self.said.update(json.loads(line))

    def _leave(self) -> None:
        if not self.ended:
            self._selector.unregister(self._hear)
        self.ended = True

    def close(self) -> None:
        self._leave()
        os.close(self._tell)
        os.close(self._hear)


class Subject(ABC):
    """A server and its caller."""

    def __init__(self, name: str, line: Line) -> None:
        self.name = name
        self.line = line

    @abstractmethod
    def prepared(self) -> bool: ...

    @abstractmethod
    def kill(self) -> None: ...

    @abstractmethod
    def recovered(self) -> bool: ...

    @abstractmethod
    def sample(self, calls: list[Call]) -> Sample:
        """The outage that these calls saw."""


class Ours(Subject):
    """A server of the system. The kernel knows when its next life has answered."""

    def __init__(self, system: System, name: str, line: Line) -> None:
        super().__init__(name, line)
        self._system = system
        self._task = system.tasks[slot(name)]
        self._before: Stages | None = None  # of the kill before

    def prepared(self) -> bool:
        """The next life has what it is to have in advance: a line, an embryo, a process."""
        task = self._task
        if task.state != READY or not embryo_waits(self._system):
            return False
        if self.name == "standby":
            return task.spare is not None and _waits(task.spare.pid, task.name)
        return task.line >= 0

    def kill(self) -> None:
        self._before = self._task.stages
        self._system.signal(self._task.name, signal.SIGKILL)

    def recovered(self) -> bool:
        stages = self._task.stages
        return stages is not None and stages is not self._before and stages.serving_ns > 0

    def sample(self, calls: list[Call]) -> Sample:
        """The kernel passed on the first answer of the next life at `serving_ns`. The client had
        by then had whatever the last life answered, for it makes one call at a time."""
        stages = self._task.stages
        assert stages is not None
        ended_ns = first_after(calls, stages.serving_ns)
        return Sample(stages.killed_ns, ended_ns, stages)


class Lone(Subject):
    """A server on its own, and what keeps it alive. Its echoes say which process they are of."""

    def __init__(self, name: str, line: Line) -> None:
        super().__init__(name, line)
        self._killed_ns = self._pid = 0

    def prepared(self) -> bool:
        return True  # whoever is connected can be killed: nothing is done in advance

    def kill(self) -> None:
        self._pid = self.line.said["under_way"]
        server = os.pidfd_open(self._pid)
        self._killed_ns = time.monotonic_ns()
        signal.pidfd_send_signal(server, signal.SIGKILL)
        os.close(server)

    def recovered(self) -> bool:
        return "another" in self.line.said

    def sample(self, calls: list[Call]) -> Sample:
        return Sample(self._killed_ns, first_of_another(calls, self._pid))


@contextlib.contextmanager
def ours(system: System, name: str) -> Iterator[Subject]:
    """A server of the system, and a client of it."""
    line = Line(system.selector)
    task = system.run_task("client", ["task", slot(name)], (*line.theirs, 2))
    line.started()
    try:
        yield Ours(system, name, line)
    finally:
        line.close()
        _end(task)


def _end(task: Task) -> None:
    """It may be in the middle of a call; the system buries it as it goes down."""
    if task.process is not None:
        task.process.send(signal.SIGKILL)


@contextlib.contextmanager
def lone(system: System, name: str) -> Iterator[Subject]:
    """A keeper, its server and a client of that: processes of nobody's system."""
    folder = system.run.path / name
    folder.mkdir()
    address = str(folder / "echo")
    what = str(_config(folder, address)) if name == "supervisord" else address
    line = Line(system.selector)
    keeper = ["launcher.bench.lone_keeper", name, what]
    caller = ["launcher.bench.caller", "lone", address]
    with _process(keeper, signal.SIGTERM), _process(caller, signal.SIGKILL, *line.theirs):
        line.started()
        try:
            yield Lone(name, line)
        finally:
            line.close()


def absent(name: str) -> str:
    """Why a subject cannot be measured here, and what to do about it; empty when it can."""
    package = PYPI.get(name)
    if package is None or importlib.util.find_spec(package):
        return ""
    return f"not installed: pip install {package}, or ukernel[bench]"


def _config(folder: Path, address: str) -> Path:
    """What supervisord is to keep alive. No server of its own; a start is a success at once."""
    command = " ".join(lone_keeper.command(address)).replace("%", "%%")
    config = folder / "supervisord.conf"
    config.write_text(
        f"""[supervisord]
logfile={folder}/supervisord.log
logfile_maxbytes=0
pidfile={folder}/supervisord.pid
childlogdir={folder}
minfds=64
minprocs=16

[program:echo]
command={command}
autorestart=true
startsecs=0
stopsignal=KILL
stdout_logfile=NONE
stderr_logfile=NONE
"""
    )
    return config


@contextlib.contextmanager
def _process(
    argv: list[str], ending: int, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL
) -> Iterator[None]:
    """A Python module as a process, which is ended by a signal at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", *argv], stdin=stdin, stdout=stdout, start_new_session=True
    )
    try:
        yield
    finally:
        process.send_signal(ending)
        process.wait()


def _waits(pid: int, name: str) -> bool:
    """Whether a process that is called so sleeps: a standby says HELLO right after its naming."""
    comm, state = _stat(pid)
    return comm == name and state == "S"


def embryo_waits(system: System) -> bool:
    """An embryo is a child of ours that is still called, in all, what the zygote is called."""
    assert system.zygote is not None
    nest = system.zygote.process.pid
    comm, _ = _stat(nest)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    like = [int(pid) for pid in children if int(pid) != nest and _argv(int(pid)) == _argv(nest)]
    return any(_waits(pid, comm) for pid in like)


def _stat(pid: int) -> tuple[str, str]:
    """Name and state of a process, proc(5); empty ones when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", ""
    name, _, rest = text.partition("(")[2].rpartition(")")
    return name, rest.split()[0]


def _argv(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
