"""deaths: the injections that end lives. Each is over when the lives that it ends are."""

from __future__ import annotations

import signal
from typing import NamedTuple

from launcher import heartbeat
from launcher.board import MACHINE
from launcher.chaos.injecting import Injecting, Script
from launcher.chaos.stage import Stage
from launcher.chaos.targets import LOOK_S, by_status, gone, in_words, ready, strike
from launcher.tasks import Stages
from ukernel.abi.exits import OUT_OF_MEMORY
from ukernel.lib import mischief

ROGUE = "servers.rogue"  # a driver that points its device at memory that is not its own


def kill(stage: Stage, i: Injecting) -> Script:
    name = i.planned.params.get("signal", "KILL")
    tasks = yield from ready(stage, i.planned.targets, held=name == "KILL")
    for task in tasks:
        strike(stage, i, task)
        stage.system.signal(task.name, signal.Signals[f"SIG{name}"])
    yield from gone(stage, i, by_status)


class Way(NamedTuple):
    """What a process does to itself when it gets a signal, and how its life ends of that."""

    signo: int
    reasons: tuple[str, ...]  # how the launcher's reason for killing it begins, or
    status: int | None = None  # with which it leaves by itself

    def ends(self, death: Stages) -> bool:
        return death.status == self.status or death.cause.startswith(self.reasons)


WAYS = {
    "hang": Way(mischief.SPIN, (*heartbeat.STUCK, "is gone, or")),  # whoever notices first
    "exit": Way(mischief.LEAVE, (), 0),
    "leak": Way(mischief.LEAK, ("has ",), OUT_OF_MEMORY),
}


def misbehave(stage: Stage, i: Injecting) -> Script:
    way = WAYS[i.planned.action]
    (task,) = yield from ready(stage, i.planned.targets)
    life = strike(stage, i, task)
    stage.system.signal(task.name, way.signo)
    yield from gone(stage, i)
    if (death := stage.death(life)) is not None and not way.ends(death):
        i.miss(f"it ended otherwise: {in_words(death)}")


def crash_init(stage: Stage, i: Injecting) -> Script:
    (task,) = yield from ready(stage, i.planned.targets, alone=True)
    task.doomed = times = i.planned.params["times"]
    name, number = life = strike(stage, i, task)
    i.ends.update({(name, number + n): 0 for n in range(1, times + 1)})
    stage.system.signal(name, signal.SIGKILL)
    while not stage.is_over(name) and not stage.is_past((name, number + times)):
        yield LOOK_S
    died, task.doomed = times - task.doomed, 0
    i.detail = f"{by_status(stage.death(life))}; {died} of {times} lives after it died in init"
    if not died:
        i.miss("no life came after it")


def dma_abuse(stage: Stage, i: Injecting) -> Script:
    (task,) = yield from ready(stage, i.planned.targets, alone=True)
    before, refused = stage.rules_broken(task.name), 0
    name, number = life = stage.life(task)
    rogue = name, number + 1
    i.meet(life)
    i.ends[rogue] = 0
    stage.struck |= {life, rogue}
    task.understudy = ROGUE
    stage.system.signal(name, signal.SIGKILL)
    i.detail = "no access outside its grant was refused"
    while not stage.is_over(name) and not stage.is_past(rogue):
        yield LOOK_S
        if refused := stage.rules_broken(name) - before:
            i.land(f"{refused} accesses outside its grant were refused")


def powercut(stage: Stage, i: Injecting) -> Script:
    (machine,) = yield from ready(stage, (MACHINE,))
    strike(stage, i, machine)
    stage.system.signal(MACHINE, signal.SIGKILL)
    while True:  # until the system has been booted again
        yield LOOK_S
