"""embryo: a process forked ahead of time: everything imported, connected, nobody yet.

It has no name, no secret and no capability, so it can do nothing to anybody, and its privileges
are gone before its first thread. It waits for what it is to become, which is then a matter of
microseconds: what remains is the task's own setup.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import sys
import traceback
from typing import NamedTuple, NoReturn

from launcher import programs
from ukernel.lib import connection
from ukernel.lib.confine import give_up_privileges

MAX_REQUEST = 64 * 1024


class Spawn(NamedTuple):
    """What a process is to become."""

    module: str
    task: str  # TaskInfo as JSON
    argv: list[str]
    directory: str = ""  # where relative paths in `argv` start; empty: where the launcher is


def wait(line: socket.socket, address: str) -> NoReturn:
    """Get everything ready, then wait for a Spawn and the descriptors that go with it."""
    os.setsid()
    give_up_privileges()
    connection.prepare(address)
    _touch_everything()
    data, fds, _, _ = socket.recv_fds(line, MAX_REQUEST, 4)
    line.close()
    if not data:
        os._exit(0)  # the zygote is gone
    _become(Spawn(*json.loads(data)), fds)


def _touch_everything() -> None:
    """Make the pages that this process will write its own now, while nobody waits for it."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _become(what: Spawn, fds: list[int]) -> NoReturn:
    """Run the module as `python -m` would, in this process."""
    control, *stdio = fds
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
        os.close(fd)
    os.environ[connection.ENVIRONMENT] = _with_control(what.task, control)
    if what.directory:
        os.chdir(what.directory)
    sys.argv = [what.module, *what.argv]
    code: object = 0
    try:
        programs.run(what.module)
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    with contextlib.suppress(OSError):  # nobody may be left to read it
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(int(code or 0) if isinstance(code, int | None) else 1)


def _with_control(task: str, control: int) -> str:
    return json.dumps({**json.loads(task), "control_fd": control})
