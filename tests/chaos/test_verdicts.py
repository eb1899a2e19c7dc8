"""verdicts: every checker is asked; a fault that missed makes a run invalid, unseen is not lost."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import TypeAdapter

from launcher.chaos import actions, checks, nemesis, probes, rollbacks
from launcher.chaos.checks import AnyChecker, Checker
from launcher.chaos.evidence import OK, Evidence, Injection, Operation, Result
from launcher.chaos.experiment import Rollback
from launcher.chaos.journal import overall
from launcher.chaos.verdicts import verdicts

LANDED = Injection(0, "kill", "disk", 10, 11)
MISSED = Injection(1, "kill", "disk", 20, 0, detail="disk had been given up")
WRITE = Operation("w", 0, "write", "/w/0", 1, 2, OK, "aa")


def checkers(*entries: Any) -> list[Checker]:
    return [TypeAdapter(AnyChecker).validate_python(entry) for entry in entries]


def results(asked: list[Checker], evidence: Evidence, unseen: str = "") -> dict[str, Result]:
    return {v.checker: v.result for v in verdicts(asked, evidence, unseen)}


def test_a_fault_that_never_landed_makes_any_run_invalid() -> None:
    asked = checkers("kernel_alive")
    assert results(asked, Evidence(injections=[LANDED])) == {"kernel_alive": Result.HELD}
    found = [*verdicts(asked, Evidence(injections=[LANDED, MISSED]), "")]
    assert overall(found) is Result.UNKNOWN
    assert "kill 1 on disk never landed: disk had been given up" in found[-1].why


def test_who_asks_for_landed_faults_is_told_once() -> None:
    asked = checkers({"min_landed": {"faults": 1}}, "kernel_alive")
    found = [*verdicts(asked, Evidence(injections=[LANDED, MISSED]), "")]
    assert [v.checker for v in found] == ["min_landed", "kernel_alive"]


def test_what_nobody_could_look_at_is_not_lost() -> None:
    asked = checkers("acked_writes_durable", "no_duplicate_effect", "one_outcome_per_call")
    lost = Evidence(history=[WRITE], found={})
    assert results(asked, lost)["acked_writes_durable"] is Result.BROKEN
    assert results(asked, lost, "client w: exit 1") == {
        "acked_writes_durable": Result.UNKNOWN,
        "no_duplicate_effect": Result.UNKNOWN,
        "one_outcome_per_call": Result.HELD,
    }


def test_whatever_a_file_can_name_can_be_done() -> None:
    assert actions.ACTIONS.keys() == nemesis.ACTIONS.keys()
    assert set(probes.PROBES) == set(checks.PROBES.values())
    assert set(rollbacks.ROLLBACKS) == set(get_args(Rollback))
