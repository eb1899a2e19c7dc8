"""drive: the launcher's end of the load. It posts a call and goes on supervising until its outcome.

So a job may take as long as it takes, and who dies meanwhile is buried and started again.
"""

from __future__ import annotations

import time
from typing import Any

from launcher.system import System
from ukernel.abi import wire
from ukernel.abi.errors import Answer, CallError, Code
from ukernel.abi.interface import typed
from ukernel.abi.services import Done, Kept, Load, Timed
from ukernel.lib.connection import error_of
from ukernel.lib.stub import answer_of

OPERATIONS = {operation.name: operation for operation in Load.ops.values()}
LOOK_S = 0.5
PATIENCE_S = 120.0  # for one job


class NoOutcome(Exception):
    """The load did not do what it was told to; the text says what became of it."""


class Driver:
    """One running system's load."""

    def __init__(self, system: System, load: str) -> None:
        assert system.kernel is not None
        self._system = system
        self.load = load
        self._connection = system.kernel.connection
        self._endpoint = system.task(load).control.endpoint(0)

    def work(self, job: str, amount: int) -> list[Timed]:
        """A job, whole. Raises NoOutcome."""
        rows: list[Timed] = self._done("work", job, amount)
        return rows

    def kept(self) -> Kept:
        """What is there of all that bursts have written. Raises NoOutcome."""
        found: Kept = self._done("kept")
        return found

    def begin_burst(self, writes: int) -> int:
        """Its number, for `burst`."""
        return self._post("burst", writes)

    def burst(self, number: int) -> list[Done] | str:
        """The outcome of a burst, or why there is none: it died with the life that made it.
        Raises NoOutcome when neither comes."""
        reply = self._outcome(number, "burst")
        if reply.status != Code.OK:
            return str(_refused(reply))
        done: list[Done] = _value("burst", reply)
        return done

    def _done(self, operation: str, *args: object) -> Any:
        what = " ".join(map(str, (operation, *args)))
        reply = self._outcome(self._post(operation, *args), what)
        if reply.status != Code.OK:
            raise NoOutcome(f"{self.load}: {what}: {_refused(reply)}")
        return _value(operation, reply)

    def _post(self, operation: str, *args: object) -> int:
        opcode = OPERATIONS[operation].number
        return self._connection.post(self._endpoint, opcode, wire.pack(args))

    def _outcome(self, number: int, what: str) -> wire.Message:
        """Wait for a posted call, and handle what happens meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        while (reply := self._connection.collected(number)) is None:
            if time.monotonic() > deadline:
                self._connection.forget(number)
                raise NoOutcome(f"{self.load}: {what} has not ended in {PATIENCE_S:g} s")
            self._system.pump(LOOK_S)
        return reply


def _value(operation: str, reply: wire.Message) -> Any:
    return typed(OPERATIONS[operation].result, wire.unpack(reply.body))


def _refused(reply: wire.Message) -> Answer | CallError:
    return answer_of(Load, reply) if reply.status == Code.ANSWER else error_of(reply)
