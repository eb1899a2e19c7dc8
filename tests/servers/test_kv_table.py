"""The table of kv: what is kept, what is remembered, what fits; and its log makes it again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.kv.journal import replay
from servers.kv.log import LONGEST_OPERATION, Record
from servers.kv.table import LARGEST_NUMBER, Table
from ukernel.abi.services import PAGE, NoSpace, NoSuchKey

LIMIT, REMEMBER = 400, 4

names = st.sampled_from(["a", "b", "näme"])
ids = st.binary(min_size=1, max_size=LONGEST_OPERATION)
Change = Callable[[Table], Record]
changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(
        lambda key, size, op: lambda table: table.put(key, b"v" * size, op),
        names,
        st.integers(0, LIMIT),
        ids,
    ),
    st.builds(
        lambda key, amount, op: lambda table: table.add(key, amount, op),
        names,
        st.integers(0, 2**32 - 1),
        ids,
    ),
    st.builds(lambda key, op: lambda table: table.remove(key, op), names, ids),
)


def table() -> Table:
    return Table(LIMIT, REMEMBER)


def contents(of: Table) -> object:
    """Everything that one can ask it, and everything that it would answer again."""
    values = {key: of.get(key) for key in of.keys(0)}
    numbers = {key: of.number(key) for key in ("a", "b", "näme", "n")}
    return values, numbers, list(of.answers.items())


def test_it_keeps_values_and_numbers_apart() -> None:
    kept = table()
    kept.apply(kept.put("a", b"one", b"1"))
    assert kept.apply(kept.add("a", 5, b"2")) == 5
    assert kept.apply(kept.add("a", 6, b"3")) == 11
    assert (kept.get("a"), kept.number("a"), kept.keys(0)) == (b"one", 11, ["a"])
    kept.apply(kept.remove("a", b"4"))
    with pytest.raises(NoSuchKey):
        kept.get("a")
    assert (kept.number("a"), kept.keys(0)) == (0, [])


def test_keys_come_in_pages() -> None:
    kept = Table(1 << 20, 1)
    for number in range(PAGE + 3):
        kept.apply(kept.put(f"{number:04}", b"", b"id"))
    assert kept.keys(0) == [f"{number:04}" for number in range(PAGE)]
    assert kept.keys(PAGE) == [f"{number:04}" for number in range(PAGE, PAGE + 3)]
    assert kept.keys(PAGE + 3) == []


def test_it_remembers_the_last_answers() -> None:
    kept = table()
    for number in range(REMEMBER + 2):
        kept.apply(kept.add("n", 1, b"%d" % number))
    assert list(kept.answers.items()) == [(b"%d" % n, n + 1) for n in range(2, REMEMBER + 2)]


def test_a_number_has_64_bits() -> None:
    kept = table()
    kept.apply(Record(2, "n", LARGEST_NUMBER - 1))
    kept.apply(kept.add("n", 1, b"1"))
    with pytest.raises(NoSpace, match="64 bits"):
        kept.add("n", 1, b"2")


@given(st.lists(changes, max_size=40))
def test_its_log_makes_it_again_and_has_a_bound(many: list[Change]) -> None:
    kept = table()
    for change in many:
        before = contents(kept)
        try:
            record = change(kept)
        except NoSpace:
            assert contents(kept) == before
            continue
        if record.operation not in kept.answers:
            kept.apply(record)
        log, again = kept.log(), table()
        assert len(log) == kept.log_size <= kept.largest_log
        assert replay(log, again) == len(log)
        assert contents(again) == contents(kept)


@given(st.lists(changes, max_size=20))
def test_a_full_one_can_be_emptied(many: list[Change]) -> None:
    kept = table()
    for change in many:
        with suppress(NoSpace):
            kept.apply(change(kept))
    with pytest.raises(NoSpace, match="limit_bytes"):
        kept.put("big", bytes(LIMIT), b"id")
    for key in ("a", "b", "näme"):
        kept.apply(kept.remove(key, b"id"))
    kept.apply(kept.put("a", bytes(LIMIT - 64), b"id"))
