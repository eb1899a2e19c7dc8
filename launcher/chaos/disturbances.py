"""disturbances: the injections that last for a while and are taken back.

A script that is cut short lets go of the processes that it holds. What it has told the machine or
an interposer goes with the power, or is for the experiment's rollbacks.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import TypeVar

from launcher.board import MACHINE
from launcher.chaos.injecting import Injecting, Life, Script
from launcher.chaos.stage import Stage
from launcher.chaos.targets import LOOK_S, in_words, ready
from launcher.tasks import Task
from ukernel.abi.errors import CallError
from ukernel.abi.faults import DeviceFaults, Interposer, Landed

T = TypeVar("T")

COUNT_S = 0.1  # between two looks at how often a disturbance was met, once it was
HEARD_S = 1.0  # for who was suspended to say something


class Hold:
    """A life that is suspended, until it is released."""

    def __init__(self, stage: Stage, injecting: Injecting, task: Task) -> None:
        assert task.process is not None
        self._stage, self._process, self._life = stage, task.process, stage.life(task)
        self._held = True
        stage.held.add(self._life)
        stage.system.signal(task.name, signal.SIGSTOP)
        injecting.land()
        injecting.meet(self._life)

    def release(self) -> None:
        """Let it go on, if it is still there. Once is enough."""
        if self._held:
            self._held = False
            self._stage.held.discard(self._life)
            if self._process.status is None:
                self._process.send(signal.SIGCONT)


def pause(stage: Stage, i: Injecting) -> Script:
    with ExitStack() as holds:
        (task,) = yield from ready(stage, i.planned.targets)
        holds.callback(Hold(stage, i, task).release)
        yield i.planned.params["for_s"]
    yield from _awake(stage, i)


def swizzle(stage: Stage, i: Injecting) -> Script:
    step_s, holds = i.planned.params["step_s"], {}
    with ExitStack() as every:
        for name in i.planned.targets:
            (task,) = yield from ready(stage, (name,))
            holds[name] = Hold(stage, i, task)
            every.callback(holds[name].release)
            yield step_s
        for name in i.planned.params["release"]:
            holds[name].release()
            yield step_s
    yield from _awake(stage, i)


def _awake(stage: Stage, i: Injecting) -> Script:
    """Wait until those that were suspended are heard again, or gone: taken for hung, perhaps.
    Who outlives it does not end of it, whenever that is."""
    i.heal()
    ended = []
    for life in list(i.ends):
        while not (past := stage.is_past(life)) and not _is_heard(stage, life, i.healed_ns):
            yield LOOK_S
        if past:
            ended.append(f"{life[0]} was replaced ({in_words(stage.death(life))})")
        else:
            del i.ends[life]
    i.detail = "; ".join(ended) or "all went on"


def _is_heard(stage: Stage, life: Life, since_ns: int) -> bool:
    late = time.monotonic_ns() > since_ns + HEARD_S * 1e9  # nobody asks it anything
    return late or stage.system.slots()[life[0]].heard_ns > since_ns


def message(stage: Stage, i: Injecting) -> Script:
    params, (link,) = i.planned.params, i.planned.targets
    fault = params["fault"]
    middle = stage.system.reach(Interposer, stage.middle(link))
    how = params["probability"], params["ms"], params["jitter_ms"], params["seed"]
    with ExitStack() as claims:
        yield from _claim(stage, claims, link, fault)
        yield from _told(lambda: middle.disturb(fault, *how))
        yield from _in_force(i, lambda: times(middle.disturbed(), fault))
        yield from _told(lambda: middle.disturb(fault, 0.0, 0, 0, 0))
    i.heal()


def device(stage: Stage, i: Injecting) -> Script:
    params, (name,) = i.planned.params, i.planned.targets
    fault = params["fault"]
    machine = stage.system.reach(DeviceFaults, MACHINE)
    how = params["requests"], params["probability"], params["seed"]
    with ExitStack() as claims:
        yield from _claim(stage, claims, name, fault)
        before = yield from _told(lambda: times(machine.broken(), fault, name))
        yield from _told(lambda: machine.break_device(name, fault, *how))
        yield from _in_force(i, lambda: times(machine.broken(), fault, name) - before)
        yield from _told(lambda: _mend(stage, machine, name, fault))
    i.heal()


def _claim(stage: Stage, claims: ExitStack, where: str, fault: str) -> Script:
    """Wait until this fault is not in force there: the end of one would be that of the other."""
    while (where, fault) in stage.in_force:
        yield LOOK_S
    stage.in_force.add((where, fault))
    claims.callback(stage.in_force.discard, (where, fault))


def _mend(stage: Stage, machine: DeviceFaults, name: str, fault: str) -> None:
    """End this fault and no other. What is stuck ends with the last of them, or with its driver."""
    hardware = stage.cast.manifest.hardware
    if any(where in hardware for where, _ in stage.in_force - {(name, fault)}):
        machine.break_device(name, fault, 0, 0.0, 0)
    else:
        machine.mend()


def _told(tell: Callable[[], T]) -> Generator[float, None, T]:
    """What it answers. Who is busy, or about to start again, is asked again."""
    while True:
        try:
            return tell()
        except CallError:
            yield LOOK_S


def _in_force(i: Injecting, count: Callable[[], int]) -> Script:
    """Let a disturbance last; it has landed when somebody met it."""
    end_ns = time.monotonic_ns() + int(i.planned.params["for_s"] * 1e9)
    i.detail = "nobody met it"
    while True:
        if met := (yield from _told(count)):
            i.land(f"{i.planned.fault} {met} times")
        left_s = (end_ns - time.monotonic_ns()) / 1e9
        if left_s <= 0:
            return
        yield min(left_s, COUNT_S if i.landed_ns else LOOK_S)


def times(landed: list[Landed], fault: str, where: str = "") -> int:
    """How often it has happened, there or anywhere."""
    return sum(row.times for row in landed if row.fault == fault and where in ("", row.where))
