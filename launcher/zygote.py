"""zygote: has imported everything and forks tasks in milliseconds.

It never makes a ZeroMQ context or a thread, so a fork of it is whole. A task is forked twice and
so becomes the child of the launcher, a subreaper: the zygote keeps no one's fate, and its own
death harms nobody. When the launcher dies the zygote removes the run directory and leaves.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import struct
import subprocess
import sys
import traceback
from typing import NamedTuple, NoReturn

from ukernel.lib.connection import ENVIRONMENT

PR_SET_CHILD_SUBREAPER = 36
PID = struct.Struct("<i")
MAX_REQUEST = 64 * 1024


class Spawn(NamedTuple):
    """What a process is to become."""

    module: str
    task: str  # TaskInfo as JSON
    argv: list[str]
    directory: str = ""  # where relative paths in `argv` start; empty: where the launcher is


class Zygote:
    """The launcher's end."""

    def __init__(self, run_dir: str, path: list[str], preload: list[str], log: int) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "launcher.zygote", str(theirs.fileno()), run_dir,
                 json.dumps(path), json.dumps(preload)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def spawn(self, what: Spawn, control: int, stdio: tuple[int, int, int]) -> int:
        """Fork a task that inherits `control` and `stdio`; its pid, a child of this process."""
        request = json.dumps(what).encode()
        socket.send_fds(self._socket, [request], [control, *stdio])
        answer = self._socket.recv(PID.size)
        if len(answer) != PID.size:
            raise ConnectionError("the zygote is gone: it cannot start tasks any more")
        pid: int = PID.unpack(answer)[0]
        return pid

    def close(self) -> None:
        self._socket.close()
        self.process.wait()


def _with_control(task: str, control: int) -> str:
    return json.dumps({**json.loads(task), "control_fd": control})


# --- the zygote process -------------------------------------------------------------------------


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    run_dir, path, preload = sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path += path  # last, so that a user's folder hides nothing of ours
    for module in preload:
        _import(module)
    gc.collect()
    gc.freeze()
    while True:
        data, fds, _, _ = socket.recv_fds(line, MAX_REQUEST, 4)
        if not data:
            break
        pid = _fork_twice(Spawn(*json.loads(data)), fds, line)
        for fd in fds:
            os.close(fd)
        line.send(PID.pack(pid))
    shutil.rmtree(run_dir, ignore_errors=True)  # the launcher does it too, unless it was killed


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except Exception:
        traceback.print_exc()


def _fork_twice(what: Spawn, fds: list[int], line: socket.socket) -> int:
    """The pid of a grandchild, which is nobody's but the subreaper's once this returns."""
    told, tell = os.pipe()
    orphaned, orphan = os.pipe()  # its end: the one in the middle is dead, the subreaper has it
    middle = os.fork()
    if middle == 0:
        pid = os.fork()
        if pid:
            os.write(tell, PID.pack(pid))
            os._exit(0)
        for fd in (told, tell, orphan):
            os.close(fd)
        line.close()
        os.read(orphaned, 1)
        os.close(orphaned)
        _become(what, fds)
    os.close(tell)
    os.waitpid(middle, 0)
    answer = os.read(told, PID.size)
    for fd in (told, orphaned, orphan):
        os.close(fd)
    return int(PID.unpack(answer)[0])


def _become(what: Spawn, fds: list[int]) -> NoReturn:
    """Run the module as `python -m` would, in this process."""
    control, *stdio = fds
    os.setsid()
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
        os.close(fd)
    os.environ[ENVIRONMENT] = _with_control(what.task, control)
    if what.directory:
        os.chdir(what.directory)
    sys.argv = [what.module, *what.argv]
    sys.modules.pop(what.module, None)  # preloaded for what it imports; it runs once, as __main__
    code: object = 0
    try:
        runpy.run_module(what.module, run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0) if isinstance(code, int | None) else 1)


if __name__ == "__main__":
    main()
