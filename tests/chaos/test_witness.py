"""witness: which deaths are of the run's own making, and when clients were served again."""

from __future__ import annotations

from launcher.chaos.evidence import FAIL, OK, Operation, Recovery
from launcher.chaos.injecting import Injecting, Life
from launcher.chaos.plan import Planned
from launcher.chaos.stage import cut_short
from launcher.chaos.witness import recoveries
from launcher.tasks import Stages

DEPENDENTS = {"disk": {"writer", "teller"}, "echo": {"talker"}}


def repair(life: int = 1, server: str = "disk", killed_ns: int = 0, serving_ns: int = 90) -> Stages:
    return Stages(server, life, -9, "killed by SIGKILL", killed_ns, 20, 30, 40, 50, 60, serving_ns)


def injection(*ends: tuple[Life, int]) -> Injecting:
    injecting = Injecting(Planned(0, 0.0, "kill", ("disk",), {}))
    injecting.ends = dict(ends)
    return injecting


def answered(client: str, ended_ns: int, outcome: str = OK) -> Operation:
    return Operation(client, 0, "read", "/a", ended_ns - 1, ended_ns, outcome)


def seen(
    repairs: list[Stages],
    injections: list[Injecting],
    cut: set[Life] | None = None,
    history: list[Operation] | None = None,
) -> list[Recovery]:
    return recoveries(repairs, injections, cut or set(), history or [], DEPENDENTS)


def test_a_death_is_the_runs_own_when_that_life_met_something() -> None:
    own, other = seen([repair(1), repair(2)], [injection((("disk", 1), 10))])
    assert (own.injected, own.killed_ns) == (True, 10)
    assert (other.injected, other.killed_ns) == (False, 0)


def test_the_outage_begins_with_what_was_done_or_with_the_launchers_own_kill() -> None:
    earlier, later = injection((("disk", 1), 10)), injection((("disk", 1), 14))
    assert seen([repair(killed_ns=15)], [earlier])[0].killed_ns == 10
    assert seen([repair(killed_ns=15)], [earlier, later])[0].killed_ns == 14
    assert seen([repair(killed_ns=15)], [])[0].killed_ns == 15


def test_a_life_that_dies_by_itself_of_a_fault_begins_its_outage_with_its_death() -> None:
    (doomed,) = seen([repair(2)], [injection((("disk", 1), 10), (("disk", 2), 0))])
    assert (doomed.injected, doomed.killed_ns, doomed.dead_ns) == (True, 0, 30)


def test_a_repair_that_the_power_cut_short_is_nobodys_fault() -> None:
    (cut,) = seen([repair(serving_ns=0)], [injection((("disk", 1), 10))], {("disk", 1)})
    assert not cut.injected


def test_a_client_that_depends_on_it_sees_the_first_answer_after_it_served() -> None:
    history = [
        answered("writer", 89),
        answered("teller", 95, FAIL),
        answered("talker", 92),
        answered("teller", 99),
        answered("writer", 97),
    ]
    (found,) = seen([repair()], [], history=history)
    assert found.client_ns == 97
    (unserved,) = seen([repair(serving_ns=0)], [], history=history)
    assert unserved.client_ns == 0
    (alone,) = seen([repair(server="rng")], [], history=history)
    assert alone.client_ns == 0


def test_a_life_has_a_process_before_it_speaks() -> None:
    late = repair()
    late.spawned_ns = late.hello_ns + 5  # the launcher was busy
    unborn = repair(serving_ns=0)
    unborn.spawned_ns, unborn.hello_ns = 45, 0
    assert [each.spawned_ns for each in seen([late, unborn], [])] == [50, 45]


def test_what_was_being_repaired_when_the_power_went_is_cut_short() -> None:
    repairs = [
        repair(1, serving_ns=0),  # repaired by the next
        repair(2),
        repair(1, "echo"),
        repair(3, serving_ns=0),
        repair(4, serving_ns=0),
    ]
    assert set(cut_short(repairs)) == {("disk", 3), ("disk", 4)}
