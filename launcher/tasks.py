"""tasks: what the launcher remembers of a slot, and of the recovery of each death."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from launcher.process import Process
from launcher.supervisor import History
from ukernel.abi import syscalls
from ukernel.abi.manifest import Server
from ukernel.abi.syscalls import Control, Grant


@dataclass
class Stages:
    """The recovery of one death: CLOCK_MONOTONIC nanoseconds of each stage, 0: not reached."""

    server: str
    life: int  # the one that died
    status: int
    killed_ns: int = 0  # the signal was sent, when it was ours
    dead_ns: int = 0  # reaped: certainly dead
    spawned_ns: int = 0
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
    spec: Server | None = None
    process: Process | None = None
    life: int = 0
    state: str = syscalls.NEW
    restarts: int = 0
    wanted: bool = False  # an end that nobody asked for is the supervisor's business
    proven: bool = False  # has been READY once: what dies in its very first setup is misconfigured
    killed_ns: int = 0
    argv: list[str] = field(default_factory=list)
    stdio: tuple[int, int, int] | None = None  # of a command: it runs once, whatever its end
    directory: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    history: History = field(default_factory=History)
    stages: Stages | None = None
    status: int | None = None  # of the last process that ended
