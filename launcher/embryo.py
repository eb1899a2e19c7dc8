"""embryo: a process forked ahead of time: everything imported, connected, nobody yet.

It has no name, no secret and no capability, so it can do nothing to anybody, and its privileges
are gone before its first thread. It waits for what it is to become, which is then a matter of
microseconds: what remains is the task's own setup.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import traceback
from typing import NoReturn

import zmq

from launcher import programs
from launcher.placement import HOUSEHOLD
from launcher.rehearsal import rehearse
from launcher.spawn import MAX_FDS, MAX_REQUEST, Spawn, take_on
from ukernel.abi.exits import OUT_OF_MEMORY
from ukernel.lib import connection, household
from ukernel.lib.confine import give_up_privileges


def wait(line: socket.socket, address: str) -> NoReturn:
    """Get everything ready, then wait for a Spawn and the descriptors that go with it."""
    os.setsid()
    give_up_privileges()
    context = connection.prepare(address)
    with contextlib.suppress(OSError, zmq.ZMQError):  # without it, a start takes longer
        rehearse(context)
    data, fds, _, _ = socket.recv_fds(line, MAX_REQUEST, MAX_FDS)
    line.close()
    if not data:
        os._exit(0)  # the zygote is gone
    _become(Spawn(*json.loads(data)), fds)


def _become(what: Spawn, fds: list[int]) -> NoReturn:
    """Run the module as `python -m` would, in this process; or the modules of all that share it."""
    take_on(what, fds)
    code: object = 0
    try:
        if what.module == HOUSEHOLD:
            household.run(programs.run)
        else:
            programs.run(what.module)
    except SystemExit as leaving:
        code = leaving.code
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
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
