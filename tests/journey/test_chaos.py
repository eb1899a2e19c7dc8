"""Faults of every kind land on a running system, and what a run says of each of them is true."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from launcher.chaos import journal
from launcher.chaos.evidence import INFO, OK, OPEN, Result
from tests.conftest import Ukernel
from tests.journey.experiments import (
    GAMBLER,
    KEPT,
    READER,
    READY,
    STORAGE,
    TALKER,
    TELLER,
    WATCH,
    WRITER,
    experiment,
    injections,
    play,
    repairs,
    results,
    told,
)

KILLED = "killed by SIGKILL"
HUNG = "hung: silent for [0-9]+ ms after a ping"
FULL = "met its memory limit|has [0-9]+ bytes of memory, and may have [0-9]+"


def test_a_driver_killed_under_load_and_the_journal_of_it(ukernel: Ukernel, tmp_path: Path) -> None:
    path = experiment(
        tmp_path,
        STORAGE,
        workload=[WRITER, TELLER, {**WATCH, "bystander": True}],
        steady_state=[READY, {"probe": "availability", "client": "writer", "min": 1.0}],
        nemesis=[{"at": 0, "every": "200ms", "count": 5, "do": "kill", "target": "disk"}],
        checkers=[
            *KEPT,
            {"min_landed": {"faults": 5}},
            {"recovery_ms": {"p99": 60_000}},
            "bystanders",
            "blast_radius_as_predicted",
            {"no_leak": {"rss_mib": 64}},
        ],
        reboot=True,
    )
    told = ukernel("chaos", "run", str(path), "--json", "out.json", "--report", "report").stdout
    assert "5 of 5 faults landed" in told
    assert "an experiment (seed 7): HELD" in told
    assert "an experiment" in (tmp_path / "report" / "index.html").read_text()
    run = journal.parse(json.loads((tmp_path / "out.json").read_text()))
    assert (run.result, run.seed, run.experiment) == (Result.HELD, 7, path.read_text())
    assert [(i.target, i.life, i.detail) for i in run.evidence.injections] == [
        ("disk", life, KILLED) for life in range(1, 6)
    ]
    assert len(run.evidence.recoveries) == 5
    for injection, repair in zip(run.evidence.injections, run.evidence.recoveries, strict=True):
        assert injection.planned_ns <= injection.landed_ns <= repair.killed_ns
        assert (repair.life, repair.injected) == (injection.life, True)
        assert repair.killed_ns <= repair.dead_ns <= repair.spawned_ns <= repair.serving_ns
    assert run.evidence.found == run.evidence.found_after_reboot


@pytest.mark.usefixtures("runtime_dir")
def test_how_each_life_ended_is_told_as_it_was(tmp_path: Path) -> None:
    nemesis = [
        {"at": 0, "do": "kill", "target": "fs", "signal": "TERM"},
        {"at": 0, "do": "exit", "target": "rng"},
        {"at": 0, "do": "leak", "target": "echo"},
        {"at": "300ms", "do": "hang", "target": "disk"},
        {"at": "300ms", "do": "pause", "target": "timer", "for": "1500ms"},
        {"at": "1500ms", "do": "pause", "target": "echo", "for": "50ms"},
        {"at": "1500ms", "do": "kill_together", "target": ["disk", "kv"]},
    ]
    workload = [WRITER, TELLER, TALKER, GAMBLER, WATCH]
    checkers = [*KEPT, "min_landed", {"recovery_ms": {"p99": 60_000}}, "failed"]
    run = play(experiment(tmp_path, STORAGE, workload=workload, nemesis=nemesis, checkers=checkers))
    assert told(run) == {}
    found = injections(run)
    for landed, detail in {
        ("kill", "fs"): "exit 143",
        ("exit", "rng"): "exit 0",
        ("leak", "echo"): FULL,
        ("hang", "disk"): HUNG,
        ("pause", "timer"): rf"timer was replaced \({HUNG}\)",
        ("pause", "echo"): "all went on",
        ("kill_together", "disk, kv"): f"disk: {KILLED}; kv: {KILLED}",
    }.items():
        assert re.fullmatch(detail, found[landed].detail), landed
    paused = found["pause", "echo"]
    assert paused.healed_ns - paused.landed_ns >= 50_000_000
    ended = repairs(run)
    assert all(repair.injected for repair in ended.values())
    assert ("timer", 1) in ended
    assert ("echo", paused.life) not in ended  # who went on is not repaired


@pytest.mark.usefixtures("runtime_dir")
def test_lives_that_are_broken_from_their_begin_and_servers_in_disorder(tmp_path: Path) -> None:
    servers = ["disk", "fs", "kv", "timer"]
    nemesis = [
        {"at": 0, "do": "crash_init", "target": "kv", "times": 2},
        {"at": 0, "do": "dma_abuse", "target": "rng"},
        {"at": 0, "do": "dma_abuse", "target": "disk"},
        {"at": "500ms", "do": "swizzle", "target": servers, "step": "50ms"},
    ]
    standby = STORAGE.replace("serves: kv,", "serves: kv, standby: true,")
    run = play(
        experiment(
            tmp_path,
            standby.replace("serves: entropy,", "serves: entropy, standby: true,"),
            workload=[WRITER, TELLER, GAMBLER, {**TALKER, "bystander": True}],
            steady_state=[READY],
            nemesis=nemesis,
            checkers=[*KEPT, "min_landed", "failed", "bystanders", {"no_leak": {"rss_mib": 64}}],
        )
    )
    assert told(run) == {}
    found, ended = injections(run), repairs(run)
    doomed = found["crash_init", "kv"]
    assert doomed.detail == f"{KILLED}; 2 of 2 lives after it died in init"
    assert [server for server, _ in ended].count("kv") == 3
    for driver in ("rng", "disk"):
        abuse = found["dma_abuse", driver]
        assert abuse.detail == "8 accesses outside its grant were refused"
        assert {(driver, abuse.life), (driver, abuse.life + 1)} <= ended.keys()
    assert all(repair.injected for repair in ended.values())
    (swizzled,) = (i for i in run.evidence.injections if i.fault == "swizzle")
    held = swizzled.target.split(", ")
    assert set(held) <= set(servers)
    assert swizzled.healed_ns - swizzled.landed_ns >= (2 * len(held) - 1) * 50_000_000


@pytest.mark.usefixtures("runtime_dir")
def test_messages_are_broken_by_one_fault_of_a_kind_at_a_time(tmp_path: Path) -> None:
    disturbed = {"do": "message", "probability": 0.5, "for": "300ms"}
    drop = {"fault": "drop", "link": "teller->kv"}
    nemesis = [
        {"at": 0, "link": "fs->disk", "fault": "delay", "ms": 5, "jitter_ms": 5, **disturbed},
        {"at": 0, "link": "talker->echo", "fault": "corrupt", **disturbed},
        {"at": 0, "link": "teller->kv", "fault": "duplicate", **disturbed},
        {"at": 0, "every": "100ms", "count": 2, **drop, **disturbed},
    ]
    workload = [WRITER, {**TELLER, "timeout_ms": 100}, {**TALKER, "timeout_ms": 100}, WATCH]
    checkers = [*KEPT, "min_landed", "failed"]
    run = play(experiment(tmp_path, STORAGE, workload=workload, nemesis=nemesis, checkers=checkers))
    assert told(run) == {}
    for each in run.evidence.injections:
        assert re.fullmatch(f"{each.fault} [1-9][0-9]* times", each.detail)
        assert each.landed_ns < each.healed_ns
    first, second = (i for i in run.evidence.injections if i.fault == "drop")
    assert first.healed_ns <= second.landed_ns
    assert run.evidence.recoveries == []


@pytest.mark.usefixtures("runtime_dir")
def test_devices_break_each_in_its_way_and_for_its_time(tmp_path: Path) -> None:
    some = {"do": "device", "probability": 0.3, "for": "300ms"}
    nemesis = [
        {"at": 0, "device": "disk0", "fault": "io_error", **some},
        {"at": "400ms", "device": "disk0", "fault": "wrong_data", **some},
        {"at": "400ms", "device": "disk0", "fault": "lost_interrupt", **some, "for": "100ms"},
        {"at": "400ms", "device": "rng0", "fault": "lost_interrupt", **some},
        {"at": "800ms", "device": "disk0", "fault": "stuck", "requests": 1, **some | ALL},
    ]
    run = play(
        experiment(
            tmp_path,
            STORAGE,
            workload=[WRITER, READER, GAMBLER],
            nemesis=nemesis,
            checkers=[*KEPT[:2], "min_landed", "wrong_data_seen", "failed", "kernel_alive"],
        )
    )
    assert told(run) == {}
    found = injections(run)
    for each in found.values():
        assert re.fullmatch(f"{each.fault} [1-9][0-9]* times", each.detail)
    assert found["stuck", "disk0"].detail == "stuck 1 times"
    # The end of one is not the end of the others.
    wrong, lost = found["wrong_data", "disk0"], found["lost_interrupt", "disk0"]
    assert lost.healed_ns < wrong.healed_ns
    outcomes = {operation.outcome for operation in run.evidence.history}
    assert OK in outcomes
    assert OPEN not in outcomes


ALL = {"probability": 1.0}


@pytest.mark.usefixtures("runtime_dir")
def test_the_power_goes_in_the_middle_of_everything(tmp_path: Path) -> None:
    nemesis = [
        {"at": 0, "do": "pause", "target": "echo", "for": "60s"},
        {"at": 0, "do": "message", "link": "fs->disk", "fault": "delay", "ms": 1, "for": "60s"},
        {"at": "300ms", "do": "powercut"},
        {"at": "300ms", "do": "kill", "target": "kv"},
        {"at": "600ms", "do": "kill", "target": "disk"},
        {"at": "900ms", "do": "powercut"},
    ]
    run = play(
        experiment(
            tmp_path,
            STORAGE,
            workload=[WRITER, TELLER],
            steady_state=[READY],
            nemesis=nemesis,
            checkers=[*KEPT, "min_landed", {"recovery_ms": {"p99": 60_000}}, "failed"],
            reboot=True,
        )
    )
    assert told(run) == {}
    found = injections(run)
    assert found["pause", "echo"].detail.endswith("then the power went")
    assert re.fullmatch(
        "delay [0-9]+ times; then the power went", found["delay", "fs->disk"].detail
    )
    cuts = [i for i in run.evidence.injections if i.fault == "powercut"]
    assert [(cut.detail, cut.life) for cut in cuts] == [
        ("the system was booted again", 1),
        ("the system was booted again", 2),
    ]
    # A minute of a fault ends with the power, and the second cut waits for its time after the boot.
    assert cuts[1].landed_ns - cuts[0].healed_ns >= 500_000_000
    assert found["kill", "disk"].life > 1  # lives are counted over all boots
    assert repairs(run)["disk", found["kill", "disk"].life].injected
    history = run.evidence.history
    assert {operation.outcome for operation in history} <= {OK, INFO}
    for client in ("writer", "teller"):
        numbers = [operation.number for operation in history if operation.client == client]
        assert all(b == a + 1 for a, b in pairwise(numbers))
    written = [operation.value for operation in history if operation.op == "write"]
    assert len(set(written)) == len(written)  # nothing is written twice, in whichever boot


@pytest.mark.usefixtures("runtime_dir")
def test_a_sweep_kills_in_every_leg_but_one(tmp_path: Path) -> None:
    sweep = {"target": "disk", "every": ["never", "250ms"], "for": "600ms", "rounds": 1}
    run = play(
        experiment(
            tmp_path,
            STORAGE,
            workload=[READER],
            steady_state=[READY],
            sweep={**sweep, "client": "reader"},
            checkers=[
                {"throughput_loss": {"max_percent": 100}},
                {"recovery_ms": {"p99": 60_000}},
                "one_outcome_per_call",
                {"no_leak": {"rss_mib": 64}},
            ],
        )
    )
    assert told(run) == {}
    assert results(run)["steady_state"] == "held"
    legs = {leg.every_s: leg for leg in run.evidence.sweep}
    kills = run.evidence.injections
    assert (legs[0.0].kills, legs[0.25].kills) == (0, len(kills))
    assert len(kills) >= 2
    assert all(kill.detail == KILLED for kill in kills)
    assert all(leg.right and leg.moved_bytes and leg.took_s >= 0.6 for leg in legs.values())
    assert all(repair.injected for repair in run.evidence.recoveries)
