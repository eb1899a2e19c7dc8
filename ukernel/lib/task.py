"""task: the process's one connection. A process is one task, for all its life."""

from __future__ import annotations

from ukernel.lib.confine import give_up_privileges, live_under
from ukernel.lib.connection import Connection, task_info

_current: Connection | None = None


def connection() -> Connection:
    """This task's connection to the kernel, made at first use, after giving up privileges."""
    global _current
    if _current is None:
        info = task_info()
        give_up_privileges()
        live_under(info.launcher, info.name, info.memory)
        _current = Connection(info)
    return _current
