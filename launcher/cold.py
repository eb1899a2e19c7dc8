"""cold: a task's process without a zygote: a fresh interpreter, as `python -m MODULE` starts it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from launcher.spawn import Spawn, told

CONTROL_FD, RECORDER_FD = 3, 4  # where it finds them
PROGRAM = (
    "import runpy, sys; path, module = sys.argv[1:3]; sys.argv[:3] = [module]; "
    "sys.path.append(path); runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def spawn(
    what: Spawn, fds: list[int], stdio: tuple[int, int, int], path: str, mark: Mapping[str, str]
) -> int:
    """Start it with `fds` (control socket, recorder) and `stdio`; its pid, a child of this
    process. `path` is last on its module path, `mark` goes into its environment."""
    places = (0, 1, 2, CONTROL_FD, RECORDER_FD)
    moves = [
        (os.POSIX_SPAWN_DUP2, fd, place) for fd, place in zip([*stdio, *fds], places, strict=True)
    ]
    argv = [sys.executable, "-c", PROGRAM, path, what.module, *what.argv]
    environment = {**os.environ, **mark, **told(what.task, CONTROL_FD, RECORDER_FD)}
    return os.posix_spawn(sys.executable, argv, environment, file_actions=moves, setsid=True)
