"""compare with real systems: the same work is done and the same death survived in every case, and
a file server that lies is found out. No time is asserted."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from launcher.compare.amounts import Amounts
from launcher.compare.cases import MONO, cases, cast
from launcher.compare.compare import compare
from launcher.compare.report import write
from launcher.compare.result import SCHEMA, Result
from launcher.compare.run import run
from launcher.foreground import StopRequested, StopSignals
from launcher.rundir import running
from tests.conftest import CONFIGS, Ukernel
from tests.launcher.test_compare import CHANNEL, GROUPED, HOSTING, MICRO, grouped

LITTLE = Amounts(rounds=1, calls=20, rested=3, files=3, write=1, read=1, metadata=2, writes=8)
UNITS = {"call": 20, "rested": 3, "trap": 20, "files": 3, "write": 8, "read": 8, "metadata": 2}


def unarmed(selector: selectors.BaseSelector) -> AbstractContextManager[None]:
    """Nobody interrupts."""
    return contextlib.nullcontext()


@pytest.fixture
def result(runtime_dir: Path, tmp_path: Path) -> Result:
    return compare(grouped(tmp_path), LITTLE, lambda line: None, unarmed)


def test_every_case_does_the_same_work_and_survives_the_same_death(result: Result) -> None:
    assert result.held, result.claims()
    assert [case.name for case in result.cases()] == [c.name for c in cases(result.file)]
    for each in result.every():
        assert {name: job.whole.times for name, job in each.jobs.items()} == UNITS
        assert [job.whole.wrong for job in each.jobs.values()] == [0] * len(UNITS)
        assert each.kill.recovery_ns > 0
        assert each.kill.acknowledged >= LITTLE.writes
        assert each.kill.died == result.predicted(each.case)
    (mono,), (micro,) = result.runs(MONO), result.runs(MICRO)
    assert mono.kill.noticed["load"] == "died with it"
    assert micro.kill.noticed == {}
    assert mono.processes < micro.processes
    for job in ("files", "write", "read", "metadata"):
        assert mono.jobs[job].used.calls < micro.jobs[job].used.calls
    assert not running()
    check_document(result)
    check_report(result)


def test_a_guest_outlives_a_driver_unless_they_share_a_process(
    runtime_dir: Path, tmp_path: Path
) -> None:
    found = compare(grouped(tmp_path, HOSTING), LITTLE, lambda line: None, unarmed)
    assert found.held, found.claims()
    assert len(found.claims()) == 7
    for each in found.every():
        assert {name: job.whole.times for name, job in each.jobs.items()} == UNITS
        assert each.card is not None
        assert each.card.died == found.predicted(each.case, "nic")
        beat = each.guests["beat"]
        assert beat.did.exits_per_s["wfi"] > 0
        assert (0 < beat.did.cpu < 1, beat.wrong, beat.errors) == (True, 0, 0)
        assert [felt.lives for felt in beat.felt] == [int(each.case == MONO)] * 2
        assert all((felt.restored_ms > 0) == (felt.lives > 0) for felt in beat.felt)
        assert all(felt.gap_ms is not None and felt.gap_ms > 0 for felt in beat.felt)
    assert [case for case in found.cases() if found.runs(case)] == [MONO, CHANNEL, MICRO]
    assert not running()
    directory = found.file.directory / "report"
    page = write(found, directory).read_text()
    assert {path.suffix for path in directory.glob("guests.*")} == {".svg", ".png"}
    assert "What the deaths did to virtual machines" in page


def check_document(result: Result) -> None:
    document = json.loads(json.dumps(result.as_json()))
    assert document["schema"] == SCHEMA
    assert [case["case"] for case in document["cases"]] == [c.name for c in cases(result.file)]
    for case in document["cases"]:
        assert case["figures"]["files_per_s"]["ratio"] > 0
        assert [kill["kept"]["lost"] for kill in case["kills"]] == [0]
    assert len(document["explained"]) == 4 * (len(document["cases"]) - 1)


def check_report(result: Result) -> None:
    directory = result.file.directory / "report"
    page = write(result, directory).read_text()
    assert {path.name for path in directory.iterdir()} == {
        "report.html", "throughput.svg", "throughput.png",
    }  # fmt: skip
    assert all(claim.claim in page for claim in result.claims())


def test_a_lying_file_server_breaks_both_claims(runtime_dir: Path, tmp_path: Path) -> None:
    file = grouped(tmp_path, GROUPED.replace("servers.fs,", "tests.launcher.tasks.liar,").replace(
        "state: disk", "state: disk, args: {format_if_blank: true}"
    ))  # fmt: skip
    players = cast(file)
    found = run(file, players, MICRO, LITTLE._replace(writes=80), unarmed)
    result = Result(file, players, LITTLE, {}, {}, "", {MICRO: {0: found}})
    assert [c.claim for c in result.claims() if not c.held] == [
        "no wrong data", "no acknowledged write lost",
    ]  # fmt: skip
    assert found.jobs["read"].whole.wrong == UNITS["read"]
    assert found.kill.kept.lost > 0


def test_the_command_refuses_a_file_without_files(ukernel: Ukernel) -> None:
    done = ukernel("compare", str(CONFIGS / "minimal.yaml"), status=2)
    assert "serves `file`" in done.stderr
    assert "minimal.yaml:" in done.stderr


def test_ctrl_c_leaves_nothing(runtime_dir: Path, tmp_path: Path) -> None:
    """It comes when one run is over, and is heard in the middle of the next."""
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        os.kill(os.getpid(), signal.SIGINT)

    with StopSignals() as signals, pytest.raises(StopRequested, match="SIGINT"):
        compare(grouped(tmp_path), LITTLE, tell, signals.armed)
    assert len(told) == 1
    assert not running()
