"""The handle table: a crash at every store of every operation leaves it before or after, only."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from servers.fs.handles import HandleTable, TableFull

SIZE = 512  # so small that the table is compacted every few operations
Operation = Callable[[HandleTable], object]


class Killed(BaseException):
    """SIGKILL in the middle of a store."""


class Recorded(HandleTable):
    """Keeps every store, byte by byte."""

    def __init__(self, memory: memoryview) -> None:
        self.stores: list[tuple[int, bytes]] = []
        super().__init__(memory)

    def _store(self, at: int, data: bytes) -> None:
        self.stores.append((at, data))
        super()._store(at, data)


class Mortal(HandleTable):
    """Dies after so many bytes have been stored."""

    def __init__(self, memory: memoryview, bytes_to_live: int) -> None:
        self.left = bytes_to_live
        super().__init__(memory)

    def _store(self, at: int, data: bytes) -> None:
        done = data[: self.left]
        super()._store(at, done)
        self.left -= len(done)
        if len(done) < len(data):
            raise Killed


def contents(memory: bytearray) -> dict[int, str | None]:
    """What the next life finds in a copy of the memory."""
    table = HandleTable(memoryview(bytearray(memory)))
    return {badge: table.path(badge) for badge in table.badges()}


def held(table: HandleTable) -> dict[int, str | None]:
    return {badge: table.path(badge) for badge in table.badges()}


def history(seed: int, count: int) -> list[Operation]:
    """Operations that fill, rename and empty the table."""
    dice = random.Random(seed)
    paths = ["/a", "/a/b", "/a/long name, to fill the log sooner", "/c", "/ü"]
    menu: list[Callable[[], Operation]] = [
        lambda: _adding(dice.choice(paths)),
        lambda: _adding(dice.choice(paths)),
        lambda: _renaming(dice.choice(paths), dice.choice(paths)),
        lambda: _forgetting(dice.randrange(1, 40)),
        lambda: _removing(dice.choice(paths)),
        lambda: _keeping(dice.randrange(2, 4)),
    ]
    return [dice.choice(menu)() for _ in range(count)]


def _adding(path: str) -> Operation:
    return lambda table: table.add(path)


def _renaming(old: str, new: str) -> Operation:
    return lambda table: table.rename(old, new)


def _forgetting(badge: int) -> Operation:
    return lambda table: table.forget(badge)


def _removing(path: str) -> Operation:
    return lambda table: table.remove(path)


def _keeping(modulus: int) -> Operation:
    return lambda table: table.keep_only([b for b in table.badges() if b % modulus])


def attempt(table: HandleTable, operation: Operation) -> None:
    try:
        operation(table)
    except TableFull:
        table.keep_only([])


def test_a_region_of_zeros_is_an_empty_table() -> None:
    table = HandleTable(memoryview(bytearray(SIZE)))
    assert table.badges() == frozenset()
    assert table.path(1) is None
    assert table.add("/a") == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_kill_after_every_byte_leaves_before_or_after(seed: int) -> None:
    memory = bytearray(SIZE)
    compactions = 0
    for operation in history(seed, 60):
        before, torn = contents(memory), bytearray(memory)
        recorded = Recorded(memoryview(memory))
        attempt(recorded, operation)
        after = held(recorded)
        assert contents(memory) == after
        compactions += len(recorded.stores) == 2
        for at, data in recorded.stores:
            for n, byte in enumerate(data):
                torn[at + n] = byte
                assert contents(torn) in (before, after)
    assert compactions > 3


@pytest.mark.parametrize("seed", range(20))
def test_a_store_torn_in_any_order_leaves_before_or_after(seed: int) -> None:
    dice = random.Random(seed)
    memory = bytearray(SIZE)
    for operation in history(seed, 40):
        before, start = contents(memory), bytes(memory)
        recorded = Recorded(memoryview(memory))
        attempt(recorded, operation)
        if not recorded.stores:
            continue
        torn = bytearray(start)
        *whole, (at, data) = recorded.stores[: dice.randint(1, len(recorded.stores))]
        for place, stored in whole:
            torn[place : place + len(stored)] = stored
        for n in dice.sample(range(len(data)), dice.randint(0, len(data))):
            torn[at + n] = data[n]
        assert contents(torn) in (before, held(recorded))


def test_life_goes_on_after_every_kill() -> None:
    """Each operation is killed at a random byte, by the same token as the next life's start."""
    dice = random.Random(7)
    memory = bytearray(SIZE)
    given: set[int] = set()
    for operation in history(7, 400):
        expected = contents(memory)
        try:
            table = Mortal(memoryview(memory), dice.randrange(60))
            assert held(table) == expected
            attempt(table, operation)
        except Killed:
            continue
        new = table.badges() - set(expected)
        assert not new & given
        given |= new


def test_a_torn_record_is_wiped_before_the_next_is_written() -> None:
    memory = bytearray(SIZE)
    HandleTable(memoryview(memory)).add("/a")
    whole = bytes(memory)
    memory[100:140] = b"\xff" * 40
    HandleTable(memoryview(memory))
    assert memory == whole


def test_badges_are_never_reused_even_when_the_table_was_emptied() -> None:
    memory = bytearray(SIZE)
    last = 0  # kept, so that an old badge is the last that a compacted log names
    for _ in range(200):
        table = HandleTable(memoryview(memory))
        badge = table.add("/a")
        assert badge == last + 1
        table.keep_only([last])
        last = badge


def test_rename_moves_what_is_below_and_drops_what_was_replaced() -> None:
    table = HandleTable(memoryview(bytearray(SIZE)))
    inner, beside, replaced = table.add("/d/x"), table.add("/dd"), table.add("/e")
    table.rename("/d", "/e")
    assert table.path(inner) == "/e/x"
    assert table.path(beside) == "/dd"
    assert table.path(replaced) is None
    table.rename("/e/x", "/e/x")
    assert table.path(inner) == "/e/x"


def test_a_removed_file_is_not_the_next_one_of_its_name() -> None:
    memory = bytearray(SIZE)
    table = HandleTable(memoryview(memory))
    old = table.add("/a")
    table.remove("/a")
    new = table.add("/a")
    assert contents(memory) == {new: "/a"}
    assert old != new


def test_a_full_table_says_so_and_can_always_forget() -> None:
    memory = bytearray(SIZE)
    table = HandleTable(memoryview(memory))
    with pytest.raises(TableFull, match=f"do not fit in {SIZE} bytes"):
        [table.add("/abc") for _ in range(SIZE)]
    full = held(table)
    assert contents(memory) == full
    with pytest.raises(TableFull):
        table.rename("/abc", "/" + "x" * 50)
    for badge in full:
        table.forget(badge)
    assert contents(memory) == {}


class HandleMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.memory = bytearray(SIZE)
        self.table = HandleTable(memoryview(self.memory))
        self.model: dict[int, str | None] = {}
        self.last = 0

    paths = st.sampled_from(["/a", "/a/b", "/a/b/c", "/ab", "/c"])

    @rule(path=paths)
    def add(self, path: str) -> None:
        try:
            badge = self.table.add(path)
        except TableFull:
            assert len(self.model) > 8
            return
        assert badge > self.last
        self.last = badge
        self.model[badge] = path

    @rule(old=paths, new=paths)
    def rename(self, old: str, new: str) -> None:
        try:
            self.table.rename(old, new)
        except TableFull:
            return
        if old != new:
            self.model = {b: p for b, p in self.model.items() if p != new}
        for badge, path in self.model.items():
            if path == old or (path or "").startswith(old + "/"):
                self.model[badge] = new + (path or "")[len(old) :]

    @rule(path=paths)
    def remove(self, path: str) -> None:
        self.table.remove(path)
        self.model = {b: p for b, p in self.model.items() if p != path}

    @rule(badge=st.integers(0, 60))
    def forget(self, badge: int) -> None:
        self.table.forget(badge)
        self.model.pop(badge, None)

    @rule(kept=st.sets(st.integers(1, 60)))
    def keep_only(self, kept: set[int]) -> None:
        self.table.keep_only(kept)
        self.model = {b: p for b, p in self.model.items() if b in kept}

    @rule()
    def restart(self) -> None:
        self.table = HandleTable(memoryview(self.memory))

    @invariant()
    def same(self) -> None:
        assert held(self.table) == contents(self.memory) == self.model


TestHandleMachine = HandleMachine.TestCase
TestHandleMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
