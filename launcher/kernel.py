"""kernel: the launcher's side of the kernel process: starts it, and is its root task."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from ukernel.abi.syscalls import Control
from ukernel.lib.connection import Connection, TaskInfo
from ukernel.lib.stub import bind


class KernelProcess:
    """The running kernel. `control()` is what the control capability allows."""

    def __init__(self, directory: Path, log: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ukernel.broker", str(directory), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.fd = os.pidfd_open(self.process.pid)
        self._ours = ours
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        """The root task's connection; the first use waits for the kernel to be up."""
        if self._connection is None:
            info = TaskInfo("root", self._ours.detach(), os.getpid())
            self._connection = Connection(info)
        return self._connection

    def control(self) -> Control:
        return bind(Control, self.connection, self.connection.capability("control"), None)

    def task(self, token: bytes) -> Control:
        """The control of one task, by its task capability."""
        return bind(Control, self.connection, token, None)

    def close(self) -> None:
        """End the kernel and wait until it is gone."""
        if self._connection is not None:
            self._connection.close()
        self.process.kill()
        self.process.wait()
        os.close(self.fd)
