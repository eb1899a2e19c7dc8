"""process: one process of a task, held by its pidfd, so that nobody else is ever signalled."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Sequence


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

    def schedule(self, cores: Sequence[int], priority: int | None) -> str:
        """Keep all its threads to `cores` (none: leave them); with a priority of 0 to 255, run
        them under SCHED_FIFO. What Linux does not allow is left as it is; why, or nothing."""
        refused = ""
        with contextlib.suppress(FileNotFoundError):  # it is dead already
            for thread in map(int, os.listdir(f"/proc/{self.pid}/task")):
                refused = _schedule(thread, cores, priority) or refused
        return refused

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


def _schedule(thread: int, cores: Sequence[int], priority: int | None) -> str:
    """As `Process.schedule`, for one thread."""
    try:
        os.sched_setaffinity(thread, cores or os.sched_getaffinity(thread))
        if priority is not None:
            level = max(1, priority * os.sched_get_priority_max(os.SCHED_FIFO) // 256)
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(level))
    except ProcessLookupError:
        return ""
    except OSError as error:
        return f"cores and policy stay as they are: {error.strerror}"
    return ""


def describe(status: int) -> str:
    """An exit status as people say it."""
    if status >= 0:
        return f"exit {status}"
    known = {signo.value: signo.name for signo in signal.Signals}
    return f"killed by {known.get(-status, f'signal {-status}')}"
