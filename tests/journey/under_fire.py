"""under_fire: messages through a channel while the server is killed again and again.

    python -m tests.journey.under_fire 1000000

None may be lost without being reported, and none done twice that must not be.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from launcher.config import load
from launcher.system import System
from tests.journey.world import Pipes

SYSTEM = """
system: under-fire
servers:
  clerk:
    run: tests.journey.tasks.clerk
    serves: "tests.journey.tasks.clerk:Clerk"
    state: persistent
    memory: 256MiB
    args: {dies_once_in: 2000}
    restart: {max_restarts: 100000, within_s: 1, backoff: {first_ms: 0}}
  salvo:
    run: tests.journey.tasks.salvo
    calls: [{clerk: {via: VIA}}]
    start: demand
"""
REST_S = 0.3  # between two kills at most


def under_fire(folder: Path, messages: int, seed: int, via: str = "channel") -> dict[str, Any]:
    """What the client found, and how often the server was killed meanwhile."""
    path = folder / "system.yaml"
    path.write_text(SYSTEM.replace("VIA", via))
    rng, kills = random.Random(seed), 0
    with System(load(path)) as system:
        system.boot()
        salvo = Pipes(system, "salvo", [str(messages), str(seed)])
        while salvo.task.process is not None:
            _let_pass(system, rng.uniform(0, REST_S))
            if system.task("clerk").process is not None and salvo.task.process is not None:
                system.signal("clerk", signal.SIGKILL)
                kills += 1
        found: dict[str, Any] = json.loads(salvo.hear())
        salvo.close()
    return found | {"kills": kills}


def _let_pass(system: System, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left_s := end - time.monotonic()) > 0:
        system.pump(left_s)


def main() -> None:
    messages, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        found = under_fire(Path(folder), messages, seed)
        print(json.dumps(found | {"seconds": round(time.monotonic() - begun, 1)}))


if __name__ == "__main__":
    main()
