"""bench: its arithmetic is right, its gates close, and it leaves nothing behind. No time is
asserted: what a run measures is for people to read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.bench import host, ipc, stats
from launcher.bench.load import Counts, Run, closed_loop, payloads, pipelined
from launcher.bench.result import INVALID, OK, SCHEMA, SUSPECT, print_table, row_of
from launcher.bench.runs import KERNEL, PEERS, SYSTEM_FILE, run_peer
from launcher.config import load
from launcher.rundir import running

TINY = Counts(warmup_calls=10, warmup_ms=0, samples=200, pipelined=200, depth=16)
CORE = host.pick_core(0)


def run(samples: list[int], **more: Any) -> Run:
    return Run(samples, calls_per_s=1000.0, **more)


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


def test_a_load_checks_every_echo() -> None:
    assert closed_loop(lambda data: data, TINY)[1] == 0
    assert closed_loop(lambda data: data[::-1], TINY)[1] == TINY.samples
    stale = payloads(1, TINY.size)[0]
    assert closed_loop(lambda data: stale, TINY)[1] == TINY.samples - 1  # the sequence differs


def test_pipelined_keeps_its_depth_and_counts_what_comes_back_wrong() -> None:
    under_way: list[bytes] = []
    deepest = 0

    def collect() -> bytes:
        nonlocal deepest
        deepest = max(deepest, len(under_way))
        return under_way.pop(0)

    assert pipelined(under_way.append, collect, TINY)[1] == 0
    assert deepest == TINY.depth
    assert not under_way
    assert pipelined(under_way.append, under_way.pop, TINY)[1] > 0


# --- gates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "status", "reason"),
    [
        ([run([10]), run([10])], OK, ""),
        ([run([10]), run([10], wrong=2)], INVALID, "2 echoes are not what was sent"),
        ([run([10], strays=["thread 5 (ZMQbg) may run on 0-1, not only 0"])], INVALID, "thread 5"),
        ([run([10], steal_ticks=3)], SUSPECT, "3 ticks"),
        ([run([10]), run([20]), run([30]), run([40])], SUSPECT, "apart"),
    ],
)
def test_gates(runs: list[Run], status: str, reason: str) -> None:
    row = row_of("kernel", runs, TINY, 0)
    assert row.status == status
    assert reason in "".join(row.reasons)


def test_threads_off_the_core_are_found() -> None:
    pid = os.getpid()
    with host.pinned(CORE):
        assert f"thread {pid} " not in " ".join(host.strays(pid, CORE))
        assert f"thread {pid} " in " ".join(host.strays(pid, CORE + 1))


def test_a_wrong_echo_makes_the_result_invalid() -> None:
    done = run_peer("bare_router", CORE, TINY, faulty=True)
    row = row_of("bare_router", [done], TINY, CORE)
    assert row.status == INVALID
    assert "echoes" in row.reasons[0]


# --- a whole run --------------------------------------------------------------------------------


def test_a_run_is_complete_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    cores, before = os.sched_getaffinity(0), psutil.Process().children(recursive=True)
    result = ipc.measure(ipc.Plan(CORE, sets=2, counts=TINY), told.append)
    assert len(told) == 2 * 3
    result.write(tmp_path / "bench.json")
    check_schema(json.loads((tmp_path / "bench.json").read_text()))
    print_table(result)
    assert "zmq_proxy_c" in capsys.readouterr().err
    assert f"bench-{os.getpid()}" not in running()
    assert set(psutil.Process().children(recursive=True)) <= set(before)
    assert f"ukernel-bench-{os.getpid()}-" not in Path("/proc/net/unix").read_text()
    assert os.sched_getaffinity(0) == cores


def check_schema(found: dict[str, Any]) -> None:
    assert set(found) == {"schema", "host", "versions", "commit", "results", "ratios"}
    assert found["schema"] == SCHEMA
    assert {"cpu", "cores", "clock_source", "governor", "load", "kernel"} <= set(found["host"])
    assert {"python", "pyzmq", "libzmq", "msgpack"} == set(found["versions"])
    assert [row["peer"] for row in found["results"]] == [KERNEL, *PEERS]
    for peer in PEERS:
        assert found["ratios"][f"kernel_over_{peer}_p50"] > 0
        assert found["ratios"][f"kernel_over_{peer}_throughput"] > 0
    for row in found["results"]:
        check_row(row)


def check_row(row: dict[str, Any]) -> None:
    assert (row["class"], row["mode"], row["unit"], row["metric"]) == (
        "brokered", "closed", "ns", "rtt",
    )  # fmt: skip
    assert row["cores"] == {"client": CORE, "server": CORE, "broker": CORE}
    assert row["status"] in (OK, SUSPECT), row["reasons"]
    assert bool(row["reasons"]) == (row["status"] != OK)
    assert row["n"] == 2 * TINY.samples
    assert len(row["runs"]) == 2
    summary = row["summary"]
    times = [summary[name] for name in ("min", "p50", "p90", "p99", "p999", "max")]
    assert times == sorted(times)
    assert summary["ci95"][0] <= summary["p50"] <= summary["ci95"][1]
    assert summary["calls_per_s"] > 0


def test_the_system_file_is_sound() -> None:
    file = load(SYSTEM_FILE)
    assert file.manifest.servers["echo"].window == Counts().depth
