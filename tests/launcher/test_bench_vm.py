"""bench vm: what was done is seen, doubts are told, everything ends. No speed is asserted: what a
run measures is for people to read."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from launcher.bench.vm import picture, qemu, run, selftest, table
from launcher.bench.vm.guest import NoResult
from launcher.bench.vm.plan import FIGURES, QUICK_SIZES, Plan, full, quick
from launcher.bench.vm.result import (
    ABSENT,
    INVALID,
    OK,
    SCHEMA,
    STATUSES,
    SUSPECT,
    Exits,
    Key,
    Row,
    SelfTest,
    Visit,
    VmResult,
    absent_row,
    exits_of,
    ratios_of,
    row_of,
)
from launcher.bench.vm.visits import Visits, disk_faults, mips
from launcher.guests import built_in
from launcher.rundir import running

SMALL = Plan(1, 2, disk_s=0.2, beats_s=0.2, snapshots=1, restores=1, sizes=(4,), tests=2)
SPEED, BOOT = ("speed", "monitor"), ("boot", "monitor")


def visited(key: tuple[str, str], *samples: float, **doubts: Any) -> Visit:
    visit = Visit(**doubts)
    visit.samples[Key(*key)] = list(samples)
    return visit


def row(key: tuple[str, str], *samples: float, **doubts: Any) -> Row:
    return row_of(FIGURES[key], [visited(key, *samples, **doubts)], [])


def made(*rows: Row, tests: tuple[SelfTest, ...] = ()) -> VmResult:
    return VmResult({}, {}, "", 1, list(rows), [], list(tests))


# --- the plan -----------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [Plan(), quick(), SMALL])
def test_every_figure_is_of_somebody_whom_each_round_visits(plan: Plan) -> None:
    whom, order = plan.subjects, list(plan.order())
    assert {figure.subject for figure in plan.figures} == {*whom} - {"heartbeat"}
    assert Counter(order) == dict.fromkeys(whom, plan.rounds)
    assert sorted(order[: len(whom)]) == sorted(whom)


def test_the_quick_one_boots_as_often_as_the_claim_wants_and_leaves_the_largest_out() -> None:
    plan = quick()
    assert plan.rounds * plan.boots >= 20
    assert {f"{size}MiB" for size in QUICK_SIZES} == {
        figure.who for figure in plan.figures if figure.name == "snapshot"
    }


def test_the_system_file_has_whom_a_plan_visits_and_no_size_that_it_leaves_out() -> None:
    whole, small = (run.system_file(plan).manifest for plan in (Plan(), SMALL))
    whom = {name for name in Plan().subjects if not name.startswith("qemu-")}
    assert whom <= {*whole.servers}
    left_out = {f"{full(size)}{end}" for size in (16, 64) for end in ("", "b")}
    assert {*whole.vms} - {*small.vms} == {*whole.servers} - {*small.servers} == left_out
    assert whole.vms["share"].share == 40


# --- figures and doubts -------------------------------------------------------------------------


def test_a_row_has_its_percentiles_and_says_whether_a_claim_holds() -> None:
    fast, slow = row(SPEED, 110, 100, 105), row(SPEED, 99, 98, 97)
    assert (fast.status, fast.within, slow.within) == (OK, True, False)
    assert fast.summary == {
        "min": 100, "p50": 105, "p90": 110, "max": 110, "ci95": [100, 110], "spread": 0.095,
    }  # fmt: skip
    assert (row(BOOT, 29, 30, 30).within, row(BOOT, 30, 31, 31).within) == (True, False)
    assert row(("disk", "task"), 5.0).within is None


@pytest.mark.parametrize(
    ("samples", "doubts", "status", "why"),
    [
        ((100.0, 130.0, 100.0), {}, SUSPECT, "the samples lie 30% apart, at most 25%"),
        ((100.0,), {"busy": 0.4}, SUSPECT, "others used 40% of the processors"),
        ((100.0,), {"stolen": 0.1}, SUSPECT, "the hypervisor took 10% of the processors"),
        ((100.0,), {"wrong": ["9 wrong bytes"]}, INVALID, "9 wrong bytes"),
        ((100.0, 0.0, 100.0), {}, INVALID, "a sample of 0.0 ms cannot be"),
    ],
)
def test_doubtful_samples_are_told(
    samples: tuple[float, ...], doubts: dict[str, Any], status: str, why: str
) -> None:
    found = row(BOOT, *samples, **doubts)
    assert found.status == status
    assert why in found.reasons


def test_a_round_without_a_result_makes_its_row_invalid() -> None:
    found = row_of(FIGURES[BOOT], [], ["it has shown nothing"])
    assert (found.status, found.within) == (INVALID, None)
    assert "it has shown nothing" in found.reasons[0]


def test_exits_are_by_the_second_over_all_visits() -> None:
    looks = [
        Visit(exits=Exits("heartbeat", 1.0, {"wfi": 100, "slice": 1}, 10, 0.02)),
        Visit(exits=Exits("heartbeat", 3.0, {"wfi": 260}, 30, 0.1)),
        Visit(),
    ]
    assert exits_of(looks) == [
        {"guest": "heartbeat", "seconds": 4.0, "per_s": {"slice": 0.2, "wfi": 90.0},
         "requests_per_s": 10.0, "cpu_percent": 3.0}
    ]  # fmt: skip


def test_ratios_are_of_ours_to_whoever_else_has_the_figure() -> None:
    rows = [row(SPEED, 500.0), row(("speed", "qemu"), 1000.0), row(BOOT, 20.0),
            absent_row(FIGURES["boot", "qemu"], "gone"), row(("disk", "guest"), 300.0),
            row(("disk", "task"), 200.0)]  # fmt: skip
    assert ratios_of(rows) == {
        "speed_monitor_over_qemu": 0.5, "disk_guest_over_task": 1.5,
    }  # fmt: skip


def test_it_ends_with_1_for_what_is_wrong_and_3_for_what_the_host_may_have_spoilt() -> None:
    assert made(row(SPEED, 500.0)).exit_code == 0
    assert made(row(SPEED, 50.0)).exit_code == 1
    assert made(row(SPEED, 50.0, busy=0.5)).exit_code == 3
    assert made(row(SPEED, 500.0, wrong=["it"])).exit_code == 1
    blind = made(row(SPEED, 500.0), tests=(SelfTest("boot", False, ""),))
    assert (blind.status, blind.exit_code) == (INVALID, 1)


def test_what_is_done_on_purpose_has_to_be_seen() -> None:
    assert selftest.of_boot(20.0, 71.0).held
    assert not selftest.of_boot(20.0, 30.0).held
    whole = row(("cpu_speed", "monitor"), 1000.0)
    share = selftest.of_share([whole, row(("speed", "share-40"), 400.0)])
    blind = selftest.of_share([whole, row(("speed", "share-40"), 900.0)])
    assert share is not None
    assert share.held
    assert blind is not None
    assert not blind.held
    assert selftest.of_share([whole]) is None


def test_the_tables_have_what_was_measured_and_each_doubt_is_told_once() -> None:
    doubts = {"busy": 0.5}
    found = made(row(SPEED, 50.0, **doubts), row(BOOT, 20.0, **doubts),
                 absent_row(FIGURES["boot", "qemu"], qemu.REMEDY))  # fmt: skip
    titles, cells = table.table(found.results)
    assert [line[:2] for line in cells] == [["speed", "monitor"], ["boot", "monitor"]]
    assert cells[0][-2:] == ["100 missed", SUSPECT]
    assert all(len(line) == len(titles) for line in cells)
    notes = table.notes(found)
    told = f"{SUSPECT}: others used 50% of the processors: speed monitor, boot monitor"
    assert told in notes
    assert f"{ABSENT}: {qemu.REMEDY}: boot qemu" in notes


def test_a_picture_is_drawn_of_what_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert picture.draw(made(), tmp_path) == []
    files = picture.draw(made(row(SPEED, 100.0), row(BOOT, 20.0)), tmp_path)
    assert [file.name for file in files] == ["vm.svg", "vm.png"]
    assert "boot" in files[0].read_text()


def test_what_a_guest_says_of_its_speed_is_read() -> None:
    text = "speed 1000000000 instructions per second\r\nhello\nspeed 5 instructions per second\n"
    assert mips(text + "speed 77 instructions per sec") == [1000.0, 5e-6]


def test_what_a_guest_finds_wrong_with_its_disk_is_read() -> None:
    fine = "diskcheck 7 sectors 2048 wrong 0 errors 0\r\n"
    assert disk_faults(fine + "diskcheck 8 sectors 20") == []
    assert disk_faults(f"{fine}diskcheck 8 sectors 2048 wrong 12 errors 1\r\n") == [
        "diskcheck found 12 wrong bytes and 1 errors"
    ]


# --- QEMU ---------------------------------------------------------------------------------------


def test_without_qemu_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert qemu.absent() == qemu.REMEDY
    assert "apt-get install" in qemu.REMEDY


def test_a_guest_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which(qemu.PROGRAM):
        pytest.skip(qemu.REMEDY)
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(NoResult, match="did not end in time"):
        qemu.run(built_in()["heartbeat"], patience_s=0.3)
    monkeypatch.setattr(qemu, "PROGRAM", "true")
    with pytest.raises(NoResult, match="has shown nothing"):
        qemu.run(built_in()["hello"])
    assert set(psutil.Process().children(recursive=True)) <= before


# --- whole runs ---------------------------------------------------------------------------------


@contextmanager
def nothing_left() -> Iterator[None]:
    """No process, no descriptor, no system, no file."""

    def scratch() -> list[Path]:
        return list(Path(tempfile.gettempdir()).glob(f"ukernel-vms-{os.getpid()}-*"))

    us = psutil.Process()
    before, descriptors = us.children(recursive=True), us.num_fds()
    yield
    assert set(us.children(recursive=True)) <= set(before)
    assert us.num_fds() <= descriptors
    assert f"bench-{os.getpid()}" not in running()
    assert not scratch()


@pytest.mark.usefixtures("runtime_dir")
def test_a_run_sees_a_monitor_that_is_held_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held as it begins, so its first byte comes after that, however busy the host is."""
    pytest.importorskip("unicorn")
    compared: list[tuple[float, float]] = []
    of_boot = selftest.of_boot

    def noted(plain_ms: float, held_ms: float) -> SelfTest:
        compared.append((plain_ms, held_ms))
        return of_boot(plain_ms, held_ms)

    monkeypatch.setattr(selftest, "of_boot", noted)
    told: list[str] = []
    with nothing_left():
        found = run.measure(SMALL, told.append)
    ((plain_ms, held_ms),) = compared
    assert plain_ms > 0
    assert held_ms > 1000 * selftest.HELD_S
    found.write(tmp_path / "bench.json")
    document = json.loads((tmp_path / "bench.json").read_text())
    assert set(document) == {
        "schema", "status", "host", "versions", "commit", "rounds", "results", "exits",
        "self_tests", "ratios",
    }  # fmt: skip
    assert (document["schema"], document["rounds"]) == (SCHEMA, 1)
    assert document["status"] in STATUSES
    _look_at_rows({(each["figure"], each["who"]): each for each in document["results"]})
    disk, beats = document["exits"]
    assert (disk["guest"], beats["guest"]) == ("diskcheck", "heartbeat")
    assert disk["requests_per_s"] > 0 == beats["requests_per_s"]
    assert disk["per_s"]["device"] > disk["requests_per_s"]
    assert 0 < beats["per_s"]["wfi"] < 1000


def _look_at_rows(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    for key, each in rows.items():
        absent = each["class"] == "peer" and not shutil.which(qemu.PROGRAM)
        assert (each["status"] == ABSENT) == absent
        assert each["status"] != INVALID, (key, each["reasons"])
        if not absent:
            assert 0 < each["summary"]["min"] <= each["summary"]["p50"] <= each["summary"]["max"]
    assert {key for key, each in rows.items() if each["stages_p50"]} == {BOOT, ("restore", "4MiB")}
    assert rows[BOOT]["n"] == SMALL.boots
    for key in (BOOT, ("restore", "4MiB")):
        spawned, *stages = rows[key]["stages_p50"].values()
        assert spawned > 0  # the launcher notes that, and may be slower than the new life
        assert stages == sorted(stages)
        assert rows[key]["summary"]["max"] >= stages[-1]
    assert rows["share", "share-40"]["summary"]["p50"] < 50


@pytest.mark.usefixtures("runtime_dir")
def test_an_interrupt_in_the_middle_of_a_visit_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("unicorn")

    def interrupted(self: Visits, subject: str) -> NoReturn:
        self.guests["heartbeat"].run()
        raise KeyboardInterrupt

    monkeypatch.setattr(Visits, "visit", interrupted)
    with nothing_left(), pytest.raises(KeyboardInterrupt):
        run.measure(SMALL, lambda line: None)
