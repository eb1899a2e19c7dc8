"""journal: a table whose changes are written down before they are answered, each done once.

A store keeps the log. When it fails, it is unknown whether the record is there: the log is read
again before the next change, and until that succeeds no change is said to be done or not done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from servers.kv.log import MAGIC, Damaged, Record, records
from servers.kv.table import Table
from ukernel.abi.errors import DeadUnknown
from ukernel.abi.services import DeviceFailed

SHORT = 64 * 1024  # bytes; a log up to here is not worth compacting


class Store(Protocol):
    """Keeps one log. Raises DeviceFailed when it is unknown what it keeps now, and NoSpace, from
    `append` and `replace`, when it certainly keeps what it did."""

    def load(self) -> bytes:
        """The log, and maybe what was being written behind it; empty when there is none yet."""

    def cut(self, size: int) -> None:
        """The log has `size` bytes: let nothing stand behind them."""

    def append(self, at: int, record: bytes) -> None:
        """Write at `at`, the end of the log. It is kept when this returns."""

    def replace(self, log: bytes) -> None:
        """Keep this log in place of the other, in one step."""


class Journal:
    """Reads are answered from `table`, changes by `change`."""

    def __init__(self, store: Store, blank: Callable[[], Table], short: int = SHORT) -> None:
        self._store = store
        self._blank = blank
        self._short = short
        self._table: Table | None = None
        self._tail = 0
        self._certain = False  # that the table is what the store keeps

    @property
    def table(self) -> Table:
        """Everything answered so far, at least. Raises DeviceFailed before it was ever read."""
        return self._table or self.load()

    def load(self) -> Table:
        """Read the log; drop what was not finished. The same in a new life and after a failure."""
        log, table = self._store.load(), self._blank()
        if log:
            tail = replay(log, table)
            self._store.cut(tail)
        else:
            log = table.log()
            self._store.replace(log)
            tail = len(log)
        self._table, self._tail, self._certain = table, tail, True
        return table

    def change(self, operation: bytes, record_of: Callable[[Table], Record]) -> int:
        """Do what `record_of` says, unless `operation` was done before; the answer, then or now.

        Raises an Answer only when the change was certainly not made, else DeadUnknown.
        """
        table = self._certain_table()
        if operation in table.answers:
            return table.answers[operation]
        record = record_of(table)
        try:
            self._write(table, record)
        except DeviceFailed:
            self._certain = False
            answers = self._certain_table().answers
            if operation not in answers:
                raise
            return answers[operation]
        return table.apply(record)

    def _certain_table(self) -> Table:
        if self._table is not None and self._certain:
            return self._table
        try:
            return self.load()
        except DeviceFailed as error:
            raise DeadUnknown(f"say it again, it may have been done: {error}") from error

    def _write(self, table: Table, record: Record) -> None:
        if self._tail + record.size > longest(table.log_size, self._short):
            log = table.log()
            self._store.replace(log)
            self._tail = len(log)
        self._store.append(self._tail, record.sealed(self._tail))
        self._tail += record.size


def replay(log: bytes, table: Table) -> int:
    """Make in `table` what the log says; where its last whole record ends."""
    end = len(MAGIC)
    try:
        for record, end in records(log):  # noqa: B007
            table.apply(record)
    except Damaged as error:
        raise DeviceFailed(f"the journal cannot be read: {error}") from error
    return end


def longest(log_size: int, short: int = SHORT) -> int:
    """Bytes that a log may grow to when its table could be told in `log_size`."""
    return max(short, 2 * log_size)
