"""task: the connection of the task whose code runs. A process is one task, for all its life; or it
is several, and `household` says which of them it is at the moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukernel.lib.confine import give_up_privileges, live_under
from ukernel.lib.connection import Connection, task_info

if TYPE_CHECKING:
    from ukernel.lib.household import Household

household: Household | None = None  # of a process with several tasks
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


def become(line: Connection) -> None:
    """From here on, the code of this task runs."""
    global _current
    _current = line
