"""rounds: what is done for all tasks again and again: vitals, logs, sockets in advance."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from launcher import vitals
from launcher.lives import Lives
from launcher.rundir import RunDir
from launcher.supervisor import Round, State
from launcher.tasks import Task
from ukernel.abi.syscalls import SlotRow

ROUND_S = 0.1  # between two

Say = Callable[[str, str, str], None]


class Rounds:
    """One system's. `due_s` is when the next is due, on the clock of `time.monotonic`."""

    def __init__(self, state: State, run: RunDir, say: Say) -> None:
        self.due_s = 0.0
        self._state = state
        self._run = run
        self._say = say
        self._examiner = vitals.Examiner()
        self._cuts: dict[str, int] = {}

    def go(
        self, tasks: Mapping[str, Task], lives: Lives, slots: Callable[[], Mapping[str, SlotRow]]
    ) -> tuple[Round, float]:
        """Look after everybody. What the supervisor is to hear, and when that was, in seconds."""
        now_ns = time.monotonic_ns()  # from here on: what comes later counts in the next round
        found = self._examiner.examine(tasks.values(), slots(), now_ns)
        lives.sweep()
        for name, task in tasks.items():
            if task.lead.name in self._state.children:
                lives.look_ahead(task)
            if size := vitals.trim(self._run.log(name)):
                self._tell_cut(name, size)
        self.due_s = time.monotonic() + ROUND_S
        return Round(vitals.of_processes(tasks.values(), found)), now_ns / 1e9

    def _tell_cut(self, name: str, size: int) -> None:
        """A log was cut. Said at the first time and ever more seldom, or it would be all we say."""
        times = self._cuts[name] = self._cuts.get(name, 0) + 1
        if times & (times - 1) == 0:
            self._say("log", name, f"its log was cut, at {size} bytes ({times}. time)")
