"""tasks: what the launcher remembers of a slot, and of the recovery of each death."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from launcher.process import Process
from launcher.quarantine import Box
from ukernel.abi import syscalls
from ukernel.abi.manifest import Server
from ukernel.abi.syscalls import Control, Grant
from ukernel.abi.tally import Callee, Waiting


@dataclass
class Stages:
    """The recovery of one death: CLOCK_MONOTONIC nanoseconds of each stage, 0: not reached."""

    server: str
    life: int  # the one that died
    status: int
    cause: str = ""  # in words: "killed by SIGKILL", "hung: ..."
    killed_ns: int = 0  # the signal was sent, when it was ours
    detected_ns: int = 0  # Linux has told us of the death, or we have found it hung
    dead_ns: int = 0  # reaped: certainly dead
    spawned_ns: int = 0  # the next life has a process
    hello_ns: int = 0
    ready_ns: int = 0
    serving_ns: int = 0  # its first good reply passed the kernel

    @property
    def outage_ms(self) -> float:
        """From the signal (or from the death, when it was not ours) to the next good reply."""
        return (self.serving_ns - (self.killed_ns or self.dead_ns)) / 1e6


def _none() -> AbstractContextManager[Sequence[tuple[str, int]]]:
    return nullcontext(())


@dataclass
class Task:
    """The launcher's view of a slot."""

    name: str
    module: str
    grants: list[Grant]
    token: bytes  # the task capability
    control: Control
    box: Box
    spec: Server | None = None
    company: list[Task] = field(default_factory=list)  # who shares its process, if anybody does
    policy: Server | None = None  # of the process, when it is shared
    process: Process | None = None
    life: int = 0
    state: str = syscalls.NEW
    restarts: int = 0
    killed_ns: int = 0  # when we sent what it dies of
    meddled: bool = False  # somebody has sent this life a signal: what it does then proves nothing
    blame: str = ""  # why we killed it; empty: an experiment's or a person's signal, or not we
    argv: list[str] = field(default_factory=list)
    stdio: tuple[int, int, int] | None = None  # of a command: it runs once, whatever its end
    directory: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    cables: Callable[[], AbstractContextManager[Sequence[tuple[str, int]]]] = _none
    """Descriptors for one life of the machine, see `launcher.cables`."""
    line: int = -1  # control socket of the prepared life, when that has no process yet
    spare: Process | None = None  # the prepared life's process
    mischief: str = ""  # how its lives are to misbehave
    doomed: int = 0  # so many of its next lives die in init
    understudy: str = ""  # the module that plays its next life, once
    stages: Stages | None = None
    status: int | None = None  # of the last process that ended

    @property
    def housemates(self) -> list[Task]:
        """All tasks of its process, itself too, in start order."""
        return self.company or [self]

    @property
    def waiting(self) -> Waiting | None:
        """The wait that it tells of, and the kernel does not: `callee` by the name of its slot. A
        wait for somebody whom it may not call is none."""
        told = self.box.tally.waiting()
        if told is None:
            return None
        known = {t.name: t.name for t in self.company} | {g.name: g.object for g in self.grants}
        name = known.get(told.callee.name)
        return told._replace(callee=Callee(name, told.callee.badge)) if name else None

    @property
    def lead(self) -> Task:
        """The task whose name its process has for the supervisor."""
        return self.housemates[0]

    @property
    def terms(self) -> Server | None:
        """By what its process is run: its own entry of the file, or what all agree on."""
        return self.policy or self.spec
