"""A journal in memory: killed at any store of any change, it has the change or has it not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.kv.journal import Journal, longest
from servers.kv.log import MAGIC, Record
from servers.kv.stores import NoStore, RegionStore, region_size
from servers.kv.table import Table
from ukernel.abi.services import NoSpace

LIMIT, REMEMBER = 160, 3
SHORT = 200  # so small that the log is compacted every few changes
SIZE = region_size(longest(Table(LIMIT, REMEMBER).largest_log, SHORT))
KEYS = ("a", "bb")


class Killed(BaseException):
    """SIGKILL in the middle of a store."""


class Mortal(RegionStore):
    """Dies after so many steps: the store of a byte, or of the word that publishes."""

    def __init__(self, memory: memoryview, steps_to_live: int) -> None:
        super().__init__(memory)
        self.left = steps_to_live

    def _store(self, at: int, data: bytes) -> None:
        super()._store(at, data[: self.left])
        self._spend(len(data))

    def _publish(self, at: int, word: int) -> None:
        if self.left:
            super()._publish(at, word)
        self._spend(1)

    def _spend(self, steps: int) -> None:
        if steps > self.left:
            raise Killed
        self.left -= steps


class Change(NamedTuple):
    key: str
    amount: int  # added; 0: a value of `size` is put instead
    size: int

    def record(self, operation: bytes) -> Callable[[Table], Record]:
        if self.amount:
            return lambda table: table.add(self.key, self.amount, operation)
        return lambda table: table.put(self.key, b"\xff" * self.size, operation)


changes = st.lists(
    st.builds(Change, st.sampled_from(KEYS), st.integers(0, 3), st.integers(0, 90)), max_size=12
)


def journal(store: RegionStore) -> Journal:
    return Journal(store, lambda: Table(LIMIT, REMEMBER), SHORT)


def contents(of: Journal) -> object:
    table = of.table
    values = {key: table.get(key) for key in table.keys(0)}
    return values, [table.number(key) for key in KEYS], list(table.answers.items())


def outcome(on: Journal, change: Change, operation: bytes) -> object:
    try:
        return on.change(operation, change.record(operation))
    except NoSpace:
        return NoSpace


@settings(deadline=None, max_examples=40)
@given(changes)
def test_killed_at_any_byte_of_any_change(many: list[Change]) -> None:
    memory = bytearray(SIZE)
    for number, change in enumerate(many):
        operation = b"op %d" % number
        before = bytes(memory)
        whole = journal(RegionStore(memoryview(memory)))
        state = contents(whole)
        answer = outcome(whole, change, operation)
        allowed = [state, contents(whole)]
        for steps in range(10_000):
            torn = bytearray(before)
            view = memoryview(torn)
            try:
                outcome(journal(Mortal(view, steps)), change, operation)
            except Killed:
                survivor = journal(RegionStore(view))
                assert contents(survivor) in allowed
                assert outcome(survivor, change, operation) == answer
                assert contents(survivor) == allowed[1] == contents(journal(RegionStore(view)))
                continue
            break
        assert contents(journal(RegionStore(memoryview(memory)))) == allowed[1]


def test_what_a_torn_record_leaves_is_never_taken_for_one() -> None:
    memory = memoryview(bytearray(SIZE))
    first = journal(RegionStore(memory))
    first.change(b"1", lambda table: table.put("a", b"", b"1"))
    tail = len(MAGIC) + Record(1, "a", 0, b"", b"1").size
    # The next value holds a record of its own, just where the log will go on.
    short = Record(1, "bb", 0, b"", b"3")
    behind = tail + short.size
    forged = Record(2, "bb", 666, b"", b"forged").sealed(behind)
    value = bytes(behind - (tail + 8 + 16 + len("bb") + 1)) + forged
    body = len(Record(1, "bb", 0, value, b"2").sealed(tail)) - 4
    with pytest.raises(Killed):
        journal(Mortal(memory, body)).change(b"2", lambda table: table.put("bb", value, b"2"))
    survivor = journal(RegionStore(memory))
    survivor.change(b"3", lambda table: table.put("bb", b"", b"3"))
    assert journal(RegionStore(memory)).table.number("bb") == 0


def test_nothing_of_an_older_log_is_read_behind_a_compacted_one() -> None:
    memory = memoryview(bytearray(SIZE))
    for number in range(100):  # all records have one size: an old one stands where a new one would
        operation = b"%03d" % number
        on = journal(RegionStore(memory))
        assert on.change(operation, Change("a", 1, 0).record(operation)) == number + 1
    assert journal(RegionStore(memory)).table.number("a") == 100


def test_a_full_one_says_so_and_stays_as_it_was() -> None:
    memory = memoryview(bytearray(SIZE))
    full = journal(RegionStore(memory))
    full.change(b"1", lambda table: table.put("a", bytes(90), b"1"))
    before = contents(full)
    with pytest.raises(NoSpace):
        full.change(b"2", lambda table: table.put("bb", bytes(90), b"2"))
    assert contents(full) == before == contents(journal(RegionStore(memory)))
    for number in range(100):  # and does not fill up with what is removed
        operation = b"remove %d" % number
        full.change(operation, lambda table: table.remove("a", operation))  # noqa: B023
        operation = b"put %d" % number
        full.change(operation, Change("a", 0, 90).record(operation))
    assert full.table.get("a") == b"\xff" * 90


def test_without_a_store_the_next_life_has_nothing() -> None:
    store = NoStore()
    first = Journal(store, lambda: Table(LIMIT, REMEMBER), SHORT)
    for _ in range(2):  # said again in the same life, it is done once
        assert first.change(b"1", lambda table: table.add("a", 5, b"1")) == 5
    again = Journal(store, lambda: Table(LIMIT, REMEMBER), SHORT)
    assert again.table.number("a") == 0
