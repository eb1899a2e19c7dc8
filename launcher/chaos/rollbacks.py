"""rollbacks: put right what scripts that were cut short have left, before the system is looked at.

Every script takes its own fault back; most runs find nothing to do here.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable

from launcher.board import MACHINE
from launcher.chaos.stage import NotSettled, Stage
from ukernel.abi.errors import CallError
from ukernel.abi.faults import DeviceFaults, Interposer

TRIES = 5  # of who is busy


def roll_back(stage: Stage, names: Iterable[str]) -> None:
    """Do what the experiment names. Raises NotSettled."""
    for name in names:
        ROLLBACKS[name](stage)


def resume_all(stage: Stage) -> None:
    """Let every process go on."""
    for task in stage.booted():
        if task.process is not None:
            task.process.send(signal.SIGCONT)


def clear_faults(stage: Stage) -> None:
    """Mend all devices and links; no further life is broken from its begin."""
    for task in stage.booted():
        task.doomed, task.understudy = 0, ""
    if MACHINE in stage.system.tasks:
        _insist(MACHINE, stage.system.reach(DeviceFaults, MACHINE).mend)
    for name in stage.through.values():
        if stage.is_ready(name):  # who is about to start breaks nothing yet
            _insist(name, stage.system.reach(Interposer, name).pass_all)


def _insist(name: str, end_faults: Callable[[], None]) -> None:
    for _ in range(TRIES):
        try:
            end_faults()
        except CallError as error:
            why = str(error)
        else:
            return
    raise NotSettled(f"{name} does not end its faults: {why}")


ROLLBACKS: dict[str, Callable[[Stage], None]] = {
    "resume_all": resume_all,
    "clear_faults": clear_faults,
}
