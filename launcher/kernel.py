"""kernel: the launcher's side of the kernel process: starts it, and is its root task."""

from __future__ import annotations

import os
import resource
import socket
import struct
import subprocess
import sys
from pathlib import Path

import zmq

from ukernel.abi import wire
from ukernel.abi.errors import CallError
from ukernel.abi.syscalls import Control
from ukernel.lib.connection import Connection, TaskInfo
from ukernel.lib.stub import bind


class SystemDown(Exception):
    """The system ended without being asked: its kernel or its machine died, or a critical server
    was given up. `may_reboot`: what died can be begun anew."""

    def __init__(self, text: str, may_reboot: bool = True) -> None:
        super().__init__(text)
        self.may_reboot = may_reboot


PATIENCE_S = 10  # for descriptors that the kernel has announced: they come before the word of them
KERNEL_DIED = "the kernel died"


class RootConnection(Connection):
    """The launcher's connection: waiting for a kernel that is dead raises SystemDown."""

    def __init__(self, info: TaskInfo, kernel_fd: int) -> None:
        self._kernel_fd = kernel_fd
        try:
            super().__init__(info)
            patience = struct.pack("ll", PATIENCE_S, 0)  # struct timeval
            self._control.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        except wire.Malformed:
            raise SystemDown("the kernel ended before it was up") from None

    def receive(self) -> wire.Message:
        while True:
            ready, _, _ = zmq.select([self.socket, self._kernel_fd], [], [])
            if self.socket in ready:
                return super().receive()
            if ready:
                raise SystemDown(KERNEL_DIED)

    def descriptors(self, tag: int, wait: bool = True) -> list[int]:
        try:
            return super().descriptors(tag, wait)
        except (CallError, ConnectionError):
            raise SystemDown(KERNEL_DIED) from None
        except BlockingIOError:
            raise SystemDown(f"the kernel has not handed over what it announced: {tag}") from None


class KernelProcess:
    """The running kernel. `control()` is what the control capability allows."""

    def __init__(self, directory: Path, log: int, trace: bool = True) -> None:
        """Without `trace` it remembers no calls: to measure what that costs."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ukernel.broker", str(directory), str(theirs.fileno()),
                 *([] if trace else ["untraced"])],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.fd = os.pidfd_open(self.process.pid)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # libzmq aborts when it has none left
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (most, most))
        self._ours = ours
        self._connection: RootConnection | None = None

    @property
    def connection(self) -> Connection:
        """The root task's connection; the first use waits for the kernel to be up."""
        if self._connection is None:
            info = TaskInfo("root", self._ours.detach(), os.getpid())
            self._connection = RootConnection(info, self.fd)
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
