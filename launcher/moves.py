"""moves: virtual machines copied, restored and migrated, as clients of the system ask for it.

However the client ends, the plan comes to its end: a machine that was stopped goes on. As long as
the plan, there is memory that an image goes through, and nobody else touches these machines: who
gives up a move that failed empties its target.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Set
from functools import partial
from typing import Any

from launcher import vmplans
from launcher.errands import Declined, Errand, Plan
from launcher.system import System
from launcher.vmplans import ROOM, Wanted
from ukernel.abi.errors import CallError, Overload
from ukernel.abi.vm import VirtualMachine
from ukernel.lib.mapping import populate
from ukernel.lib.memory import Region

SERVES = "vm"


class Move:
    """One of them under way, of these monitors. `plan` is told whether anybody still wants it, and
    has memory."""

    def __init__(
        self, system: System, names: Set[str], plan: Callable[[Wanted, Region], Plan]
    ) -> None:
        """Raises CallError."""
        if busy := ", ".join(sorted(names & system.moving)):
            raise CallError(f"{busy}: being copied or moved already; try again when that is over")
        self._system, self._names = system, names
        self._wanted = True
        self._errand = Errand(system, VirtualMachine, self._carried(plan))

    def _carried(self, plan: Callable[[Wanted, Region], Plan]) -> Plan:
        memory = self._memory()
        self._system.moving |= self._names
        try:
            populate(memory.view)
            result = yield from plan(lambda: self._wanted, memory)
            return result
        finally:
            self._system.moving -= self._names
            if self._system.kernel is not None:  # else its memory has ended with it
                memory.end()

    def _memory(self) -> Region:
        assert self._system.kernel is not None
        try:
            return Region(self._system.kernel.connection, "windows", ROOM)
        except Overload:
            why = "as much is moved already as there is memory for: try again when that is over"
            raise vmplans.CannotDo(why) from None

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
    """Write an image to where a file stands. `fd` is the caller's. Raises LookupError,
    CallError."""
    find(system, name)

    def plan(wanted: Wanted, memory: Region) -> Plan:
        own = os.dup(fd)
        return _closing(own, vmplans.save(name, partial(_write, own), memory, wanted, _clock))

    return Move(system, {name}, plan)


def load(system: System, name: str, engine: str, memory: int, fd: int) -> Move:
    """Continue an image from where a file stands. `fd` is the caller's. Raises LookupError,
    CallError."""
    find(system, name)
    like = vmplans.Like(engine, memory)

    def plan(wanted: Wanted, memory: Region) -> Plan:
        own = os.dup(fd)
        read = partial(_read, own)
        return _closing(own, vmplans.load(name, like, read, memory, wanted, _clock))

    return Move(system, {name}, plan)


def migrate(system: System, source: str, target: str) -> Move:
    """Raises LookupError, CallError."""
    find(system, source)
    find(system, target)
    if source == target:
        raise LookupError(f"{source} is there already: name another monitor")

    def plan(wanted: Wanted, memory: Region) -> Plan:
        return vmplans.migrate(source, target, memory, wanted, _clock)

    return Move(system, {source, target}, plan)


def find(system: System, name: str) -> None:
    """Raises LookupError for what is no virtual machine, naming those that there are."""
    spec = system.task(name).spec
    if spec is None or spec.serves != SERVES:
        servers = system.file.manifest.servers.items()
        known = ", ".join(n for n, s in servers if s.serves == SERVES) or "none"
        raise LookupError(f"{name} is no virtual machine of system {system.name}; it has {known}")


def _write(fd: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(fd, piece) :]


def _read(fd: int, into: memoryview) -> int:
    return os.readv(fd, [into])


def _closing(fd: int, plan: Plan) -> Plan:
    try:
        result = yield from plan
        return result
    finally:
        os.close(fd)


_clock = time.monotonic
