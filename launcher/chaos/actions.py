"""actions: how each injection of a plan is carried out on a running system.

An action is a generator: it yields the seconds until it wants to go on, lands when its fault has
really happened, heals what it can take back, and ends when what it did to anybody is over. Nothing
is forced: who is to be killed while it is being repaired is killed when it is READY again.
"""

from __future__ import annotations

from collections.abc import Callable

from launcher.chaos import deaths, disturbances
from launcher.chaos.injecting import Injecting, Script
from launcher.chaos.stage import Stage

ACTIONS: dict[str, Callable[[Stage, Injecting], Script]] = {
    "kill": deaths.kill,
    "kill_together": deaths.kill,
    "hang": deaths.misbehave,
    "exit": deaths.misbehave,
    "leak": deaths.misbehave,
    "crash_init": deaths.crash_init,
    "dma_abuse": deaths.dma_abuse,
    "powercut": deaths.powercut,
    "pause": disturbances.pause,
    "swizzle": disturbances.swizzle,
    "message": disturbances.message,
    "device": disturbances.device,
}


def performer(stage: Stage) -> Callable[[Injecting], Script]:
    """Who carries injections out on this stage."""
    return lambda injecting: ACTIONS[injecting.planned.action](stage, injecting)
