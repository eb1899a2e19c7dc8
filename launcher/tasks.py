"""tasks: what the launcher remembers of a slot, and of the recovery of each death."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from launcher.process import Process
from launcher.quarantine import Box
from ukernel.abi import syscalls
from ukernel.abi.manifest import Server
from ukernel.abi.syscalls import Control, Grant


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
    line: int = -1  # control socket of the prepared life, when that has no process yet
    spare: Process | None = None  # the prepared life's process
    mischief: str = ""  # how its lives are to misbehave
    doomed: int = 0  # so many of its next lives die in init
    understudy: str = ""  # the module that plays its next life, once
    stages: Stages | None = None
    status: int | None = None  # of the last process that ended
