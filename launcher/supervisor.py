"""supervisor: what to do when a life ends. Pure: history and time in, one decision out.

A crash is answered by a restart at once, until there have been more than `max_restarts` within
`within_s` seconds: then the server is given up (FAILED) and its callers are told at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from ukernel.abi.manifest import Restart

DO_NOT_RESTART = 125  # exit status of a process that asks to be left alone


class Decision(Enum):
    RESTART = "restart"
    REST = "rest"  # it is done: no restart, and nothing is wrong
    GIVE_UP = "give up"


@dataclass
class History:
    """What the supervisor remembers of one server."""

    restarts: deque[float] = field(default_factory=deque)


def decide(history: History, policy: Restart, status: int, now_s: float) -> Decision:
    """After a life ended with `status` (as subprocess gives it: -9 is SIGKILL): what next.

    Called only for ends that nobody asked for; `ukernel restart` does not come here.
    """
    wanted = policy.when == "always" or (policy.when == "crashed" and status != 0)
    if status == DO_NOT_RESTART or not wanted:
        return Decision.REST if status == 0 else Decision.GIVE_UP
    while history.restarts and now_s - history.restarts[0] > policy.within_s:
        history.restarts.popleft()
    if len(history.restarts) >= policy.max_restarts:
        return Decision.GIVE_UP
    history.restarts.append(now_s)
    return Decision.RESTART
