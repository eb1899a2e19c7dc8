"""python -m ukernel.broker DIR CONTROL_FD: the kernel process of one system.

Started by the launcher, which is its root task: the inherited control socket proves it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import sys
from pathlib import Path

from ukernel.broker.shell import Kernel

PR_SET_PDEATHSIG = 1


def main() -> None:
    directory, control_fd = Path(sys.argv[1]), int(sys.argv[2])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the launcher, which stops us last
    lock = os.open(directory / "kernel.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"ukernel.broker: another kernel serves {directory}; stop it with `ukernel down`")
    control = socket.socket(fileno=control_fd)
    Kernel(f"ipc://{directory}/kernel", control, os.getppid()).run()


main()
