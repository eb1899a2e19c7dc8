"""cold: a task's process without a zygote: a fresh interpreter, as `python -m MODULE` starts it."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Mapping

from launcher.spawn import Spawn, told

LINES = 3  # where it finds its control sockets and recorders: from here on
PROGRAM = (
    "import runpy, sys; path, module = sys.argv[1:3]; sys.argv[:3] = [module]; "
    "sys.path.append(path); runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def spawn(
    what: Spawn, fds: list[int], stdio: tuple[int, int, int], path: str, mark: Mapping[str, str]
) -> int:
    """Start it with `fds` (control socket and recorder of each task, then what it is given) and
    `stdio`; its pid, a child of this process. `path` is last on its module path, `mark` goes into
    its environment."""
    places = range(LINES + len(fds))
    # From above: there, no copy is in the place of another that is still to be made.
    above = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(places)) for fd in (*stdio, *fds)]
    moves = [(os.POSIX_SPAWN_DUP2, fd, place) for fd, place in zip(above, places, strict=True)]
    argv = [sys.executable, "-c", PROGRAM, path, what.module, *what.argv]
    environment = {**os.environ, **mark, **told(what, list(places[LINES:]))}
    try:
        return os.posix_spawn(sys.executable, argv, environment, file_actions=moves, setsid=True)
    finally:
        for fd in above:
            os.close(fd)
