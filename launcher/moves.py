"""moves: virtual machines copied, restored and migrated, as clients of the system ask for it.

However the client ends, the plan comes to its end: a machine that was stopped goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from launcher import vmplans
from launcher.errands import Declined, Errand, Plan
from launcher.system import System
from ukernel.abi.errors import CallError
from ukernel.abi.vm import VirtualMachine

SERVES = "vm"


class Move:
    """One of them under way. `plan` is told whether anybody still wants it."""

    def __init__(self, system: System, plan: Callable[[Callable[[], bool]], Plan]) -> None:
        self._wanted = True
        self._errand = Errand(system, VirtualMachine, plan(lambda: self._wanted))

    def outcome(self) -> Any:
        """What it comes to; None while it goes on. Raises CallError, which says where all is."""
        try:
            return self._errand.outcome()
        except (vmplans.CannotDo, Declined, OSError) as error:
            raise CallError(str(error)) from None

    def leave(self) -> None:
        """Nobody waits for it any more."""
        self._wanted = False
        self._errand.leave()


def save(system: System, name: str, fd: int) -> Move:
    """Write an image to where a file stands. `fd` is the caller's. Raises LookupError."""
    find(system, name)
    own = os.dup(fd)

    def write(piece: bytes) -> None:
        while piece:
            piece = piece[os.write(own, piece) :]

    return Move(system, lambda wanted: _closing(own, vmplans.save(name, write, wanted, _clock)))


def load(system: System, name: str, engine: str, memory: int, fd: int) -> Move:
    """Continue an image from where a file stands. `fd` is the caller's. Raises LookupError."""
    find(system, name)
    own = os.dup(fd)

    def read(length: int) -> bytes:
        return os.read(own, length)

    def plan(wanted: Callable[[], bool]) -> Plan:
        return _closing(own, vmplans.load(name, engine, memory, read, wanted, _clock))

    return Move(system, plan)


def migrate(system: System, source: str, target: str) -> Move:
    """Raises LookupError."""
    find(system, source)
    find(system, target)
    if source == target:
        raise LookupError(f"{source} is there already: name another monitor")
    return Move(system, lambda wanted: vmplans.migrate(source, target, wanted, _clock))


def find(system: System, name: str) -> None:
    """Raises LookupError for what is no virtual machine, naming those that there are."""
    spec = system.task(name).spec
    if spec is None or spec.serves != SERVES:
        servers = system.file.manifest.servers.items()
        known = ", ".join(n for n, s in servers if s.serves == SERVES) or "none"
        raise LookupError(f"{name} is no virtual machine of system {system.name}; it has {known}")


def _closing(fd: int, plan: Plan) -> Plan:
    try:
        result = yield from plan
        return result
    finally:
        os.close(fd)


_clock = time.monotonic
