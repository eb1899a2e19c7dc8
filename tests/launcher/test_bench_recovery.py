"""bench recovery: an outage ends with the next life's answer, the figures add up, nothing is left.
No time is asserted: what a run measures is for people to read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.bench import outages, recovery, subjects
from launcher.bench.outages import (
    ABSENT,
    LIMITS_MS,
    MEASURED,
    SCHEMA,
    Call,
    NoRecovery,
    RecoveryResult,
    Sample,
)
from launcher.config import load
from launcher.rundir import running
from launcher.tasks import Stages
from tests.conftest import Ukernel

MS = 1_000_000
OLD, NEW = 11, 12  # lives
RECOVERED = ("detected", "dead", "ready", "serving", "client")


def stages(killed: int, *at: int) -> Stages:
    """A recovery whose stages were reached at these nanoseconds."""
    return Stages("echo", 1, -9, "killed by SIGKILL", killed, *at)


# --- which call ends an outage ------------------------------------------------------------------


def test_an_answer_that_was_on_its_way_ends_no_outage() -> None:
    """Killed at 100; the old life's last answer arrives at 130, the next life serves at 150."""
    calls = [Call(70, 90, 0), Call(95, 130, 0), Call(131, 155, 0), Call(156, 160, 0)]
    assert outages.first_after(calls, 150) == 155
    told = [Call(70, 90, OLD), Call(95, 130, OLD), Call(131, 155, NEW), Call(156, 160, NEW)]
    assert outages.first_of_another(told, OLD) == 155


def test_without_an_answer_of_the_next_life_there_is_no_outage() -> None:
    with pytest.raises(NoRecovery):
        outages.first_after([Call(70, 90, 0)], 100)
    with pytest.raises(NoRecovery):
        outages.first_of_another([Call(70, 90, OLD)], OLD)


def test_what_was_reached_before_the_kill_is_no_stage_of_the_recovery() -> None:
    """A standby has said HELLO long ago."""
    sample = Sample(100, 170, stages(100, 110, 120, 130, 40, 150, 160))
    assert sample.outage_ns == 70
    assert sample.after_kill_ns() == {
        "detected": 10, "dead": 20, "spawned": 30, "ready": 50, "serving": 60,
    }  # fmt: skip
    assert Sample(100, 170).after_kill_ns() == {}


# --- figures ------------------------------------------------------------------------------------


def row(variant: str, kind: str, *outages_ms: float) -> outages.Row:
    return outages.row_of(variant, kind, [Sample(0, round(ms * MS)) for ms in outages_ms])


def test_a_row_has_the_percentiles_and_the_verdict_on_its_p50() -> None:
    good, late = row("standby", "ours", 1, 1.5, 9), row("standby", "ours", 3, 2.5, 2.1)
    assert (good.n, good.status, good.unit, good.metric) == (3, MEASURED, "ns", "outage")
    assert [good.summary[name] / MS for name in outages.SHOWN] == [1, 1.5, 9, 9, 9]
    assert good.samples == [1 * MS, 1.5 * MS, 9 * MS]
    assert (good.limit_ms, good.within, late.within) == (2.0, True, False)
    baseline = row("subprocess", "baseline", 50)
    assert (baseline.limit_ms, baseline.within, baseline.stages_p50) == (None, None, {})


def test_ratios_are_of_ours_to_each_baseline_that_was_measured() -> None:
    rows = [
        row("zygote", "ours", 4),
        row("subprocess", "baseline", 80),
        outages.absent_row("supervisord", "baseline", "not installed"),
    ]
    assert outages.ratios_of(rows) == {"zygote_over_subprocess_p50": 0.05}
    titles, cells = outages.outage_table(rows)
    assert titles[-1] == "subprocess / it"
    assert [line[0] for line in cells] == ["zygote", "subprocess"]
    assert cells[0][-1] == 20.0
    assert all(len(line) == len(titles) for line in cells)


def test_stages_are_medians_of_those_who_reached_them() -> None:
    samples = [Sample(0, 90 + n, stages(0, n, 20, 30, -5, 50, 60)) for n in (1, 2, 9)]
    found = outages.row_of("standby", "ours", samples)
    assert found.stages_p50 == {
        "detected": 2, "dead": 20, "spawned": 30, "hello": None, "ready": 50, "serving": 60,
        "client": 92,
    }  # fmt: skip
    titles, cells = outages.stage_table([found])
    assert len(titles) == len(cells[0])


# --- whole runs ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime_dir")
def test_a_run_is_complete_and_leaves_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    before = psutil.Process().children(recursive=True)
    descriptors = psutil.Process().num_fds()
    plan = recovery.Plan(2, ("standby", "zygote", "cold", "subprocess"))
    result = recovery.measure(plan, told.append)
    assert sorted(line.split()[1] for line in told) == sorted(plan.variants * plan.kills)
    assert [row.variant for row in result.results] == list(plan.variants)
    result.write(tmp_path / "bench.json")
    check_schema(json.loads((tmp_path / "bench.json").read_text()), plan)
    for row in result.results:
        check_stages(row, ours=row.variant in subjects.OURS)
    assert f"bench-{os.getpid()}" not in running()
    assert set(psutil.Process().children(recursive=True)) <= set(before)
    assert psutil.Process().num_fds() <= descriptors


@pytest.mark.usefixtures("runtime_dir")
def test_who_is_not_installed_is_reported_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(subjects.PYPI, "subprocess", "no_such_package")
    result = recovery.measure(recovery.Plan(1, ("zygote", "subprocess")), lambda line: None)
    ours, absent = result.results
    assert (ours.status, absent.status, absent.n) == (MEASURED, ABSENT, 0)
    assert "pip install no_such_package" in absent.reason
    assert any(absent.reason in note for note in outages.notes(result))
    assert result.as_json()["ratios"] == {}


def test_the_command_prints_all_and_supervisord_too(ukernel: Ukernel, tmp_path: Path) -> None:
    done = ukernel("bench", "recovery", "--kills", "1", "--json", "bench.json")
    found = json.loads((tmp_path / "bench.json").read_text())
    check_schema(found, recovery.Plan(1))
    assert found["versions"]["supervisord"]
    first = [line.split()[0] for line in done.stdout.splitlines() if line]
    assert first.count("standby") == 2  # an outage, and the stages of it
    assert first.count("supervisord") == 1


def check_schema(found: dict[str, Any], plan: recovery.Plan) -> None:
    assert set(found) == {
        "schema", "host", "versions", "commit", "results", "detection", "ratios", "limits_ms",
        "within",
    }  # fmt: skip
    assert found["schema"] == SCHEMA
    assert {"cpu", "cores", "clock_source", "governor", "load", "bytecode"} <= set(found["host"])
    assert {"python", "pyzmq", "libzmq", "msgpack"} <= set(found["versions"])
    assert found["limits_ms"] == LIMITS_MS
    assert set(found["within"]) == set(subjects.OURS)
    assert set(found["ratios"]) == {
        f"{one}_over_{other}_p50"
        for one in subjects.OURS
        for other in subjects.LONE
        if other in plan.variants
    }
    for row in found["results"]:
        assert row["status"] == MEASURED
        assert row["n"] == len(row["samples"]) == plan.kills
        shown = [row["summary"][name] for name in ("min", "p50", "p90", "p99", "max")]
        assert shown == sorted(shown)
        low, high = row["summary"]["ci95"]
        assert shown[0] <= low <= high <= shown[-1]
        assert (row["limit_ms"] is None) == (row["variant"] in subjects.LONE)


def check_stages(row: outages.Row, ours: bool) -> None:
    """Each stage comes after the one before it; of a standby HELLO was said in advance."""
    assert all(outage > 0 for outage in row.samples)
    if not ours:
        assert row.stages_p50 == {}
        return
    assert (row.stages_p50["hello"] is None) == (row.variant == "standby")
    reached = [row.stages_p50[name] for name in RECOVERED]
    assert reached == sorted(reached, key=lambda at: at or 0)
    assert None not in reached


def test_the_result_of_nothing_is_still_a_document() -> None:
    assert RecoveryResult({}, {}, "", []).as_json()["within"] == {}


def test_the_system_file_has_each_of_ours() -> None:
    servers = load(recovery.SYSTEM_FILE).manifest.servers
    ways = {name: servers[subjects.slot(name)] for name in subjects.OURS}
    assert {server.run for server in ways.values()} == {"servers.echo"}
    assert ways["standby"].standby
    assert [ways[name].spawn for name in subjects.OURS] == ["zygote", "zygote", "cold"]
