"""replay: a quarantined request is sent once more, on a person's word. Nothing here waits.

The launcher sends it to the current life of its server (to the next, when that one is dead) under
the badge that it came with. Only what is whole can be sent: what a request was lent is gone, and
of a long one the recorder kept no more than the beginning. Before it is sent it is pardoned; if
it ends another life, it is back in quarantine.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from launcher.naming import carries_more_than_data, operations
from launcher.quarantine import Case
from launcher.system import System
from launcher.tasks import Task
from ukernel.abi import syscalls
from ukernel.abi.errors import Code
from ukernel.abi.recorder import MOST_BODY
from ukernel.abi.registry import resolve_interface
from ukernel.abi.wire import Message
from ukernel.lib.connection import error_of
from ukernel.lib.stub import kernel

STATUSES = frozenset(Code)
PATIENCE_S = 30.0  # for the answer; who never answers holds nobody up

ANSWERED = "answered"  # by a result, or by one of the interface's own refusals
DIED = "died"  # it ended another life
REFUSED = "refused"  # it had no answer, and ended no life
UNKNOWN = "unknown"


class Verdict(NamedTuple):
    """What came of it: one of the four above, the status and body of the reply, and why."""

    outcome: str
    status: int = Code.OK
    body: bytes = b""
    why: str = ""


def find_case(system: System, number: int) -> tuple[Task, Case]:
    """The quarantined request of this number. Raises LookupError, naming those that there are."""
    every = [(task, case) for task in system.tasks.values() for case in system.quarantined(task)]
    for task, case in every:
        if case.note.number == number:
            return task, case
    known = ", ".join(str(case.note.number) for _, case in every)
    raise LookupError(f"no request {number} is in quarantine; there is {known or 'none'}")


def obstacle(task: Task, case: Case) -> str:
    """Why the request cannot be sent again; empty when it can."""
    note = case.note
    if task.spec is None or task.spec.serves is None:
        return f"{task.name} is no server of the system file"
    if task.state in (syscalls.FAILED, syscalls.STOPPED):
        return f"{task.name} is {task.state}: restart it first"
    if not note.whole:
        return f"it has {note.length} bytes, of which the first {MOST_BODY} were kept"
    meanings = operations(resolve_interface(task.spec.serves), note.opcode, note.badge)
    for name, operation in meanings.items():
        if carries_more_than_data(operation):
            return f"{name} was lent memory or given a capability, which is not kept"
    return ""


class Replay:
    """One request on its way again. `obstacle` has been asked before."""

    def __init__(self, system: System, task: Task, case: Case) -> None:
        assert system.kernel is not None
        assert task.box is not None
        self._box, self._case, self._name = task.box, case, task.name
        self._connection = system.kernel.connection
        self._late_s = time.monotonic() + PATIENCE_S
        self._token = task.control.endpoint(case.note.badge)
        self._box.pardon(case)
        self._number = self._connection.post(self._token, case.note.opcode, case.note.body)

    def verdict(self) -> Verdict | None:
        """What came of it; None while nothing has."""
        reply = self._connection.collected(self._number)
        if reply is None and time.monotonic() < self._late_s:
            return None
        if reply is None:
            self.abandon()
            why = f"{self._name} has not answered in {PATIENCE_S:g} s, and may still be at it"
            return Verdict(UNKNOWN, Code.E_DEADLINE, why=why)
        self._release()
        return self._judged(reply)

    def _judged(self, reply: Message) -> Verdict:
        if reply.status <= Code.ANSWER:
            return Verdict(ANSWERED, reply.status, reply.body)
        if self._case in self._box.quarantined:
            return Verdict(DIED, reply.status, why="it died again: back in quarantine")
        why = str(error_of(reply)) if reply.status in STATUSES else f"status {reply.status}"
        outcome = UNKNOWN if reply.status == Code.E_DEAD_UNKNOWN else REFUSED
        return Verdict(outcome, reply.status, why=why)

    def abandon(self) -> None:
        """Nobody waits for it any more. It stays pardoned."""
        self._connection.forget(self._number)
        self._release()

    def _release(self) -> None:
        kernel(self._connection, self._token).delete()
