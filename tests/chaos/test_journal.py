"""journal: a run goes into JSON and comes back the same, and what is no journal is told where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from launcher.chaos import journal
from launcher.chaos.evidence import (
    FAIL,
    INFO,
    OK,
    OPEN,
    Blast,
    Connection,
    Evidence,
    Health,
    Injection,
    Leg,
    Line,
    Operation,
    Recovery,
    Result,
    Snapshot,
    Transfer,
    Usage,
    Verdict,
)
from launcher.chaos.journal import BadJournal, Origin

MS = 1_000_000
ORIGIN = Origin("2025-01-31T12:00:00+00:00", {"cpu": "a cpu", "cores": 2}, {"python": "3.11"}, "")
VERDICTS = [
    Verdict("acked_writes_durable", Result.HELD, "3 of 3 are there", {"acknowledged": 3}),
    Verdict("bystanders", Result.UNKNOWN, "nobody looked"),
]


def recovery(life: int, killed_ms: int, **more: Any) -> Recovery:
    """A death at `killed_ms`, whose repair reaches a stage every millisecond."""
    times = [(killed_ms + after) * MS for after in range(8)]
    return Recovery("disk", life, "killed by SIGKILL", True, *times)._replace(**more)


def operation(number: int, outcome: str = OK, took_ms: int = 1, **more: Any) -> Operation:
    begun_ns = (1000 + 10 * number) * MS
    ended_ns = 0 if outcome == OPEN else begun_ns + took_ms * MS
    made = Operation("writer", number, "write", f"/writer/{number}", begun_ns, ended_ns, outcome)
    return made._replace(**more)


def evidence() -> Evidence:
    """One of everything."""
    usage = (Usage("disk", 12, 2**20), Usage("kernel", 40, 2**24))
    return Evidence(
        seed=4000,
        placement="micro",
        calm_ns=500 * MS,
        begun_ns=1000 * MS,
        ended_ns=2000 * MS,
        history=[
            *(operation(number) for number in range(20)),
            operation(20, INFO, error="E_DEAD_UNKNOWN: disk died"),
            operation(21, FAIL, error="NoSuchFile: /writer/21"),
            operation(22, OPEN, outcomes=0),
            *(operation(number, client="clock", op="now") for number in range(50)),
            operation(4, took_ms=600, client="fetcher", op="download"),
        ],
        injections=[
            Injection(0, "kill", "disk", 1100 * MS, 1101 * MS, life=1, detail="SIGKILL"),
            Injection(1, "pause", "fs", 1300 * MS, 1301 * MS, 1400 * MS),
            Injection(2, "drop", "fs->disk", 1500 * MS, 0, detail="the link was closed"),
        ],
        recoveries=[recovery(1, 1101), recovery(2, 1601, injected=False)],
        before=Snapshot(usage, 5, {"caps": 30, "lives": 4}),
        after=Snapshot(usage[:1], 5, {"caps": 31}),
        found={"/writer/0": "abc"},
        found_after_reboot={},
        predicted=Blast(("disk",), ("fs",), ("console",)),
        observed=Blast(("disk",), ("fs", "console"), ()),
        sweep=[Leg(0.0, 0, 20_000_000, 1.0, 0, True), Leg(2.5, 0, 15_000_000, 1.0, 4, False)],
        prepared={"fetcher": "abc"},
        transfers=[Transfer("fetcher", 4, "nic0", 40_000, 20_000_000)],
        connections=[Connection("nic0", 40_000, 1050 * MS, 1600 * MS, 20_000_200)],
        lines=[
            Line("pulse", "vm-a", (900 + 100 * n) * MS, f"heartbeat {n}0 {n}001234 {n}00")
            for n in range(1, 9)
        ],
        health=[Health("pulse", "vm-a", 1500 * MS, "running", 0, 0)],
        unheard="",
        bystanders=("clock",),
        failed=("fs",),
        beside=Evidence(
            placement="mono",
            begun_ns=5000 * MS,
            ended_ns=6000 * MS,
            history=[operation(0, begun_ns=5000 * MS, ended_ns=5001 * MS)],
            injections=[Injection(0, "kill", "disk", 5100 * MS, 5101 * MS)],
            recoveries=[recovery(1, 5101)],
            lines=[
                Line("pulse", "vm-a", (4900 + 100 * n) * MS, f"heartbeat {n}0 {n}001234 {n}00")
                for n in (1, 2, 4, 4, 5)
            ],
            health=[],
            sweep=[],
            transfers=[],
            connections=[],
        ),
    )


def document(
    found: Evidence | None = None, verdicts: list[Verdict] | None = None, title: str = "a title"
) -> dict[str, Any]:
    """As it comes from a file."""
    chosen = VERDICTS if verdicts is None else verdicts
    made = journal.document(title, "version: 1\n", ORIGIN, found or evidence(), chosen)
    return dict(json.loads(json.dumps(made, allow_nan=False)))


def test_a_run_comes_back_as_it_was() -> None:
    run = journal.parse(document())
    assert run.evidence == evidence()
    assert run.verdicts == [verdict._replace(figures={**verdict.figures}) for verdict in VERDICTS]
    assert (run.title, run.experiment, run.seed) == ("a title", "version: 1\n", 4000)
    assert (run.origin, run.result) == (ORIGIN, Result.UNKNOWN)


def test_a_journal_says_what_the_evidence_comes_to() -> None:
    figures = document()["figures"]
    assert figures["injections"] == {"planned": 3, "landed": 2}
    assert figures["outcomes"] == {OK: 71, FAIL: 1, INFO: 1, OPEN: 1}
    assert figures["restarts"] == {"disk": 2}
    reply = figures["recovery_ms"]["first_good_reply"]
    assert reply == {"n": 1, "p50": 7.0, "p90": 7.0, "p99": 7.0, "max": 7.0}
    assert list(figures["recovery_ms"]) == list(journal.STAGES)


def test_a_stage_that_was_not_reached_is_not_counted() -> None:
    found = journal.stages([recovery(1, 10), recovery(2, 20, serving_ns=0, client_ns=0)])
    assert found["ready"] == [5.0, 5.0]
    assert found["first_good_reply"] == [7.0]
    assert not any(journal.stages([recovery(1, 0, killed_ns=0, dead_ns=0)]).values())


def test_a_death_by_itself_counts_from_the_death() -> None:
    assert journal.stages([recovery(1, 10, killed_ns=0)])["spawned"] == [1.0]


def test_repairs_of_what_was_injected_are_studied_and_all_without_any() -> None:
    assert [each.life for each in journal.studied(evidence())] == [1]
    alone = Evidence(recoveries=[recovery(2, 10, injected=False)])
    assert [each.life for each in journal.studied(alone)] == [2]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([], Result.UNKNOWN),
        ([Result.HELD, Result.HELD], Result.HELD),
        ([Result.HELD, Result.UNKNOWN], Result.UNKNOWN),
        ([Result.UNKNOWN, Result.BROKEN, Result.HELD], Result.BROKEN),
    ],
)
def test_unknown_is_not_a_pass(results: list[Result], expected: Result) -> None:
    assert journal.overall([Verdict("c", result, "") for result in results]) is expected


def test_what_json_does_not_have_is_written_as_null() -> None:
    odd = Verdict("c", Result.HELD, "", {"mean": float("nan"), "pair": (1, float("inf"))})
    assert document(verdicts=[odd])["verdicts"][0]["figures"] == {"mean": None, "pair": [1, None]}


def test_here_says_what_it_ran_on() -> None:
    origin = journal.here()
    assert origin.host["cores"] > 0
    assert "core" not in origin.host
    assert origin.date.endswith("+00:00")
    assert {"python", "libzmq"} <= set(origin.versions)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (["schema"], "bench-ipc/1", "its schema is 'bench-ipc/1', not 'chaos-journal/1'"),
        (["seed"], "many", "seed: Input should be a valid integer"),
        (["evidence"], 3, "not a mapping"),
        (["evidence", "history"], {"columns": ["client"], "rows": [[1, 2]]}, "zip()"),
        (["evidence", "history"], {"rows": []}, "columns"),
        (["evidence", "history", "rows", 0, 6], "perhaps", "'perhaps' is no outcome"),
        (["evidence", "injections", 1], {"number": 1}, "evidence.injections.1.fault: Field req"),
        (["evidence", "before", "usage", 0, "fds"], "x", "evidence.before.usage.0.fds: Input"),
        (["verdicts", 0, "result"], "passed", "verdicts.0.result: Input should be 'held'"),
        (["origin"], {}, "and 1 more"),
    ],
)
def test_what_is_no_journal_is_told_where(path: list[Any], value: object, expected: str) -> None:
    whole: Any = document()
    part = whole
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(BadJournal) as refused:
        journal.parse(whole)
    assert str(refused.value).startswith("not a journal: ")
    assert expected in str(refused.value)


@pytest.mark.parametrize("value", [None, [], "text", {}])
def test_any_other_json_is_refused(value: object) -> None:
    with pytest.raises(BadJournal, match="its schema is None"):
        journal.parse(value)
