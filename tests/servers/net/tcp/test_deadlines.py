"""Deadlines and budgets: the heap wakes whom a list of everybody would, and does not grow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from servers.net.tcp.budget import Budget
from servers.net.tcp.deadlines import SPARE, Deadlines


class Sleeper:
    """Somebody who is to be woken."""


steps = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60), st.integers(0, 3)), max_size=80)


@given(steps)
def test_they_are_those_of_a_list_of_everybody(moves: list[tuple[int, int, int]]) -> None:
    sleepers = [Sleeper() for _ in range(6)]
    deadlines: Deadlines[Sleeper] = Deadlines()
    model: dict[Sleeper, int] = {}
    now = 0
    for who, when, passed in moves:
        deadlines.set(sleepers[who], when)
        model[sleepers[who]] = when
        now += passed
        assert deadlines.next == min((at for at in model.values() if at), default=0)
        due = {sleeper for sleeper, at in model.items() if 0 < at <= now}
        assert set(deadlines.due(now)) == due
        model.update(dict.fromkeys(due, 0))
        assert len(deadlines) == sum(1 for at in model.values() if at)


def test_those_first_due_come_first() -> None:
    one, two = Sleeper(), Sleeper()
    deadlines: Deadlines[Sleeper] = Deadlines()
    deadlines.set(one, 20)
    deadlines.set(two, 10)
    assert deadlines.due(30) == [two, one]


def test_the_heap_stays_small_whatever_moves() -> None:
    sleepers = [Sleeper() for _ in range(10)]
    deadlines: Deadlines[Sleeper] = Deadlines()
    for when in range(20_000, 1, -1):
        deadlines.set(sleepers[when % 10], when)
    assert len(deadlines._heap) <= 2 * 10 + SPARE + 1
    assert len(deadlines.due(1 << 40)) == 10
    assert deadlines.next == 0
    assert not deadlines._heap


def test_a_budget_is_spent_and_comes_back() -> None:
    budget = Budget(200)
    assert sum(budget.take(5_000_000) for _ in range(1000)) == 200
    assert sum(budget.take(5_100_000) for _ in range(1000)) == 20
    assert sum(budget.take(90_000_000) for _ in range(1000)) == 200


def test_time_that_goes_back_earns_nothing() -> None:
    budget = Budget(200)
    assert sum(budget.take(1_000_000 + at % 2 * 500_000) for at in range(1000)) < 310
