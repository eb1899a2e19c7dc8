"""spawn: what a process is to become, and how it takes that on. The same from every beginning."""

from __future__ import annotations

import json
import os
import sys
from typing import NamedTuple

from ukernel.lib import connection

MAX_REQUEST = 64 * 1024
MAX_FDS = 5  # control socket, recorder, standard streams


class Spawn(NamedTuple):
    """What a process is to become."""

    module: str
    task: str  # TaskInfo as JSON
    argv: list[str]
    directory: str = ""  # where relative paths in `argv` start; empty: where the launcher is


def take_on(what: Spawn, fds: list[int]) -> None:
    """Streams, environment, place and arguments of a task, for this process."""
    control, recorder, *stdio = fds
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
        os.close(fd)
    os.environ.update(told(what.task, control, recorder))
    if what.directory:
        os.chdir(what.directory)
    sys.argv = [what.module, *what.argv]


def told(task: str, control: int, recorder: int) -> dict[str, str]:
    """What a process finds in its environment: the task that it is, and where its lines are."""
    fds = {"control_fd": control, "recorder_fd": recorder}
    return {connection.ENVIRONMENT: json.dumps({**json.loads(task), **fds})}
