"""`ukernel chaos run`: bad input before anything is started, Ctrl-C at any time, seeds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.chaos import journal
from launcher.chaos.evidence import Evidence
from launcher.chaos.experiment import load
from launcher.chaos.plan import plan
from tests.conftest import TIMEOUT_S, Ukernel, processes_of
from tests.journey.experiments import (
    STORAGE,
    TALKER,
    TELLER,
    WRITER,
    echoes,
    experiment,
    nothing_left,
    play,
)

SIMPLE: dict[str, Any] = {
    "workload": [TALKER],
    "nemesis": [
        {"at": 0, "every": "30ms", "count": 8, "do": "kill", "target": ["echo", "other"]},
        {"at": "100ms", "do": "swizzle", "target": ["echo", "other"], "step": "20ms"},
    ],
    "checkers": ["min_landed", "one_outcome_per_call"],
}
ALWAYS = echoes("{when: always, max_restarts: 1000, backoff: {first_ms: 0}}")


@pytest.fixture
def simple(tmp_path: Path) -> Path:
    return experiment(tmp_path, ALWAYS, **SIMPLE)


# --- what cannot be done -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--json", "."], "--json .: Is a directory; name a file that can be written"),
        (
            ["--json", "nowhere/out.json"],
            "--json nowhere/out.json: No such file or directory; name",
        ),
        (["--report", "a-file"], "--report a-file: File exists; name a directory that can be"),
        (["--report", "a-file/report"], "--report a-file/report: Not a directory; name"),
        (["--seed", "-1"], "--seed -1: expected a number from 0 to"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_could_not_be_written_afterwards_is_refused_before(
    ukernel: Ukernel, tmp_path: Path, simple: Path, options: list[str], why: str
) -> None:
    (tmp_path / "a-file").touch()
    before = sorted(tmp_path.iterdir())
    told = ukernel("chaos", "run", str(simple), *options, status=2)
    assert told.stderr.startswith(f"ukernel: {why}")
    assert told.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


def test_a_journal_that_is_there_stays_until_there_is_another(
    ukernel: Ukernel, tmp_path: Path
) -> None:
    (tmp_path / "out.json").write_text("old")
    path = experiment(tmp_path, ALWAYS, **SIMPLE, title="")
    ukernel("chaos", "run", str(path), "--json", "out.json", status=2)
    assert (tmp_path / "out.json").read_text() == "old"


# --- Ctrl-C --------------------------------------------------------------------------------------


def test_ctrl_c_in_the_middle_leaves_nothing(runtime_dir: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    path = experiment(
        tmp_path,
        STORAGE,
        workload=[WRITER, TELLER],
        nemesis=[
            {"at": 0, "do": "swizzle", "target": ["fs", "timer"], "step": "60s"},
            {"at": "200ms", "do": "hang", "target": "echo"},
            {"at": "300ms", "every": "200ms", "count": 1000, "do": "kill", "target": "rng"},
        ],
        checkers=["min_landed"],
    )
    with nothing_left():
        run = subprocess.Popen(
            [sys.executable, "-m", "launcher.cli", "chaos", "run", str(path), "-v", "--json", "o"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        assert run.stderr is not None
        while b"rng#2 died" not in (line := run.stderr.readline()):
            assert line, "it has ended"
        assert list(scratch.iterdir())
        run.send_signal(signal.SIGINT)
        output, errors = run.communicate(timeout=TIMEOUT_S)
    assert run.returncode == 3
    assert output == b""
    assert b"interrupted: nothing has been shown" in errors
    assert b"Traceback" not in errors
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "o").exists()
    assert processes_of(runtime_dir) == []


# --- seeds ---------------------------------------------------------------------------------------


def planned(evidence: Evidence) -> list[tuple[str, str, int]]:
    return [(i.fault, i.target, i.planned_ns - evidence.begun_ns) for i in evidence.injections]


def test_the_same_seed_is_the_same_plan_and_another_is_not(
    ukernel: Ukernel, tmp_path: Path, simple: Path
) -> None:
    first = play(simple).evidence
    ukernel("chaos", "run", str(simple), "--seed", "7", "--json", "out.json")
    again = journal.parse(json.loads((tmp_path / "out.json").read_text()))
    other = play(simple, 8).evidence
    assert [first.seed, again.seed, other.seed] == [7, 7, 8]
    assert planned(first) == planned(again.evidence)
    assert planned(first) != planned(other)
    wanted = plan(load(simple).experiment, 8)
    assert [target for _, target, _ in planned(other)] == [each.target for each in wanted]
