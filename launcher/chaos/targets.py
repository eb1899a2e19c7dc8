"""targets: when something may be done to a server, by which life of it, and what came of that."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator

from launcher.chaos.injecting import Injecting, Life, OutOfReach, Script
from launcher.chaos.stage import Stage
from launcher.process import describe
from launcher.tasks import Stages, Task
from ukernel.abi.exits import OUT_OF_MEMORY

AGAIN_S = 0.002  # between two looks at whether a target is READY
LOOK_S = 0.02  # between two looks at what became of a fault
FULL = "met its memory limit"


Words = Callable[[Stages | None], str]


def in_words(death: Stages | None) -> str:
    """How a life ended, and why if it was killed."""
    return by_status(death) if death is None or death.status >= 0 else death.cause


def by_status(death: Stages | None) -> str:
    """How Linux says that a life ended, whatever the launcher was about to do to it."""
    if death is None:
        return "it ended"
    return FULL if death.status == OUT_OF_MEMORY else describe(death.status)


def ready(
    stage: Stage, names: tuple[str, ...], *, held: bool = False, alone: bool = False
) -> Generator[float, None, list[Task]]:
    """Wait until all of these are READY, and nothing lethal is being done to them.

    `held`: even while they are suspended; `alone`: with no next life that stands by. Raises
    OutOfReach when one of them does not come back by itself.
    """
    while True:
        if gone := [name for name in names if stage.is_over(name)]:
            raise OutOfReach(f"{', '.join(gone)} had been given up, or stopped")
        tasks = [stage.task(name) for name in names]
        if all(_is_free(stage, task, held) for task in tasks):
            standbys = [task.spare for task in tasks if task.spare is not None]
            if not (alone and standbys):
                return tasks
            for standby in standbys:
                standby.send(signal.SIGKILL)  # the next one comes much later than we go on
        yield AGAIN_S


def _is_free(stage: Stage, task: Task, held: bool) -> bool:
    life = stage.life(task)
    return (
        stage.is_ready(task.name) and life not in stage.struck and (held or life not in stage.held)
    )


def strike(stage: Stage, injecting: Injecting, task: Task) -> Life:
    """It happens now, and this life ends of it, sooner or later."""
    life = stage.life(task)
    injecting.land()
    injecting.meet(life)
    stage.struck.add(life)
    return life


def gone(stage: Stage, injecting: Injecting, words: Words = in_words) -> Script:
    """Wait until every life that met it is over, and say how they ended."""
    while not all(stage.is_past(life) for life in injecting.ends):
        yield LOOK_S
    ends = {life[0]: words(stage.death(life)) for life in injecting.ends}
    told = [f"{name}: {end}" if len(ends) > 1 else end for name, end in ends.items()]
    injecting.detail = "; ".join(told)
