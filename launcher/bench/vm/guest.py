"""guest: a virtual machine of the bench's system: looked at, let run, stopped, killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

from launcher.asks import Ask, called
from launcher.bench.subjects import embryo_waits
from launcher.system import System
from launcher.tasks import Stages
from ukernel.abi.errors import CallError
from ukernel.abi.syscalls import READY
from ukernel.abi.vm import (
    FAILED,
    HALTED,
    OUTPUT_BYTES,
    RUNNING,
    ExitCount,
    Moments,
    VirtualMachine,
    VmStatus,
)

PATIENCE_S = 30.0
EVENT_S, LOOK_S = 0.5, 0.005  # between two looks: at what comes as an event, and at what does not


class NoResult(Exception):
    """A visit came to none; the text says what did not happen."""


class Guest:
    """It and its monitor. Everything here raises NoResult when it does not come to its end."""

    def __init__(self, system: System, name: str) -> None:
        self.system, self.name = system, name
        self.task = system.tasks[name]
        self._seen = 0  # of its console

    def status(self) -> VmStatus:
        told = self._asked("status")
        exits = [ExitCount(**each) for each in told["exits"]]
        return VmStatus(**{**told, "exits": exits, "moments": Moments(**told["moments"])})

    def can_run(self) -> None:
        """Its engine can be had, and its program is one."""
        if self.status().state == FAILED:
            said = self.system.run.log(self.name).read_text(errors="replace").strip().splitlines()
            raise NoResult(f"{self.name} cannot run: {said[-1] if said else 'it says nothing'}")

    def stand(self) -> None:
        """Its processor and clock."""
        if self.status().state == RUNNING:
            self._asked("pause")

    def run(self) -> None:
        self._asked("resume")

    def halted(self) -> VmStatus:
        """Wait until it has switched itself off."""
        found: list[VmStatus] = []

        def over() -> bool:
            found[:] = [self.status()]
            return found[0].state == HALTED

        self.until(over, "has not switched itself off", LOOK_S)
        return found[0]

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.system.pump(left)

    # --- the console ----------------------------------------------------------------------------

    def past(self) -> int:
        """The position of what it will show next. What it has shown so far is left out."""
        at = self._seen
        while True:
            begun, data = self._output(max(0, at - 1))  # of what there is: nobody waits for that
            at = begun + len(data)
            if len(data) < OUTPUT_BYTES:
                self._seen = at
                return at

    def shown(self, at: int, enough: Callable[[str], bool]) -> str:
        """What it shows from a position on, until that is enough."""
        text, deadline = "", time.monotonic() + PATIENCE_S
        while not enough(text):
            if time.monotonic() > deadline:
                raise NoResult(f"{self.name} has shown {text[-80:]!r}, and no more")
            begun, data = self._output(at)
            text += data.decode(errors="replace")
            self._seen = at = begun + len(data)
        return text

    def _output(self, at: int) -> tuple[int, bytes]:
        told = self._asked("output", at)
        return told["at"], bytes.fromhex(told["data"])

    def _asked(self, operation: str, *args: int) -> Any:
        """What its monitor answers, as JSON has it. All else goes on meanwhile."""
        what = called(self.name, VirtualMachine, operation)
        ask = Ask(self.system, what, list(args), PATIENCE_S)
        try:
            while (told := ask.outcome()) is None:
                self.system.pump(EVENT_S)
        except CallError as error:
            raise NoResult(f"{self.name}, {operation}: {error}") from None
        if "answer" in told:
            raise NoResult(f"{self.name}, {operation}: {told['text']}")
        return told["result"]

    # --- lives ----------------------------------------------------------------------------------

    def kill(self, meanwhile: Callable[[Guest], None] = lambda guest: None) -> Stages:
        """Its monitor, when all is there that helps the next life; return when that is ready.
        `meanwhile` is called when it has a process again."""
        self.until(self._prepared, "its next life was not made ready", LOOK_S)
        before = self.task.stages
        self.system.signal(self.name, signal.SIGKILL)

        def spawned() -> bool:
            stages = self.task.stages
            return stages is not None and stages is not before and stages.spawned_ns > 0

        def back() -> bool:
            return self.task.state == READY

        self.until(spawned, "it did not get another process")
        meanwhile(self)
        self.until(back, "its next life did not become ready")
        assert self.task.stages is not None
        return self.task.stages

    def _prepared(self) -> bool:
        return self.task.state == READY and self.task.line >= 0 and embryo_waits(self.system)

    def until(self, happened: Callable[[], bool], otherwise: str, look_s: float = EVENT_S) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            if time.monotonic() > deadline:
                raise NoResult(f"{self.name}: {otherwise} in {PATIENCE_S:g} s")
            self.system.pump(look_s)
