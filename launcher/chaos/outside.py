"""outside: clients that are programs of the host, in the network beyond a card's cable.

To whoever starts and ends it such a client is like a task. It ends with the run, whatever becomes
of that: it dies with the launcher, and what it has started dies with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence

from launcher import cables
from launcher.chaos.experiment import ExperimentFile
from launcher.chaos.workload import Download, Outside
from launcher.process import Process
from launcher.source import ConfigError
from launcher.system import System
from ukernel.abi.manifest import VirtioNet

PROGRAM = "servers.workload.outside"
CURL, NSENTER = "curl", "nsenter"
PACKAGES = {CURL: "curl", NSENTER: "util-linux"}  # of a distribution, by program
Stdio = tuple[int, int, int]


def check_programs(file: ExperimentFile) -> None:
    """Raises ConfigError when the host lacks a program that a client outside needs."""
    problems = [
        file.source.problem(
            ("workload", index, "run"),
            f"workload.run: {client.run} needs {program}, which this host has not: install the"
            f" package {PACKAGES[program]}",
        )
        for index, client in enumerate(file.experiment.workload)
        if isinstance(client, Outside)
        for program in _needed(file, client)
        if shutil.which(program) is None
    ]
    if problems:
        raise ConfigError(problems)


def _needed(file: ExperimentFile, client: Outside) -> Sequence[str]:
    inside = _is_in_namespace(file.system.manifest.hardware, client)
    return [*([CURL] if isinstance(client, Download) else []), *([NSENTER] if inside else [])]


def _is_in_namespace(hardware: object, client: Outside) -> bool:
    assert isinstance(hardware, dict)
    card = hardware[client.device]
    return isinstance(card, VirtioNet) and card.backend == "userns"


class Outsider:
    """Such a client at work. `process` and `status` are as a task has them."""

    def __init__(self, argv: Sequence[str], stdio: Stdio) -> None:
        stdin, stdout, stderr = stdio
        self._popen = subprocess.Popen(
            argv, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
        self._process = Process(self._popen.pid)

    @property
    def process(self) -> Outsider | None:
        """None when it has ended."""
        return self if self.status is None else None

    @property
    def status(self) -> int | None:
        if self._process.is_dead:
            self._bury()
        return self._process.status

    @property
    def pid(self) -> int:
        return self._popen.pid

    def send(self, signo: int) -> None:
        """To it and to all that it has started; nothing happens when it is dead."""
        if self.status is None:
            os.killpg(self.pid, signo)

    def close(self) -> None:
        """End it at once, if it has not ended."""
        self.send(signal.SIGKILL)
        self._bury()

    def _bury(self) -> None:
        """Its number names its group until it is reaped, so nobody else is hit. The launcher, a
        subreaper, inherits what it has left."""
        if self._process.status is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.returncode = self._process.wait()
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-self.pid, 0)


def start(system: System, client: Outside, argv: Sequence[str], stdio: Stdio) -> Outsider:
    """Let it work. Raises LookupError when the card has no namespace any more."""
    words = [sys.executable, "-m", PROGRAM, str(os.getpid()), *argv]
    assert client.device is not None, "a loaded experiment has said which card"
    if _is_in_namespace(system.file.manifest.hardware, client):
        words = cables.inside(cables.holder(system.run.path, client.device), words)
    return Outsider(words, stdio)
