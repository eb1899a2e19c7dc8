"""spawn: what a process is to become, and how it takes that on. The same from every beginning."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from ukernel.lib import connection

MAX_REQUEST = 128 * 1024
MAX_FDS = 253  # SCM_MAX_FD: a control socket and a recorder for each task, standard streams


class Spawn(NamedTuple):
    """What a process is to become."""

    module: str
    tasks: list[str]  # TaskInfo of each, as JSON: the one that it is, or all that live in it
    argv: list[str]
    directory: str = ""  # where relative paths in `argv` start; empty: where the launcher is
    given: Sequence[str] = ()  # what the descriptors after the lines are for: args of the first


def take_on(what: Spawn, fds: list[int]) -> None:
    """Streams, environment, place and arguments of a task, for this process."""
    *inherited, _, _, _ = fds
    for target, fd in enumerate(fds[-3:]):
        os.dup2(fd, target)
        os.close(fd)
    os.environ.update(told(what, inherited))
    if what.directory:
        os.chdir(what.directory)
    sys.argv = [what.module, *what.argv]


def told(what: Spawn, inherited: list[int]) -> dict[str, str]:
    """What a process finds in its environment: the tasks that it is, and where the lines of each
    are: a control socket and a recorder, one pair after the other. What else was `given` is in the
    arguments of the first, by name."""
    lines, given = inherited[: 2 * len(what.tasks)], inherited[2 * len(what.tasks) :]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    infos = [
        {**json.loads(task), "control_fd": control, "recorder_fd": recorder}
        for task, (control, recorder) in zip(what.tasks, pairs, strict=True)
    ]
    if given:
        named = dict(zip(what.given, given, strict=True))
        infos[0]["args"] = {**infos[0]["args"], "descriptors": named}
    return {connection.ENVIRONMENT: json.dumps(infos)}
