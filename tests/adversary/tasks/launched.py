"""launched: a launcher to be killed or paused. Prints who is in its system, then watches it.

For each line that it reads, a number of seconds, it prints what there is to tell after that time.
"""

from __future__ import annotations

import json
import selectors
import sys
import time

from launcher.config import load
from launcher.system import System
from tests.adversary.tasks.mortal import Mortal
from tests.adversary.world import World


def main() -> None:
    path, name = sys.argv[1:]
    system = System(load(path), name=name)
    world = World(system)
    assert system.zygote is not None
    pids = {task.name: task.process.pid for task in system.tasks.values() if task.process}
    pids |= {"kernel": world.kernel_pid, "zygote": system.zygote.process.pid}
    pids["orphan"] = world.intrude().stub(Mortal, "mortal").fork(0)
    print(json.dumps(pids), flush=True)
    asked: list[str] = []
    system.selector.register(
        sys.stdin, selectors.EVENT_READ, lambda: asked.append(sys.stdin.readline())
    )
    while "" not in asked:
        system.pump(60)
        while asked and asked[0]:
            _let_pass(system, float(asked.pop(0)))
            lives = {slot: row.life for slot, row in system.slots().items()}
            print(json.dumps({"lives": lives, "events": world.events}), flush=True)
    world.close()


def _let_pass(system: System, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left_s := end - time.monotonic()) > 0:
        system.pump(left_s)


if __name__ == "__main__":
    main()
