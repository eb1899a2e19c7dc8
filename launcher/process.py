"""process: one process of a task, held by its pidfd, so that nobody else is ever signalled."""

from __future__ import annotations

import os
import select
import signal


class Process:
    """A child of the launcher. `fd` becomes readable when it is dead."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.fd = os.pidfd_open(pid)
        self.status: int | None = None  # as subprocess gives it: -9 is SIGKILL

    def send(self, signo: int) -> None:
        """Send a signal; nothing happens when the process is dead."""
        if self.status is not None:
            return
        try:
            signal.pidfd_send_signal(self.fd, signo)
        except ProcessLookupError:
            return

    @property
    def is_dead(self) -> bool:
        """Whether it has ended, reaped or not."""
        return self.status is not None or bool(select.select([self.fd], [], [], 0)[0])

    def wait(self) -> int:
        """Wait for the end and reap it: from here on it is certainly dead."""
        if self.status is None:
            ended = os.waitid(os.P_PIDFD, self.fd, os.WEXITED)
            assert ended is not None
            exited = ended.si_code == os.CLD_EXITED
            self.status = ended.si_status if exited else -ended.si_status
            os.close(self.fd)
        return self.status


def describe(status: int) -> str:
    """An exit status as people say it."""
    if status >= 0:
        return f"exit {status}"
    known = {signo.value: signo.name for signo in signal.Signals}
    return f"killed by {known.get(-status, f'signal {-status}')}"
