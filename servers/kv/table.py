"""table: what is kept, and the answers to the last operations. Pure: records in, answers out.

A change is made in two steps: `put`, `add` and `remove` say which record it is, or refuse; `apply`
does it, the same way for a change and for its replay. What is kept is the last record of each
name, so the log of a table is just these.
"""

from __future__ import annotations

from collections import OrderedDict

from servers.kv.log import (
    LONGEST_OPERATION,
    MAGIC,
    NOTHING,
    NUMBER,
    REMOVE,
    VALUE,
    Record,
    sealed_size,
)
from ukernel.abi.services import PAGE, NoSpace, NoSuchKey

LARGEST_NUMBER = (1 << 64) - 1


class Table:
    """Values and numbers, at most `limit` bytes of them; answers to the last `remember` changes."""

    def __init__(self, limit: int, remember: int) -> None:
        self.answers: OrderedDict[bytes, int] = OrderedDict()
        self.largest_log = len(MAGIC) + limit + remember * sealed_size(LONGEST_OPERATION)
        self._limit = limit
        self._remember = remember
        self._kept: dict[tuple[int, str], Record] = {}
        self._size = 0  # bytes of what is kept, in a log
        self._answers_size = 0

    # --- what there is --------------------------------------------------------------------------

    def get(self, key: str) -> bytes:
        found = self._kept.get((VALUE, key))
        if found is None:
            raise NoSuchKey(key)
        return found.value

    def number(self, key: str) -> int:
        found = self._kept.get((NUMBER, key))
        return found.number if found else 0

    def keys(self, start: int) -> list[str]:
        """Up to PAGE keys of values in their order, from number `start`."""
        return sorted(key for kind, key in self._kept if kind == VALUE)[start : start + PAGE]

    # --- which record a change is ---------------------------------------------------------------

    def put(self, key: str, value: bytes, operation: bytes) -> Record:
        """Raises NoSpace."""
        return self._fitting(Record(VALUE, key, 0, value, operation))

    def add(self, key: str, amount: int, operation: bytes) -> Record:
        """Raises NoSpace, also for a number beyond 64 bits."""
        number = self.number(key) + amount
        if number > LARGEST_NUMBER:
            raise NoSpace(f"{key}: {number} does not fit into 64 bits; remove it to begin anew")
        return self._fitting(Record(NUMBER, key, number, b"", operation))

    def remove(self, key: str, operation: bytes) -> Record:
        """There is always room for it."""
        return Record(REMOVE, key, 0, b"", operation)

    def _fitting(self, record: Record) -> Record:
        kept = record._replace(operation=b"")
        before = self._kept.get((record.kind, record.key))
        growth = kept.size - (before.size if before else 0)
        if growth > 0 and self._size + growth > self._limit:
            raise NoSpace(
                f"{record.key}: {growth} bytes more and {self._limit - self._size} of "
                f"{self._limit} are free: remove something, or set a larger limit_bytes"
            )
        return record

    # --- doing it -------------------------------------------------------------------------------

    def apply(self, record: Record) -> int:
        """Do it and remember its operation; the answer."""
        if record.kind == REMOVE:
            self._drop((VALUE, record.key))
            self._drop((NUMBER, record.key))
        elif record.kind != NOTHING:
            self._drop((record.kind, record.key))
            kept = record._replace(operation=b"")
            self._kept[record.kind, record.key] = kept
            self._size += kept.size
        if record.operation:
            self._note(record.operation, record.number)
        return record.number

    def _drop(self, name: tuple[int, str]) -> None:
        before = self._kept.pop(name, None)
        if before is not None:
            self._size -= before.size

    def _note(self, operation: bytes, answer: int) -> None:
        self.answers[operation] = answer
        self._answers_size += sealed_size(len(operation))
        while len(self.answers) > self._remember:
            oldest, _ = self.answers.popitem(last=False)
            self._answers_size -= sealed_size(len(oldest))

    # --- its log --------------------------------------------------------------------------------

    @property
    def log_size(self) -> int:
        """Bytes of `log()`; at most `largest_log`."""
        return len(MAGIC) + self._size + self._answers_size

    def log(self) -> bytes:
        """A log that makes this table, without what has come and gone."""
        log = bytearray(MAGIC)
        for record in self._kept.values():
            log += record.sealed(len(log))
        for operation, answer in self.answers.items():
            log += Record(NOTHING, number=answer, operation=operation).sealed(len(log))
        return bytes(log)
