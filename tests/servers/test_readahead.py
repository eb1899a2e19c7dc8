"""Read-ahead: who goes on line by line finds them asked for; who does not asks for nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.fs.readahead import NOTHING, STREAMS, WINDOW, ReadAhead


@pytest.mark.parametrize("step", [1, -1])
def test_a_reader_is_always_a_window_ahead_and_asks_for_no_line_twice(step: int) -> None:
    policy, asked = ReadAhead(), list[int]()
    lines = range(1000, 1000 + 20 * step, step)
    for number, line in enumerate(lines):
        asked += policy.read(line)
        if number >= 1:
            assert line in asked
        if number >= 2:
            assert set(range(line, line + WINDOW * step, step)) <= set(asked)
        assert all(abs(far - line) < 2 * WINDOW for far in asked if (far - line) * step > 0)
    assert len(set(asked)) == len(asked)
    assert lines[0] not in asked


def test_one_line_makes_no_reader() -> None:
    assert ReadAhead().read(7) == NOTHING


@given(lines=st.lists(st.integers(0, 300).map(lambda n: 3 * n)))
def test_reads_here_and_there_ask_for_nothing(lines: list[int]) -> None:
    policy = ReadAhead()
    assert all(policy.read(line) == NOTHING for line in lines)


@given(step=st.sampled_from([1, -1]), turns=st.lists(st.integers(0, STREAMS - 1), max_size=60))
def test_readers_in_turn_do_not_disturb_each_other(step: int, turns: list[int]) -> None:
    policy, alone = ReadAhead(), [ReadAhead() for _ in range(STREAMS)]
    at = [1000 * n + 500 for n in range(STREAMS)]
    for reader in turns:
        assert policy.read(at[reader]) == alone[reader].read(at[reader])
        at[reader] += step


def test_a_line_that_is_read_once_more_changes_nothing() -> None:
    policy = ReadAhead()
    policy.read(0)
    assert policy.read(1) == range(1, 1 + WINDOW)
    for other in range(1, STREAMS):
        policy.read(1000 * other)
    assert policy.read(1) == NOTHING
    assert policy.read(2) == range(1 + WINDOW, 1 + 2 * WINDOW)


def test_lines_that_were_there_already_are_passed_over() -> None:
    policy = ReadAhead()
    policy.read(0)
    policy.read(1)
    assert policy.read(4) == range(1 + WINDOW, 1 + 2 * WINDOW)


def test_downwards_it_ends_at_the_first_line() -> None:
    policy = ReadAhead()
    policy.read(2)
    assert policy.read(1) == range(2)
    assert policy.read(0) == NOTHING
