"""schedule: what is due is done, what cannot be done waits, and nothing is lost with the power."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from launcher.chaos.injecting import Injecting, OutOfReach, Script
from launcher.chaos.plan import Planned
from launcher.chaos.schedule import Nemesis

HOUR_S = 3600.0
HOUR_NS = 3600 * 10**9

Act = Callable[[Injecting], Script]


def planned(*actions: str, apart_s: float = 0.0) -> list[Planned]:
    return [Planned(n, n * apart_s, action, ("disk",), {}) for n, action in enumerate(actions)]


def at_once(injecting: Injecting) -> Script:
    injecting.land("done")
    yield from ()


def for_ever(injecting: Injecting) -> Script:
    injecting.land("it lasts")
    while True:
        yield 0.0


def never(injecting: Injecting) -> Script:
    while True:
        yield 0.0


def begun(plan: list[Planned], perform: Act) -> Nemesis:
    nemesis = Nemesis(plan, perform)
    nemesis.begin(time.monotonic_ns())
    return nemesis


def records(nemesis: Nemesis) -> list[tuple[bool, str]]:
    return [(i.record.landed_ns > 0, i.record.detail) for i in nemesis.injections]


def test_what_is_due_is_done_and_the_rest_waits_for_its_time() -> None:
    nemesis = begun(planned("kill", "kill", "kill", apart_s=HOUR_S), at_once)
    assert HOUR_S - 60 < nemesis.act() <= HOUR_S
    assert records(nemesis) == [(True, "done"), (False, ""), (False, "")]
    assert not nemesis.over
    assert nemesis.calm


def test_without_a_plan_it_is_over_at_once() -> None:
    assert begun([], at_once).over
    assert begun([], at_once).act() == 0.0


def test_a_script_goes_on_after_the_time_that_it_asked_for() -> None:
    went = []

    def twice(injecting: Injecting) -> Script:
        went.append("begun")
        yield HOUR_S
        went.append("never")

    nemesis = begun(planned("pause"), twice)
    assert HOUR_S - 60 < nemesis.act() <= HOUR_S
    assert nemesis.act() > 0
    assert went == ["begun"]
    assert not nemesis.calm


def test_what_is_out_of_reach_is_over_and_says_why() -> None:
    def gone(injecting: Injecting) -> Script:
        yield 0.0
        raise OutOfReach("disk had been given up")

    nemesis = begun(planned("kill"), gone)
    while not nemesis.over:
        nemesis.act()
    assert records(nemesis) == [(False, "disk had been given up")]


def test_plans_are_told_as_they_were_made() -> None:
    nemesis = Nemesis(planned("kill", "kill", apart_s=2.0), at_once)
    nemesis.begin(1_000)
    assert [i.record.planned_ns for i in nemesis.injections] == [1_000, 2_000_001_000]


# --- power ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "perform", "cut"),
    [("powercut", for_ever, True), ("powercut", never, False), ("kill", for_ever, False)],
)
def test_only_a_power_cut_that_has_landed_explains_a_dead_machine(
    action: str, perform: Act, cut: bool
) -> None:
    nemesis = begun(planned(action), perform)
    assert not nemesis.cuts_power
    nemesis.act()
    assert nemesis.cuts_power is cut


def test_with_the_power_what_had_landed_ends_and_what_had_only_begun_begins_again() -> None:
    scripts = {"powercut": for_ever, "kill": for_ever, "pause": never}
    plan = planned("powercut", "kill", "pause")
    plan[2] = plan[2]._replace(params={"for_s": 1.0})
    nemesis = begun(plan, lambda injecting: scripts[injecting.planned.action](injecting))
    nemesis.act()
    nemesis.power_is_back(HOUR_NS)
    assert records(nemesis) == [
        (True, "it lasts; the system was booted again"),
        (True, "it lasts; then the power went"),
        (False, ""),
    ]
    cut, killed, paused = nemesis.injections
    assert cut.healed_ns
    assert not killed.healed_ns
    assert (cut.done, killed.done, paused.done) == (True, True, False)
    scripts["pause"] = at_once
    nemesis.act()
    assert nemesis.over
    assert paused.landed_ns


def test_time_stands_still_while_the_power_is_off() -> None:
    nemesis = begun(planned("kill", "kill", apart_s=HOUR_S), at_once)
    nemesis.act()
    nemesis.power_is_back(HOUR_NS)
    assert nemesis.act() > HOUR_S
    assert nemesis.elapsed_s < 0
    second = nemesis.injections[1]
    assert second.due_ns == second.planned_ns + HOUR_NS


# --- the end -------------------------------------------------------------------------------------


def test_what_is_given_up_lets_go_of_what_it_holds() -> None:
    released = []

    def holding(injecting: Injecting) -> Script:
        injecting.land()
        try:
            yield HOUR_S
        finally:
            released.append(injecting.planned.number)

    nemesis = begun(planned("pause", "pause", "pause", apart_s=HOUR_S), holding)
    nemesis.act()
    nemesis.give_up()
    assert nemesis.over
    assert released == [0]
    never_ready = "its time never came: disk was never READY for it"
    assert records(nemesis) == [
        (True, "not over when the run gave it up"),
        (False, never_ready),
        (False, never_ready),
    ]


def test_what_had_not_landed_after_all_is_no_fault() -> None:
    injecting = Injecting(planned("hang")[0])
    injecting.meet(("disk", 3))
    injecting.land()
    injecting.miss("it ended otherwise: exit 1")
    record = injecting.record
    assert (record.landed_ns, record.life, record.detail) == (0, 3, "it ended otherwise: exit 1")
