"""supervisor: each rule by itself, by example. For all of them together see the model."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.heartbeat import LATE_S, Vital
from launcher.supervisor import (
    NEVER,
    SPARE_S,
    STABLE_S,
    STOP_S,
    BringDown,
    Kill,
    Ping,
    Ready,
    Round,
    Settle,
    Spare,
    Start,
    State,
    Stop,
    Wanted,
    decide,
    next_due_s,
)
from tests.launcher.nursery import MEMORY, Nursery
from ukernel.abi.exits import NO_RESTART, OUT_OF_MEMORY
from ukernel.abi.manifest import Backoff, Heartbeat, Restart, Server

STEADY = Backoff(first_ms=50, factor=2, max_ms=30_000, jitter=0)


def server(*, standby: bool = False, critical: bool = False, **restart: Any) -> Server:
    policy = Restart(**{"backoff": STEADY, "max_restarts": 100, **restart})
    return Server(run="x", standby=standby, critical=critical, memory=MEMORY, restart=policy)


def one(**settings: Any) -> Nursery:
    """A system of one server, `a`, which is READY."""
    nursery = Nursery({"a": server(**settings)}, {})
    nursery.start()
    return nursery


def group(strategy: str, names: str = "abc", **settings: Any) -> Nursery:
    """A group of servers, and `z` outside it, all READY."""
    servers = {name: server(strategy=strategy, **settings) for name in names}
    nursery = Nursery({**servers, "z": server()}, {"g": tuple(names)})
    nursery.start()
    return nursery


def starts(*names: str) -> list[Start]:
    return [Start(name) for name in names]


def stops(*names: str) -> list[Stop]:
    return [Stop(name) for name in names]


# --- one server ----------------------------------------------------------------------------------


def test_the_first_death_is_repaired_at_once() -> None:
    assert one().lose("a") == starts("a")


def waits_ms(nursery: Nursery, deaths: int, luck: float = 0.5) -> list[float]:
    """How long it takes from each death to the start that it leads to."""
    waits = []
    for _ in range(deaths):
        nursery.now_s += 0.01
        died_s = nursery.now_s
        actions = nursery.lose("a", luck=luck) or nursery.wait_due()
        assert actions == starts("a")
        waits.append(round(1000 * (nursery.now_s - died_s), 6))
        nursery.ready("a")
    return waits


def test_back_off_grows_up_to_its_maximum() -> None:
    assert waits_ms(one(), 13) == [
        0, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        (Backoff(first_ms=0, jitter=1), [0, 0, 0, 0]),
        (Backoff(first_ms=20, factor=1, jitter=0), [0, 20, 20, 20]),
        (Backoff(first_ms=20, factor=1.5, jitter=0), [0, 20, 30, 45]),
        (Backoff(first_ms=20, factor=1e300, max_ms=70, jitter=0), [0, 20, 70, 70]),
    ],
)
def test_back_off_is_as_it_is_set(backoff: Backoff, expected: list[float]) -> None:
    assert waits_ms(one(backoff=backoff), 4) == expected


def test_a_slow_growth_reaches_the_maximum_too() -> None:
    nursery = one(backoff=Backoff(first_ms=50, factor=1.01, max_ms=5000, jitter=0), within_s=0.001)
    assert waits_ms(nursery, 500)[-1] == 5000


@given(st.floats(0, 1), st.floats(0, 1))
def test_chance_adds_or_takes_a_share(jitter: float, luck: float) -> None:
    backoff = Backoff(first_ms=100, factor=1, jitter=jitter)
    last = waits_ms(one(backoff=backoff), 2, luck)[-1]
    assert last == pytest.approx(100 * (1 + jitter * (2 * luck - 1)), abs=1e-4)


def test_a_death_after_a_long_time_of_ready_is_a_first_one() -> None:
    nursery = one()
    assert waits_ms(nursery, 3) == [0, 50, 100]
    nursery.wait(STABLE_S)
    assert waits_ms(nursery, 2) == [0, 50]
    nursery.wait(STABLE_S - 1)
    assert waits_ms(nursery, 1) == [100]


def test_time_that_is_not_ready_proves_nothing() -> None:
    nursery = one(ready_timeout_s=1000.0)
    nursery.lose("a")
    nursery.wait(STABLE_S)
    assert nursery.lose("a") == []


def test_too_many_deaths_in_too_short_a_time() -> None:
    nursery = one(max_restarts=3, within_s=10, backoff=Backoff(first_ms=0))
    assert [nursery.lose("a") for _ in range(4)] == [*[starts("a")] * 3, [Settle("a", True)]]


def test_restarts_are_counted_in_a_window() -> None:
    nursery = one(max_restarts=2, within_s=10, backoff=Backoff(first_ms=0))
    for _ in range(20):
        nursery.now_s += 5.1
        assert nursery.lose("a") == starts("a")
    nursery.now_s += 4
    assert nursery.lose("a") == [Settle("a", True)]


def test_it_is_the_starts_that_are_counted() -> None:
    """Deaths far apart, but chance makes the restarts follow each other closely."""
    backoff = Backoff(first_ms=9900, factor=1, jitter=1)
    nursery = one(max_restarts=1, within_s=10, backoff=backoff)
    nursery.lose("a")
    nursery.ready("a")
    nursery.wait(11)
    assert nursery.lose("a", luck=1.0) == []
    assert nursery.wait_due() == starts("a")
    nursery.ready("a")
    assert nursery.lose("a", luck=0.0) == [Settle("a", True)]


def test_no_restart_at_all() -> None:
    assert one(max_restarts=0).lose("a") == [Settle("a", True)]


def test_what_failed_stays_so_until_a_person_wants_it() -> None:
    nursery = one(max_restarts=1)
    nursery.lose("a")
    nursery.lose("a")
    for _ in range(3):
        assert nursery.wait(1000) == []
    assert next_due_s(nursery.state) == NEVER
    assert nursery.want("a", True) == starts("a")
    assert waits_ms(nursery, 1) == [0]  # nothing is held against it


def test_a_person_may_restart_as_often_as_he_likes() -> None:
    nursery = one(max_restarts=1)
    for _ in range(10):
        assert nursery.want("a", True) == stops("a")
        assert nursery.lose("a", 0) == starts("a")


def test_a_person_does_not_wait_for_the_back_off() -> None:
    nursery = one()
    waits_ms(nursery, 8)
    assert nursery.lose("a") == []
    assert nursery.want("a", True) == starts("a")


def test_the_last_wish_counts() -> None:
    nursery = one()
    assert nursery.want("a", False) == stops("a")
    assert nursery.want("a", True) == []
    assert nursery.want("a", False) == []
    assert nursery.lose("a", 0) == [Settle("a", False)]
    assert nursery.want("a", False) == [Settle("a", False)]


def test_what_was_stopped_is_not_started() -> None:
    nursery = one(when="always")
    nursery.want("a", False)
    assert nursery.lose("a", -9) == [Settle("a", False)]
    assert nursery.wait(1000) == []


def test_a_stop_ends_the_back_off() -> None:
    nursery = one()
    waits_ms(nursery, 3)
    assert nursery.lose("a") == []
    assert nursery.want("a", False) == [Settle("a", False)]
    assert nursery.wait(1000) == []


@pytest.mark.parametrize(
    ("when", "status", "expected"),
    [
        ("crashed", 0, Settle("a", False)),
        ("crashed", 1, Start("a")),
        ("crashed", -9, Start("a")),
        ("crashed", OUT_OF_MEMORY, Start("a")),
        ("crashed", NO_RESTART, Settle("a", True)),
        ("always", 0, Start("a")),
        ("always", 1, Start("a")),
        ("always", NO_RESTART, Settle("a", True)),
        ("never", 0, Settle("a", False)),
        ("never", 1, Settle("a", True)),
        ("never", -9, Settle("a", True)),
    ],
)
def test_after_each_status(when: str, status: int, expected: Settle | Start) -> None:
    assert one(when=when).lose("a", status) == [expected]


@pytest.mark.parametrize("status", [1, -9, NO_RESTART])
def test_who_never_came_up_is_misconfigured(status: int) -> None:
    nursery = Nursery({"a": server(when="always")}, {})
    nursery.want("a", True)
    assert nursery.lose("a", status) == [Settle("a", True)]
    nursery.start("a")
    nursery.lose("a")
    assert nursery.lose("a", 1) == []  # it has been READY once: this goes on


def test_the_system_goes_down_with_a_critical_server() -> None:
    nursery = one(critical=True, max_restarts=0)
    settle, down = nursery.lose("a")
    assert settle == Settle("a", True)
    assert isinstance(down, BringDown)
    assert "a is critical" in down.why
    assert one(critical=True).lose("a", 0) == [Settle("a", False)]


# --- time limits ---------------------------------------------------------------------------------


def test_who_is_not_ready_in_time_is_killed() -> None:
    nursery = one(ready_timeout_s=3)
    nursery.lose("a")
    assert next_due_s(nursery.state) == nursery.now_s + 3
    assert nursery.wait_due() == [Kill("a", "was not READY in 3 s")]
    assert decide(nursery.state, Ready("a"), nursery.now_s) == []  # too late
    assert nursery.notice("a") == []
    assert nursery.wait(0.05) == starts("a")


def test_who_does_not_leave_is_killed_and_killed_again() -> None:
    nursery = one()
    nursery.want("a", True)
    for _ in range(3):
        assert next_due_s(nursery.state) == nursery.now_s + STOP_S
        assert nursery.wait_due() == [Kill("a", "did not leave in 2 s")]
    assert nursery.notice("a") == starts("a")


def test_a_killed_server_that_left_by_itself_has_crashed_all_the_same() -> None:
    nursery = one()
    nursery.die("a", 0)
    nursery.look(["a"])
    assert nursery.notice("a") == starts("a")


def test_a_stop_of_a_killed_server() -> None:
    nursery = one()
    nursery.look(["a"])
    assert nursery.want("a", False) == []
    assert nursery.notice("a") == [Settle("a", False)]


def test_an_old_deadline_is_not_that_of_the_next_life() -> None:
    nursery = one()
    nursery.want("a", True)
    nursery.wait(STOP_S - 0.1)
    nursery.lose("a", 0)
    assert nursery.wait(0.2) == []


# --- groups --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "victim", "leaving", "coming"),
    [
        ("one_for_one", "b", "", "b"),
        ("rest_for_one", "a", "cb", "abc"),
        ("rest_for_one", "b", "c", "bc"),
        ("rest_for_one", "c", "", "c"),
        ("one_for_all", "a", "cb", "abc"),
        ("one_for_all", "b", "ca", "abc"),
        ("one_for_all", "c", "ba", "abc"),
    ],
)
def test_whom_a_restart_takes_along(strategy: str, victim: str, leaving: str, coming: str) -> None:
    nursery = group(strategy)
    actions = nursery.lose(victim)
    if not leaving:
        assert actions == starts(victim)
        return
    assert actions == stops(*leaving)
    *early, last = [nursery.lose(name, 0) for name in leaving]
    assert [*early, last] == [*[[]] * len(early), starts(*coming)]


@pytest.mark.parametrize("order", list(permutations("abc")), ids="".join)
def test_all_of_a_group_die_at_once(order: tuple[str, ...]) -> None:
    """Nobody starts before all are dead, and then in order, at once."""
    nursery = group("one_for_all")
    for name in order:
        nursery.die(name, -9)
    told = [nursery.notice(name) for name in order]
    assert told[1:] == [[], starts(*"abc")]


@pytest.mark.parametrize("order", list(permutations("abc")), ids="".join)
def test_all_that_rest_on_each_other_die_at_once(order: tuple[str, ...]) -> None:
    """Who is missed first starts first; when one before it is missed too, it starts again."""
    nursery = group("rest_for_one")
    for name in order:
        nursery.die(name, -9)
    for name in order:
        nursery.notice(name)
    nursery.run_out()
    born = [nursery.accounts[name].born for name in "abc"]
    assert born == sorted(born)


def test_the_group_waits_as_long_as_its_leader() -> None:
    nursery = group("one_for_all")
    waits_ms_of_leader(nursery, 3)
    assert nursery.lose("a") == stops("c", "b")
    nursery.lose("b", 0)
    nursery.lose("c", 0)
    assert nursery.wait(0.199) == []
    assert nursery.wait(0.002) == starts("a", "b", "c")


def waits_ms_of_leader(nursery: Nursery, deaths: int) -> None:
    """Let `a` have died so often, while its group comes and goes."""
    for _ in range(deaths):
        nursery.lose("a")
        for name in nursery.order:
            if nursery.accounts[name].leaving:
                nursery.lose(name, 0)
        if not nursery.accounts["a"].up:
            nursery.wait_due()
        for name in nursery.order:
            nursery.ready(name)


def test_nobody_is_woken_while_a_death_is_what_is_missing() -> None:
    nursery = group("rest_for_one")
    nursery.lose("a")
    assert next_due_s(nursery.state) == nursery.now_s + STOP_S
    assert nursery.wait(STOP_S) == [
        Kill("b", "did not leave in 2 s"),
        Kill("c", "did not leave in 2 s"),
    ]
    assert nursery.notice("c") == []
    assert nursery.notice("b") == starts("a", "b", "c")


def test_who_is_taken_along_has_not_failed() -> None:
    nursery = group("one_for_all", max_restarts=2)
    nursery.lose("a")
    assert nursery.lose("b", -11) == []
    nursery.lose("c", 0)
    for name in "abc":
        nursery.ready(name)
    assert nursery.lose("b") == stops("c", "a")
    nursery.lose("a")
    assert nursery.lose("c") == starts("a", "b", "c")  # at once: it is b's first


def test_whoever_is_taken_along_and_says_leave_me_is_left() -> None:
    nursery = group("one_for_all", critical=True)
    nursery.lose("a")
    settle, down = nursery.lose("b", NO_RESTART)
    assert (settle, type(down)) == (Settle("b", True), BringDown)
    assert nursery.lose("c", 0) == starts("a", "c")


def test_who_is_never_restarted_is_not_restarted_with_others() -> None:
    nursery = Nursery(
        {"a": server(strategy="one_for_all"), "b": server(when="never")}, {"g": ("a", "b")}
    )
    nursery.start()
    assert nursery.lose("a") == stops("b")
    assert nursery.lose("b", 0) == [Settle("b", False), Start("a")]


def test_who_rests_is_left_resting() -> None:
    nursery = group("one_for_all", max_restarts=1)
    nursery.want("b", False)
    nursery.lose("b", 0)
    nursery.lose("c")
    nursery.lose("a", 0)
    nursery.ready("a")
    nursery.ready("c")
    nursery.lose("c")  # beyond what it may
    assert nursery.lose("a") == starts("a")
    assert nursery.wait(1000) == [Kill("a", "was not READY in 10 s")]


def test_a_stop_is_not_undone_by_a_restart_of_the_group() -> None:
    nursery = group("one_for_all")
    nursery.want("b", False)
    assert nursery.lose("a") == stops("c")
    assert nursery.lose("c", 0) == []  # b has known the old a
    assert nursery.lose("b", 0) == [Settle("b", False), Start("a"), Start("c")]


def test_a_stop_of_one_that_is_taken_along() -> None:
    nursery = group("one_for_all")
    nursery.lose("a")
    assert nursery.want("b", False) == []
    nursery.lose("b", 0)
    assert nursery.lose("c", 0) == starts("a", "c")


@pytest.mark.parametrize("running", [True, False])
def test_a_person_takes_the_leader_out_of_its_back_off(running: bool) -> None:
    """Those that it took along do not wait for it for ever."""
    nursery = group("rest_for_one")
    waits_ms_of_leader(nursery, 3)
    nursery.lose("a")
    nursery.lose("b", 0)
    first = Start("a") if running else Settle("a", False)
    assert nursery.want("a", running) == [first, Start("b")]
    assert nursery.lose("c", 0) == starts("c")


def test_a_person_starts_one_that_was_taken_along() -> None:
    """It is not waited for as if it were still to die."""
    nursery = group("rest_for_one")
    waits_ms_of_leader(nursery, 3)
    nursery.lose("a")
    nursery.lose("b", 0)
    nursery.lose("c", 0)
    assert nursery.want("b", True) == starts("b")
    assert nursery.wait_due() == starts("a", "c")


def test_a_person_restarts_one_that_is_leaving() -> None:
    nursery = group("rest_for_one")
    waits_ms_of_leader(nursery, 3)
    nursery.lose("a")
    assert nursery.want("b", True) == []
    assert nursery.lose("b", 0) == starts("b")
    nursery.lose("c", 0)
    assert nursery.wait_due() == starts("a", "c")


def test_a_back_off_of_one_that_is_taken_along_goes_on() -> None:
    servers = {"a": server(strategy="rest_for_one"), "b": server()}
    nursery = Nursery(servers, {"g": ("a", "b")})
    nursery.start()
    for _ in range(8):
        nursery.lose("b")
        nursery.wait(20)
        nursery.ready("b")
    assert nursery.lose("b") == []
    assert nursery.lose("a") == starts("a")  # b is dead: there is nobody to wait for
    assert nursery.wait(6.3) == []
    assert nursery.wait(0.2) == starts("b")


def test_and_does_not_end_before_the_one_that_takes_it_along() -> None:
    servers = {"a": server(strategy="rest_for_one"), "b": server()}
    nursery = Nursery(servers, {"g": ("a", "b")})
    nursery.start()
    waits_ms_of_leader(nursery, 4)
    assert nursery.lose("b") == starts("b")
    nursery.ready("b")
    assert nursery.lose("b") == []  # for 50 ms
    assert nursery.lose("a") == []  # for 400 ms
    assert nursery.wait(0.3) == []
    assert nursery.wait(0.2) == starts("a", "b")


def test_a_chain_of_leaders() -> None:
    """c has to wait for b, then a takes both along."""
    nursery = group("rest_for_one")
    for _ in range(4):
        nursery.lose("b")
        nursery.lose("c", 0)
        nursery.wait(2)
        for name in "abc":
            nursery.ready(name)
    assert nursery.lose("b") == stops("c")
    assert nursery.lose("a") == []
    assert nursery.lose("c", 0) == starts("a")
    assert nursery.wait(0.3) == []
    assert nursery.wait(0.2) == starts("b", "c")


def test_the_first_leader_stays_the_leader() -> None:
    """a waits, with b and c behind it; a person starts b, and b dies: c is a's all the same."""
    nursery = group("rest_for_one")
    waits_ms_of_leader(nursery, 4)
    for name in "abc":
        nursery.lose(name, 0 if name != "a" else -9)
    assert nursery.want("b", True) == starts("b")
    nursery.ready("b")
    assert nursery.lose("b") == starts("b")
    assert nursery.wait_due() == starts("a", "c")


def test_a_leader_that_dies_again_before_its_group_is_gone() -> None:
    nursery = group("one_for_all")
    nursery.lose("a")
    nursery.want("a", True)
    assert nursery.lose("a") == []  # b and c are still leaving, and will come back with it
    assert nursery.lose("c", 0) == []
    assert nursery.lose("b", 0) == starts("a", "b", "c")


def test_a_hung_companion_is_judged_by_itself() -> None:
    """It was killed already when its group began to start again: that is a death of its own."""
    nursery = group("one_for_all", max_restarts=1)
    nursery.look(["b"])
    nursery.lose("a")
    assert nursery.lose("c", 0) == []
    assert nursery.notice("b") == starts("a", "b", "c")
    nursery.ready("b")
    nursery.look(["b"])
    assert nursery.notice("b") == [Settle("b", True)]


def test_a_group_need_not_be_whole() -> None:
    """Servers that a person starts are in no group that the supervisor knows of."""
    state = State({"a": server(strategy="one_for_all")}, {"g": ("a", "shell")})
    assert decide(state, Wanted("a", True), 1.0) == starts("a")
    assert state.companions(state.children["a"]) == []


# --- standby -------------------------------------------------------------------------------------


def test_a_standby_is_asked_for_once_a_life() -> None:
    nursery = one(standby=True)
    for _ in range(3):
        assert nursery.wait_due() == [Spare("a")]
        assert next_due_s(nursery.state) == NEVER
        assert nursery.wait(100) == []
        nursery.lose("a")
        assert nursery.wait(1) == []  # not before it is READY
        nursery.ready("a")


def test_a_standby_that_dies_is_replaced_after_a_while() -> None:
    nursery = one(standby=True)
    nursery.wait_due()
    nursery.spare_dies("a")
    assert next_due_s(nursery.state) == nursery.now_s + SPARE_S
    assert nursery.wait(SPARE_S / 2) == []
    assert nursery.wait_due() == [Spare("a")]


def test_a_standby_that_dies_while_nobody_is_ready() -> None:
    nursery = one(standby=True)
    nursery.wait_due()
    nursery.want("a", False)
    nursery.spare_dies("a")
    nursery.lose("a", 0)
    assert next_due_s(nursery.state) == NEVER
    nursery.start("a")
    assert nursery.wait(SPARE_S) == [Spare("a")]


# --- the end -------------------------------------------------------------------------------------


def test_nothing_starts_while_the_system_goes_down() -> None:
    nursery = group("one_for_all", standby=True)
    waits_ms_of_leader(nursery, 4)
    nursery.lose("a")
    nursery.lose("b", 0)
    nursery.go_down()
    assert nursery.lose("c", -9) == [Settle("c", False)]
    assert next_due_s(nursery.state) == NEVER
    assert nursery.wait(1000) == []
    assert nursery.want("a", True) == [Settle("a", False)]


def test_who_does_not_leave_a_system_that_goes_down_is_killed() -> None:
    nursery = one()
    nursery.go_down()
    nursery.want("a", False)
    assert nursery.wait_due() == [Kill("a", "did not leave in 2 s")]


# --- rounds --------------------------------------------------------------------------------------


def test_a_hung_server_is_killed_and_restarted() -> None:
    nursery = Nursery({"a": server(), "z": server()}, {})
    nursery.start()
    heard_s, told = nursery.now_s, nursery.look()
    assert told == [Ping("a"), Ping("z")]
    while not any(isinstance(action, Kill) for action in told):
        nursery.now_s += 0.1
        told = decide(
            nursery.state, Round({"a": Vital(heard_s), "z": Vital(nursery.now_s)}), nursery.now_s
        )
    assert told == [Kill("a", "hung: silent for 300 ms after a ping"), Ping("z")]
    account = nursery.accounts["a"]
    account.leaving, account.shot, account.corpse = "shot", True, -9
    assert nursery.notice("a") == starts("a")


def test_only_who_is_ready_is_looked_after() -> None:
    nursery = Nursery({name: server() for name in "ab"}, {})
    nursery.want("a", True)
    nursery.start("b")
    glutton = Vital(0.0, used_bytes=MEMORY + 1)
    assert decide(nursery.state, Round({"a": glutton}), nursery.now_s + LATE_S) == []


def test_a_new_life_has_a_pulse_of_its_own() -> None:
    nursery = one()
    nursery.look()
    nursery.lose("a")
    nursery.ready("a")
    nursery.now_s += 100
    assert decide(nursery.state, Round({"a": Vital(0.0)}), nursery.now_s) == [Ping("a")]


def test_who_is_not_watched_is_not_pinged() -> None:
    spec = Server(run="x", heartbeat=Heartbeat(period_ms=0))
    nursery = Nursery({"a": spec}, {})
    nursery.start()
    assert nursery.look() == []
