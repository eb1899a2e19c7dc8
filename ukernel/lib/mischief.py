"""mischief: how a task misbehaves when an experiment wants it to. Off unless the launcher says so.

The faults that a process can only do to itself: it spins in its request loop, leaks, leaves with
status 0, or dies while it sets itself up. Each is begun by a signal that nothing else uses, so a
server's own code holds no fault. ZeroMQ's thread goes on meanwhile, as it does in real hangs.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

SPIN = signal.SIGRTMIN + 1
LEAK = signal.SIGRTMIN + 2
LEAVE = signal.SIGRTMIN + 3

DOOMED = "doomed"  # this life dies in init
BREAKABLE = "breakable"  # it obeys the signals above

CHUNK = 1 << 20
_leaked: list[bytearray] = []


def arm(mischief: str) -> None:
    """Do, or get ready to do, what the launcher has asked of this life."""
    if mischief == DOOMED:
        os._exit(1)
    if mischief == BREAKABLE:
        for signo in ACTS:
            signal.signal(signo, lambda which, _: ACTS[which]())


def _spin() -> None:
    while True:
        pass


def _leak() -> None:
    while True:
        _leaked.append(bytearray(CHUNK))  # zeroed, so every page is really there


def _leave() -> None:
    os._exit(0)


ACTS: dict[int, Callable[[], None]] = {SPIN: _spin, LEAK: _leak, LEAVE: _leave}
