"""launched: a launcher to be killed. Prints who is in its system, then watches it for ever."""

from __future__ import annotations

import json
import sys

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
    while True:
        system.pump(60)


if __name__ == "__main__":
    main()
