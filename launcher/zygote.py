"""zygote: has imported everything and forks tasks in milliseconds.

It never makes a ZeroMQ context or a thread, so a fork of it is whole. One embryo is forked ahead
and the launcher has its line, so that a restart waits neither for a fork nor for the zygote. It is
forked twice and so becomes the child of the launcher, a subreaper: the zygote keeps no one's fate,
and its own death harms nobody. When the launcher dies the zygote removes the run directory and
leaves.
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
from launcher.rundir import discard
from launcher.spawn import Spawn

GONE = "the zygote is gone: it cannot start tasks any more"
PR_SET_CHILD_SUBREAPER = 36
SETTLE_S = 0.02  # a task that has just begun has the processor to itself for so long
PID = struct.Struct("<i")
PATIENCE_S = 10  # for an embryo: longer, and the zygote is taken for dead
ORDER = b"1"  # one embryo
AHEAD = 1  # embryos that wait, or are on their way, while nobody is in need of one


class Zygote:
    """The launcher's end."""

    def __init__(self, run_dir: str, path: list[str], preload: list[str], log: int) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        patience = struct.pack("ll", PATIENCE_S, 0)  # struct timeval
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        self._ordered = 0  # embryos that the zygote owes us
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

    def spawn(self, what: Spawn, fds: list[int], stdio: tuple[int, int, int]) -> int:
        """Start a task that inherits `fds` (control socket, recorder) and `stdio`; its pid, a
        child of this process."""
        request = json.dumps(what).encode()
        while True:
            pid, line = self._embryo()
            with line:
                try:
                    socket.send_fds(line, [request], [*fds, *stdio])
                except ConnectionError:  # it has been killed: nobody has missed it yet
                    os.waitpid(pid, 0)
                    continue
            return pid

    def replenish(self) -> None:
        """Have an embryo for the next `spawn`, which will tell if there can be none."""
        with contextlib.suppress(ConnectionError):
            self._order(AHEAD)

    def _embryo(self) -> tuple[int, socket.socket]:
        """The one that waits, or one as soon as it is forked."""
        try:
            found = _receive(self._socket, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._order(AHEAD + 1)  # the one after it makes the zygote hurry
            found = self._awaited()
        if found is None:
            raise ConnectionError(GONE)
        self._ordered -= 1
        return found

    def _awaited(self) -> tuple[int, socket.socket] | None:
        try:
            return _receive(self._socket)
        except BlockingIOError:
            raise ConnectionError(f"the zygote has not answered for {PATIENCE_S} s") from None

    def _order(self, count: int) -> None:
        """Have so many embryos on their way."""
        while self._ordered < count:
            try:
                self._socket.send(ORDER)
            except ConnectionError:
                raise ConnectionError(GONE) from None
            self._ordered += 1

    def close(self) -> None:
        """End the zygote, and reap the embryos that nobody has needed."""
        self._socket.shutdown(socket.SHUT_WR)
        while found := _receive(self._socket):
            pid, line = found
            line.close()
            os.waitpid(pid, 0)
        self._socket.close()
        self.process.wait()


def _receive(line: socket.socket, flags: int = 0) -> tuple[int, socket.socket] | None:
    """An embryo from the zygote: its pid and its line; None when there will be none any more."""
    flags |= socket.MSG_CMSG_CLOEXEC  # a line to an embryo is for nobody else
    while True:
        try:
            answer, rights, _, _ = line.recvmsg(PID.size, socket.CMSG_SPACE(PID.size), flags)
        except ConnectionResetError:  # said once, when it was killed with orders unread
            continue
        if not rights:
            return None
        return PID.unpack(answer)[0], socket.socket(fileno=PID.unpack(rights[0][2])[0])


class Nest:
    """The zygote's end: forks embryos ahead, once there is a kernel to connect to."""

    def __init__(self, line: socket.socket, run_dir: str) -> None:
        self._line = line
        self._run_dir = Path(run_dir)
        self._directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
        self._address = f"ipc://{run_dir}/kernel"

    def serve(self) -> None:
        """An embryo for each order, until the launcher is gone. Only an order behind it hurries."""
        with contextlib.suppress(ConnectionResetError):  # it was killed, with an embryo unread
            while self._line.recv(len(ORDER)):
                select.select([self._line], [], [], SETTLE_S)
                self._hatch()

    def _hatch(self) -> None:
        """Fork twice: the grandchild is nobody's but the subreaper's once this returns."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
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
        with ours, contextlib.suppress(ConnectionError):  # the launcher was killed
            socket.send_fds(self._line, [os.read(told, PID.size)], [ours.fileno()])
        os.close(told)

    def close(self) -> None:
        """The launcher is gone: sweep up after one that was killed."""
        try:
            self._line.send(PID.pack(0))
        except OSError:
            orphans.kill_all(self._run_dir)
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
