"""handles: which badge stands for which file. Survives SIGKILL between any two stores.

The table lives in a region that the next life gets back; a region of zeros is an empty table.

    0         8                    middle               end
    selector  log of half 0        log of half 1

Bit 0 of the selector byte says which log counts. A change is one record appended to it; a record
whose checksum is wrong was being written when its writer died, and is not there. When the log is
full the table is written into the other half, and then one store of one byte makes that the table.
So each operation is seen after a crash either as a whole or not at all. Behind the last record of
the log in use there are zeros only. A badge is never given out twice.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection, Iterator
from mmap import mmap
from typing import NamedTuple

from servers.fs.paths import is_under
from ukernel.abi.errors import Overload

SELECTOR_SIZE = 8  # one byte of it counts
CHECKSUM = struct.Struct("<I")  # of the record behind it and of where that stands
FIELDS = struct.Struct("<BQHH")  # kind, badge, bytes of `path`, bytes of `new`; then these two
OVERHEAD = CHECKSUM.size + FIELDS.size

NEXT = 1  # badges below `badge` have been used
ADD = 2  # `badge` stands for `path`
FORGET = 3  # `badge` stands for nothing
RENAME = 4  # what stood for `path` and below stands for `new`
REMOVE = 5  # what stood for `path` stands for nothing


class TableFull(Overload):
    """No room for another open file: close some, or give the handle region more memory."""


class Record(NamedTuple):
    kind: int
    badge: int = 0
    path: str = ""
    new: str = ""

    def sealed(self, offset: int) -> bytes:
        """As it stands in a log at `offset`."""
        path, new = self.path.encode(), self.new.encode()
        packed = FIELDS.pack(self.kind, self.badge, len(path), len(new)) + path + new
        return CHECKSUM.pack(zlib.crc32(packed, offset)) + packed


class Table:
    """The contents, as the records make them: the same step for a change and for its replay."""

    def __init__(self, paths: dict[int, str], next_badge: int) -> None:
        self.paths = paths
        self.next_badge = next_badge

    def after(self, record: Record) -> Table:
        """A table that differs from this one by `record`."""
        changed = Table(dict(self.paths), self.next_badge)
        changed.apply(record)
        return changed

    def apply(self, record: Record) -> None:
        EFFECTS[record.kind](self, record)

    def log(self) -> bytes:
        """The shortest log that makes this table."""
        log = bytearray(Record(NEXT, self.next_badge).sealed(0))
        for badge, path in self.paths.items():
            log += Record(ADD, badge, path).sealed(len(log))
        return bytes(log)

    def log_size(self) -> int:
        return OVERHEAD + sum(OVERHEAD + len(path.encode()) for path in self.paths.values())

    def next_is(self, record: Record) -> None:
        self.next_badge = record.badge

    def add(self, record: Record) -> None:
        self.paths[record.badge] = record.path
        self.next_badge = max(self.next_badge, record.badge + 1)  # compacted logs hold old ones

    def forget(self, record: Record) -> None:
        self.paths.pop(record.badge, None)

    def remove(self, record: Record) -> None:
        self.paths = {badge: path for badge, path in self.paths.items() if path != record.path}

    def rename(self, record: Record) -> None:
        _, _, old, new = record
        self.paths = {
            badge: new + path[len(old) :] if is_under(path, old) else path
            for badge, path in self.paths.items()
            if path != new or old == new
        }


EFFECTS: dict[int, Callable[[Table, Record], None]] = {
    NEXT: Table.next_is,
    ADD: Table.add,
    FORGET: Table.forget,
    RENAME: Table.rename,
    REMOVE: Table.remove,
}


class HandleTable:
    """badge -> path in a persistent region. Badges are u64, from 1 upwards."""

    def __init__(self, memory: memoryview | mmap) -> None:
        self._memory = memory
        self._half_size = (len(memory) - SELECTOR_SIZE) // 2
        self._half = memory[0] & 1
        self._table = Table({}, 1)
        self._tail = 0
        self._replay()
        self._wipe_rest()

    def add(self, path: str) -> int:
        """A new badge for `path`. Raises TableFull."""
        badge = self._table.next_badge
        self._change(Record(ADD, badge, path))
        return badge

    def path(self, badge: int) -> str | None:
        """The path that the badge stands for now; None if there is no such file any more."""
        return self._table.paths.get(badge)

    def badges(self) -> frozenset[int]:
        """Every badge that stands for a file."""
        return frozenset(self._table.paths)

    def rename(self, old: str, new: str) -> None:
        """Let handles at and under `old` follow it; those of a file replaced at `new` are gone.

        Raises TableFull, since paths may grow.
        """
        self._change(Record(RENAME, 0, old, new))

    def remove(self, path: str) -> None:
        """Forget every handle of `path`: a new file of that name is another file."""
        self._change(Record(REMOVE, 0, path))

    def forget(self, badge: int) -> None:
        """The last holder of the badge has let go of it. Unknown badges are fine."""
        self._change(Record(FORGET, badge))

    def keep_only(self, badges: Collection[int]) -> None:
        """Forget all the others, in one step."""
        paths = self._table.paths
        kept = {badge: path for badge, path in paths.items() if badge in badges}
        if len(kept) != len(paths):
            self._compact(Table(kept, self._table.next_badge))

    def _change(self, record: Record) -> None:
        after = self._table.after(record)
        if after.paths == self._table.paths:
            return
        sealed = record.sealed(self._tail)
        # A log is never let grow beyond what compaction can take, or `forget` might not fit.
        if after.log_size() > self._half_size:
            raise TableFull(f"{len(after.paths)} handles do not fit in {len(self._memory)} bytes")
        if self._tail + len(sealed) > self._half_size:
            self._compact(after)
            return
        self._store(self._at(self._half, self._tail), sealed)
        self._table = after
        self._tail += len(sealed)

    def _compact(self, after: Table) -> None:
        """Write `after` into the other half and switch to it."""
        other, log = 1 - self._half, after.log()
        self._store(self._at(other, 0), log.ljust(self._half_size, b"\0"))
        self._store(0, bytes([other]))
        self._table, self._half, self._tail = after, other, len(log)

    def _replay(self) -> None:
        start = self._at(self._half, 0)
        for record, end in _records(bytes(self._memory[start : start + self._half_size])):
            self._table.apply(record)
            self._tail = end

    def _wipe_rest(self) -> None:
        """Clear what a torn record left, lest a part of it look like a record later."""
        start, rest = self._at(self._half, self._tail), self._half_size - self._tail
        if any(self._memory[start : start + rest]):
            self._store(start, bytes(rest))

    def _at(self, half: int, offset: int) -> int:
        return SELECTOR_SIZE + half * self._half_size + offset

    def _store(self, at: int, data: bytes) -> None:
        """The only place that changes the memory, so that a test can die in the middle of it."""
        self._memory[at : at + len(data)] = data


def _records(log: bytes) -> Iterator[tuple[Record, int]]:
    """Each whole record of a log and where it ends."""
    at = 0
    while at + OVERHEAD <= len(log):
        (checksum,) = CHECKSUM.unpack_from(log, at)
        body = at + CHECKSUM.size
        kind, badge, path_size, new_size = FIELDS.unpack_from(log, body)
        text = at + OVERHEAD
        end = text + path_size + new_size
        if kind not in EFFECTS or end > len(log) or checksum != zlib.crc32(log[body:end], at):
            return
        path, new = log[text : text + path_size], log[text + path_size : end]
        yield Record(kind, badge, path.decode(), new.decode()), end
        at = end
