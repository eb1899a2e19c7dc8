"""Systems that are broken on purpose, and runs that show nothing: no run passes by mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from launcher.chaos import journal
from launcher.chaos.journal import Journal
from tests.conftest import Ukernel
from tests.journey.experiments import (
    KEPT,
    READY,
    STORAGE,
    TALKER,
    WRITER,
    echoes,
    experiment,
    play,
    results,
    told,
)

TABLE = """
system: table
servers:
  kv:
    run: servers.kv
    serves: kv
    state: STATE
    restart: {when: always, max_restarts: 1000, backoff: {first_ms: 0}}
"""
KILL = {"at": 0, "do": "kill", "target": "echo"}
LATER = {**KILL, "at": "300ms"}


def test_a_server_that_keeps_nothing_is_caught_and_one_that_keeps_all_is_not(
    ukernel: Ukernel, tmp_path: Path
) -> None:
    def killed(state: str, status: int) -> dict[str, str]:
        path = experiment(
            tmp_path,
            TABLE.replace("STATE", state),
            workload=[{"client": "teller", "run": "kv", "keys": 500}],
            nemesis=[{"at": 0, "every": "150ms", "count": 4, "do": "kill", "target": "kv"}],
            checkers=[*KEPT, "min_landed"],
        )
        ukernel("chaos", "run", str(path), "--json", "out.json", status=status)
        verdicts = written(tmp_path).verdicts
        return {verdict.checker: verdict.result.value for verdict in verdicts}

    held = dict.fromkeys(("steady_state", *KEPT, "min_landed"), "held")
    lost = dict.fromkeys(("acked_writes_durable", "no_duplicate_effect"), "broken")
    assert killed("persistent", 0) == held
    assert killed("stateless", 1) == {**held, **lost}


def written(folder: Path) -> Journal:
    return journal.parse(json.loads((folder / "out.json").read_text()))


@pytest.mark.usefixtures("runtime_dir")
def test_a_server_that_is_given_up_is_told_by_all_who_look(tmp_path: Path) -> None:
    run = play(
        experiment(
            tmp_path,
            echoes("{max_restarts: 1, within_s: 600}"),
            workload=[{**TALKER, "bystander": True}],
            steady_state=[READY],
            nemesis=[{**KILL, "every": "100ms", "count": 3}],
            checkers=["failed", "bystanders", "min_landed", "kernel_alive"],
        )
    )
    assert results(run) == {
        "steady_state": "broken",
        "failed": "broken",
        "bystanders": "broken",
        "min_landed": "unknown",
        "kernel_alive": "held",
    }
    assert told(run)["failed"].endswith("echo was given up")
    assert told(run)["min_landed"].endswith("never landed: echo had been given up, or stopped")
    assert [bool(i.landed_ns) for i in run.evidence.injections] == [True, True, False]
    # The death that nobody repaired is known as well.
    assert [repair.spawned_ns > 0 for repair in run.evidence.recoveries] == [True, False]


def test_faults_that_nobody_meets_show_nothing(ukernel: Ukernel, tmp_path: Path) -> None:
    path = experiment(
        tmp_path,
        echoes("{when: never}"),
        workload=[TALKER],
        nemesis=[
            KILL,
            LATER,
            {"at": 0, "do": "message", "link": "other->echo", "fault": "drop", "for": "100ms"},
        ],
        checkers=[{"failed": {"exactly": ["echo"]}}, "kernel_alive"],
    )
    told = ukernel("chaos", "run", str(path), "--json", "out.json", status=3).stdout
    assert "1 of 3 faults landed" in told
    assert "an experiment (seed 7): UNKNOWN" in told
    assert {i.detail for i in written(tmp_path).evidence.injections} == {
        "killed by SIGKILL",
        "nobody met it",
        "echo had been given up, or stopped",
    }


@pytest.mark.usefixtures("runtime_dir")
def test_what_is_not_steady_is_not_broken(tmp_path: Path) -> None:
    run = play(
        experiment(
            tmp_path,
            echoes("{when: always}"),
            workload=[TALKER],
            steady_state=[READY, {"probe": "p99_ms", "client": "talker", "max": 0.0001}],
            nemesis=[KILL],
            checkers=["kernel_alive"],
        )
    )
    assert results(run) == {"steady_state": "unknown"}
    assert told(run)["steady_state"].startswith("before the first fault: p99_ms: talker needs ")
    assert run.evidence.injections == []
    assert run.evidence.history


@pytest.mark.usefixtures("runtime_dir")
def test_a_system_that_does_not_come_up_shows_nothing(tmp_path: Path) -> None:
    system = TABLE.replace("STATE", "client_held")
    nemesis = [{**KILL, "target": "kv"}]
    run = play(experiment(tmp_path, system, nemesis=nemesis, checkers=["kernel_alive"]))
    assert results(run) == {"steady_state": "unknown"}
    assert "before the first fault: kv failed at start" in told(run)["steady_state"]
    assert "state: client_held is not for kv" in told(run)["steady_state"]


# --- what nobody had planned ---------------------------------------------------------------------


def killer(is_it: Callable[[psutil.Process], bool]) -> Callable[[], None]:
    """Kills one child of this process, once."""
    killed: list[psutil.Process] = []

    def kill() -> None:
        children = psutil.Process().children() if not killed else []
        killed.extend(child for child in children if is_it(child))
        for child in killed[:1] if children else []:
            child.kill()

    return kill


def named(name: str) -> Callable[[psutil.Process], bool]:
    return lambda process: process.name() == name and process.status() != psutil.STATUS_ZOMBIE


def is_kernel(process: psutil.Process) -> bool:
    return process.status() != psutil.STATUS_ZOMBIE and "ukernel.broker" in process.cmdline()


PAUSE = {"at": 0, "do": "pause", "target": "echo", "for": "60s"}
CUT_LATER = {"at": "60s", "do": "powercut"}


@pytest.mark.usefixtures("runtime_dir")
def test_a_machine_that_dies_by_itself_is_no_power_cut(tmp_path: Path) -> None:
    path = experiment(
        tmp_path, STORAGE, workload=[WRITER], nemesis=[PAUSE, CUT_LATER], checkers=KEPT[:2]
    )
    run = play(path, meanwhile=killer(named("machine")))
    assert results(run) == {"system": "broken"}
    assert told(run)["system"].startswith("the machine died (killed by SIGKILL): power is off")
    assert [bool(i.landed_ns) for i in run.evidence.injections] == [True, False]
    assert run.evidence.history


@pytest.mark.usefixtures("runtime_dir")
def test_a_kernel_that_dies_is_no_power_cut_either(tmp_path: Path) -> None:
    path = experiment(
        tmp_path, STORAGE, workload=[WRITER], nemesis=[PAUSE, CUT_LATER], checkers=KEPT[:2]
    )
    run = play(path, meanwhile=killer(is_kernel))
    assert results(run) == {"system": "broken"}
    assert told(run)["system"].startswith("the kernel died")
    assert not run.evidence.kernel_alive


@pytest.mark.usefixtures("runtime_dir")
def test_a_client_that_dies_shows_nothing(tmp_path: Path) -> None:
    path = experiment(
        tmp_path,
        echoes("{when: always}"),
        workload=[TALKER],
        nemesis=[{**PAUSE, "target": "other"}],
        checkers=["kernel_alive"],
    )
    run = play(path, meanwhile=killer(named("talker")))
    assert results(run) == {"workload": "unknown"}
    assert told(run)["workload"] == "client talker: killed by SIGKILL"
