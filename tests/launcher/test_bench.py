"""bench: its arithmetic is right, its loads check what comes back, its gates close. No time is
asserted: what a run measures is for people to read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.bench import host, stats
from launcher.bench.cores import (
    FAR,
    L2,
    L3,
    SAME,
    SMT,
    UNKNOWN,
    Placement,
    distance,
    every_pair,
    one_of_each_class,
    topology,
)
from launcher.bench.gates import hold_to_floors, judge
from launcher.bench.job import CLOSED, Client, Counts, Job, Run, Seen, Step, carry_out
from launcher.bench.load import batched, closed_loop, open_loop, payloads, pipelined
from launcher.bench.ours import system_file
from launcher.bench.paths import PATHS
from launcher.bench.result import INVALID, OK, SUSPECT, Result, Row, SelfTest, ratios_of, row_of

CORE = host.pick_core(0)
HERE = Placement(CORE, CORE, SAME)
COUNT, SIZE = 200, 64


# --- arithmetic ---------------------------------------------------------------------------------


def test_percentiles_of_known_samples() -> None:
    found = stats.percentiles(list(range(1000, 0, -1)))
    assert found == {"min": 1, "p50": 500, "p90": 900, "p99": 990, "p999": 999, "max": 1000}


def test_percentiles_of_one_sample_are_that_sample() -> None:
    assert set(stats.percentiles([7]).values()) == {7}


def test_bootstrap_holds_the_median_and_is_the_same_each_time() -> None:
    values = [100.0, 102.0, 98.0, 101.0, 99.0]
    low, high = stats.bootstrap(values)
    assert 98.0 <= low <= 100.0 <= high <= 102.0
    assert stats.bootstrap(values) == (low, high)
    assert stats.bootstrap([5.0, 5.0, 5.0]) == (5.0, 5.0)


@pytest.mark.parametrize(
    ("values", "expected"), [([10.0] * 5, 0.0), ([8, 9, 10, 11, 12], 0.2), ([1, 10, 10, 10, 99], 0)]
)
def test_spread_ignores_an_outlier_on_either_side(values: list[float], expected: float) -> None:
    assert stats.spread(values) == pytest.approx(expected)


def test_as_many_samples_are_taken_as_fit() -> None:
    counts = Counts(budget_ms=1, least=20, samples=1000)
    assert counts.fitting(10_000) == 100
    assert counts.fitting(1) == 1000
    assert counts.fitting(1e9) == 20


# --- loads --------------------------------------------------------------------------------------

LOADS: list[Callable[[Any], Any]] = [
    lambda call: closed_loop(call, COUNT, SIZE),
    lambda call: closed_loop(call, COUNT, SIZE, gap_us=1),
    lambda call: open_loop(call, COUNT, SIZE, period_ns=1000),
    lambda call: batched(call, COUNT // 10, SIZE, batch=10),
]


@pytest.mark.parametrize("load", LOADS)
def test_a_load_checks_every_echo(load: Callable[[Any], Any]) -> None:
    assert load(lambda data: data).wrong == 0
    assert load(lambda data: data[::-1]).wrong == COUNT
    (stale,) = payloads(1, SIZE)
    assert load(lambda data: stale).wrong == COUNT - 1  # the sequence differs


def test_an_open_loop_counts_from_when_a_call_was_due() -> None:
    """Every call is late by all that came before it, though none took long."""
    found = open_loop(lambda data: data, COUNT, SIZE, period_ns=0)
    assert found.samples == sorted(found.samples)


def test_pipelined_keeps_its_depth_and_counts_what_comes_back_wrong() -> None:
    under_way: list[bytes] = []
    deepest = 0

    def collect() -> bytes:
        nonlocal deepest
        deepest = max(deepest, len(under_way))
        return under_way.pop(0)

    assert pipelined(under_way.append, collect, COUNT, SIZE, 16)[1] == 0
    assert deepest == 16
    assert not under_way
    assert pipelined(under_way.append, under_way.pop, COUNT, SIZE, 16)[1] > 0


def test_a_job_survives_its_way_to_a_client_and_back() -> None:
    counts = Counts(warmup_calls=1, warmup_ms=0, settle_calls=1, settle_ms=0, samples=100)
    steps = (Step(), Step("gap", gap_us=1), Step("open", load=0.5), Step(size=16))
    job = Job.parsed(Job(counts, steps, CORE, (CORE,)).dump())
    with host.pinned(CORE):
        run = carry_out(job, Client(lambda data: data, batch=1))
    assert Run.parsed(run.dump()) == run
    assert [seen.step for seen in run.seen] == list(steps)
    assert all(len(seen.curve) == len(stats.POINTS) for seen in run.seen)


# --- gates --------------------------------------------------------------------------------------


def seen(p50: float, step: Step = Step(), **more: Any) -> Seen:  # noqa: B008, it is frozen
    figures = stats.percentiles([p50 - 1.0, p50, p50 + 1])
    return Seen(step, 3, 1, figures, [p50] * len(stats.POINTS), 1000.0, **more)


def row(peer: str, p50s: list[float], where: Placement = HERE, **more: Any) -> Row:
    found = row_of(PATHS[peer], where, Step(), [seen(p50) for p50 in p50s])
    for name, value in more.items():
        setattr(found, name, value)
    return found


@pytest.mark.parametrize(
    ("path", "runs", "status", "reason"),
    [
        ("kernel", [Run([seen(10)]), Run([seen(10)])], OK, ""),
        ("kernel", [Run([seen(10, wrong=2)])], INVALID, "2 echoes are not what was sent"),
        ("kernel", [Run([seen(10)], ["thread 5 (ZMQbg) may run on 0-1"])], INVALID, "thread 5"),
        ("kernel", [Run([seen(10, steal_ticks=3)])], SUSPECT, "3 ticks"),
        ("kernel", [Run([seen(p)]) for p in (10, 20, 30, 40)], SUSPECT, "apart"),
        ("kernel", [Run([seen(10)], kernel_calls=5000)], OK, ""),
        ("channel_block", [Run([seen(10)], kernel_calls=2)], OK, ""),
        ("channel_block", [Run([seen(10)], kernel_calls=5000)], INVALID, "no channel"),
    ],
)
def test_gates(path: str, runs: list[Run], status: str, reason: str) -> None:
    all_seen = [one for run in runs for one in run.seen]
    found = row_of(PATHS[path], HERE, Step(), all_seen)
    judge(found, runs, all_seen)
    assert found.status == status
    assert reason in "".join(found.reasons)


@pytest.mark.parametrize(
    ("p50s", "status"), [([90, 95, 99], OK), ([49, 49, 49], SUSPECT), ([40, 41, 42], INVALID)]
)
def test_nothing_beats_its_floor(p50s: list[float], status: str) -> None:
    floor, above = row("unix_socket", [50, 50, 50]), row("redis", p50s)
    hold_to_floors([floor, above])
    assert (floor.status, above.status) == (OK, status)
    assert ("unix_socket" in "".join(above.reasons)) == (status != OK)


def test_a_floor_holds_between_its_own_cores_and_for_its_own_size() -> None:
    far = row("unix_socket", [50] * 3, Placement(CORE, CORE + 1, L3))
    bigger = row("unix_socket", [50] * 3, size=SIZE * 2)
    quick = row("redis", [10] * 3)
    hold_to_floors([far, bigger, quick])
    assert quick.status == OK


def test_a_failed_self_test_makes_the_whole_result_invalid() -> None:
    result = Result({}, {}, "", [row("kernel", [1.0])], {})
    assert result.status == OK
    result.self_tests.append(SelfTest("delay", "kernel", False, ""))
    assert result.status == INVALID


def test_ratios_compare_what_is_between_the_same_cores() -> None:
    far = Placement(CORE, CORE + 1, L3)
    rows = [
        row("kernel", [110.0]), row("kernel", [900.0], far), row("zmq_proxy_c", [100.0]),
        row("channel_spin", [3.0], far), row("channel_block", [13.0]),
        row("unix_socket", [10.0]), row("unix_socket", [30.0], far),
    ]  # fmt: skip
    assert ratios_of(rows, SIZE) == {
        "channel_spin_over_unix_socket_p50": 0.1,
        "channel_block_over_unix_socket_p50": 1.3,
        "kernel_over_zmq_proxy_c_p50": 1.1,
    }


# --- where things run ---------------------------------------------------------------------------


def test_threads_off_the_core_are_found() -> None:
    pid = os.getpid()
    with host.pinned(CORE):
        assert f"thread {pid} " not in " ".join(host.strays(pid, CORE))
        assert f"thread {pid} " in " ".join(host.strays(pid, CORE + 1))


def test_a_thread_that_was_moved_is_found() -> None:
    pid = os.getpid()
    with host.pinned(CORE):
        before = host.migrations(pid, CORE)
        assert not host.moved(pid, CORE, before)
        if str(pid) in before:  # this Linux tells
            before[str(pid)] -= 1
            assert "moved to another core, 1 time" in "".join(host.moved(pid, CORE, before))


def sys_cpu(root: Path) -> Path:
    """Two sockets of two cores of two threads: 0+4, 1+5 share an L3, 2+6, 3+7 another."""
    for cpu in range(8):
        core, here = cpu % 4, root / f"cpu{cpu}"
        files = {
            "topology/thread_siblings_list": f"{core},{core + 4}",
            "topology/physical_package_id": f"{core // 2}",
            "cache/index2/level": "2",
            "cache/index2/shared_cpu_list": f"{core},{core + 4}",
            "cache/index3/level": "3",
            "cache/index3/shared_cpu_list": "0-1,4-5" if core < 2 else "2-3,6-7",
        }
        for name, text in files.items():
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).write_text(f"{text}\n")
    return root


def test_pairs_of_cores_are_told_apart(tmp_path: Path) -> None:
    root = sys_cpu(tmp_path)
    found = {other: distance(0, other, root) for other in (0, 4, 1, 2)}
    assert found == {0: SAME, 4: SMT, 1: L3, 2: FAR}
    assert [p[:2] for p in one_of_each_class(range(8), root)] == [(0, 0), (0, 4), (0, 1), (0, 2)]
    assert len(every_pair(range(8), root)) == 64
    (root / "cpu0/topology/thread_siblings_list").write_text("0\n")
    assert distance(0, 4, root) == L2
    assert topology([3], root)[0]["l3"] == "2-3,6-7"


def test_what_sys_hides_is_told_so(tmp_path: Path) -> None:
    assert distance(0, 1, tmp_path) == UNKNOWN
    assert topology([0], tmp_path)[0]["socket"] == "hidden"


# --- the table of paths -------------------------------------------------------------------------


def test_floors_of_a_path_are_floors_that_there_are() -> None:
    for path in PATHS.values():
        assert all(PATHS[name].kind == "floor" for name in path.floors), path


def test_one_system_file_serves_every_path_of_ours() -> None:
    for name in ("kernel", "channel_spin", "channel_hybrid", "channel_block"):
        path, servers = PATHS[name], system_file(PATHS[name]).manifest.servers
        link = servers["client"].calls["echo"]
        assert link.via == ("channel" if path.is_channel else "kernel")
        assert path.spin_us in (None, link.spin_us)
        assert servers["echo"].window == Counts().depth
    faulty = system_file(PATHS["kernel"], "slow:1").manifest.servers["echo"]
    assert faulty.args == {"fault": "slow:1"}


def test_a_row_of_no_runs_has_no_figures() -> None:
    empty = row_of(PATHS["kernel"], HERE, Step(CLOSED), [])
    assert (empty.n, empty.runs, empty.summary) == (0, [], {})
