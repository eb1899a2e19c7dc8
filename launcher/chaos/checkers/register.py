"""register: what a client that does one thing at a time may see under a key of its own. Pure.

A change in doubt (INFO, or OPEN: the client never heard) may have happened, may happen later, or
never; it stays possible until the next acknowledged change of the key, which it must not survive.
A change that failed has not happened. What was seen once has happened: what it replaced is past.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from launcher.chaos.evidence import FAIL, OK, Operation
from ukernel.abi.services import NoSuchFile, NoSuchKey

NOTHING = ""  # the value of a key that is not there
REMOVE = "remove"
CHANGES = frozenset(("write", "put", REMOVE))
READS = frozenset(("read", "get"))
MISSING = (NoSuchFile.__name__, NoSuchKey.__name__)  # answers that say: there is nothing
SHOWN = 16  # characters of a value in a message


class Register:
    """One key, as far as its history explains it."""

    def __init__(self, changed: bool = True) -> None:
        """`changed`: empty at first. A key that nobody changes has what its first read says."""
        self.changed = self.known = changed
        self.value = NOTHING  # what is there, unless one of `doubtful` has happened
        self.doubtful: list[str] = []
        self.lasting = {NOTHING}  # what may be there after a power cut
        self.past: set[str] = set()
        self.refused: set[str] = set()

    def change(self, new: str, outcome: str) -> None:
        """Somebody wrote `new`, or NOTHING."""
        if outcome == FAIL:
            self.refused.add(new)
        elif outcome == OK:
            self.past |= {self.value, *self.doubtful}
            self.value, self.doubtful, self.lasting = new, [], {new}
        else:
            self.doubtful.append(new)
            self.lasting.add(new)

    def see(self, seen: str) -> str:
        """What is wrong with seeing this now; when nothing is, it is what is there."""
        if not self.known:
            self.value, self.known, self.lasting = seen, True, {seen}
        if seen == self.value:
            return ""
        if seen not in self.doubtful:
            return self._wrong(seen)
        self.past.add(self.value)
        self.doubtful.remove(seen)
        self.value = seen
        return ""

    def see_after_power_cut(self, seen: str) -> str:
        """The same after the end: what was seen, but never acknowledged, may be gone again."""
        return "" if not self.known or seen in self.lasting else self._wrong(seen)

    def _wrong(self, seen: str) -> str:
        expected = " or ".join(map(show, dict.fromkeys((self.value, *self.doubtful))))
        if seen == NOTHING:
            return f"nothing, not {expected}: it is lost"
        if seen in self.past:
            how = "removed" if self.value == NOTHING else "overwritten"
            return f"{show(seen)}, which had been {how}, not {expected}"
        if seen in self.refused:
            return f"{show(seen)}, whose write had failed, not {expected}"
        return f"{show(seen)}, which nobody had written, not {expected}"


def show(value: str) -> str:
    """A value in a message."""
    if value == NOTHING:
        return "nothing"
    return value if len(value) <= SHOWN else f"{value[:SHOWN]}…"


def of_keys(history: Iterable[Operation], ops: frozenset[str]) -> dict[str, list[Operation]]:
    """The operations of these kinds on each key, in the order of their clients.

    What keeps nothing (a line on the console, random bytes) has its client as the key.
    """
    found = defaultdict[str, list[Operation]](list)
    for op in sorted(history, key=lambda op: (op.client, op.number)):
        if op.op in ops and op.key not in ("", op.client):
            found[op.key].append(op)
    return dict(found)


def is_changed(operations: Iterable[Operation]) -> bool:
    return any(op.op in CHANGES for op in operations)


def is_shared(operations: Sequence[Operation]) -> bool:
    """Whether one client changes what another uses: their order is not known."""
    return is_changed(operations) and len({op.client for op in operations}) > 1


def seen_by(op: Operation) -> list[str]:
    """What the operation saw under its key: one value, or it saw nothing of it."""
    if op.op in READS and op.outcome == OK:
        return [op.value]
    return [NOTHING] if op.outcome == FAIL and op.error.startswith(MISSING) else []


def replay(operations: Sequence[Operation]) -> tuple[Register, list[str]]:
    """The key after its whole history, and every operation that saw what it could not see."""
    register, wrong = Register(is_changed(operations)), []
    for op in operations:
        for seen in seen_by(op):
            if why := register.see(seen):
                wrong.append(f"{op.key}: {op.op} {op.number} of {op.client} saw {why}")
        if op.op in CHANGES:
            register.change(NOTHING if op.op == REMOVE else op.value, op.outcome)
    return register, wrong
