"""zygote: has imported everything and forks tasks in milliseconds.

It never makes a ZeroMQ context or a thread, so a fork of it is whole. One embryo is forked ahead,
so that a restart does not wait for a fork. It is forked twice and so becomes the child of the
launcher, a subreaper: the zygote keeps no one's fate, and its own death harms nobody. When the
launcher dies the zygote removes the run directory and leaves.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from launcher import embryo, orphans, programs
from launcher.embryo import MAX_REQUEST, Spawn
from launcher.rundir import discard

PR_SET_CHILD_SUBREAPER = 36
SETTLE_S = 0.02  # a task that has just begun has the processor to itself for so long
PID = struct.Struct("<i")


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
                env={**os.environ, orphans.MARK: run_dir},
            )  # fmt: skip

    def spawn(self, what: Spawn, control: int, stdio: tuple[int, int, int]) -> int:
        """Start a task that inherits `control` and `stdio`; its pid, a child of this process."""
        request = json.dumps(what).encode()
        socket.send_fds(self._socket, [request], [control, *stdio])
        answer = self._socket.recv(PID.size)
        if len(answer) != PID.size:
            raise ConnectionError("the zygote is gone: it cannot start tasks any more")
        pid: int = PID.unpack(answer)[0]
        return pid

    def close(self) -> None:
        """End the zygote, and reap the embryo that it leaves to us."""
        self._socket.shutdown(socket.SHUT_WR)
        answer = self._socket.recv(PID.size)
        if len(answer) == PID.size and (pid := PID.unpack(answer)[0]):
            os.waitpid(pid, 0)
        self._socket.close()
        self.process.wait()


class Nest:
    """The zygote's end: one embryo is always waiting, once there is a kernel to connect to."""

    def __init__(self, line: socket.socket, run_dir: str) -> None:
        self._line = line
        self._run_dir = Path(run_dir)
        self._directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
        self._address = f"ipc://{run_dir}/kernel"
        self._pid = 0
        self._embryo: socket.socket | None = None

    def serve(self) -> None:
        """Start tasks until the launcher is gone."""
        while True:
            data, fds, _, _ = socket.recv_fds(self._line, MAX_REQUEST, 4)
            if not data:
                return
            pid = self._hand_over(data, fds)
            for fd in fds:
                os.close(fd)
            self._line.send(PID.pack(pid))
            if not select.select([self._line], [], [], SETTLE_S)[0]:
                self._hatch()

    def _hand_over(self, data: bytes, fds: list[int]) -> int:
        """Tell an embryo what to become; its pid. One that has been killed is replaced."""
        while True:
            if self._embryo is None:
                self._hatch()
            assert self._embryo is not None
            pid, embryo, self._embryo = self._pid, self._embryo, None
            with embryo, contextlib.suppress(ConnectionError):
                socket.send_fds(embryo, [data], fds)
                return pid

    def _hatch(self) -> None:
        """Fork twice: the grandchild is nobody's but the subreaper's once this returns."""
        self._embryo, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        told, tell = os.pipe()
        middle = os.fork()
        if middle == 0:
            pid = os.fork()
            if pid:
                os.write(tell, PID.pack(pid))
                os._exit(0)
            _close_all_but(theirs.fileno())
            embryo.wait(theirs, self._address)
        theirs.close()
        os.close(tell)
        os.waitpid(middle, 0)
        self._pid = PID.unpack(os.read(told, PID.size))[0]
        os.close(told)

    def close(self) -> None:
        """Let the last embryo go, tell the launcher, which must reap it, and sweep up."""
        try:
            self._line.send(PID.pack(self._pid if self._embryo else 0))
        except OSError:  # the launcher was killed
            orphans.kill_all(self._run_dir)
        if self._embryo is not None:
            self._embryo.close()
        discard(self._run_dir, self._directory)  # the launcher does it too, unless it was killed


def _close_all_but(kept: int) -> None:
    """What is open here, the zygote's own lines and what it hands to others, is not for a task."""
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    run_dir, path, preload = sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path += path  # last, so that a user's folder hides nothing of ours
    for module in preload:
        programs.preload(module)
    gc.collect()
    gc.freeze()
    nest = Nest(line, run_dir)
    nest.serve()
    nest.close()


if __name__ == "__main__":
    main()
