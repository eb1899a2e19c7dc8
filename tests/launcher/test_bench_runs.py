"""bench, with real processes and small counts: what is wrong is seen, what is right is complete,
what is not installed is told, and nothing is left behind."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from launcher.bench import ipc, pictures
from launcher.bench.cores import SAME, Placement, allowed
from launcher.bench.gates import judge
from launcher.bench.job import Counts, Step
from launcher.bench.paths import PATHS, absent
from launcher.bench.plan import DEEP, Plan
from launcher.bench.result import ABSENT, INVALID, SCHEMA, Result, row_of
from launcher.bench.runs import RunError, run
from launcher.bench.selftest import SLOWER_US, is_seen, self_tests
from launcher.bench.table import print_table
from launcher.rundir import running
from tests.conftest import Ukernel

TINY = Counts(
    warmup_calls=10, warmup_ms=0, settle_calls=2, settle_ms=0, samples=100, pipelined=100, depth=16
)
CORE = allowed()[0]
HERE = Placement(CORE, CORE, SAME)
PEERS = [path for path in PATHS.values() if not path.is_ours]
TRIED = ("unix_socket", "channel_block", "kernel", "zmq_proxy_c")


def plan(*paths: str, **more: Any) -> Plan:
    return replace(Plan(paths, (HERE,), (Step(),), sets=2, counts=TINY), **more)


def told(text: str) -> None:
    """Progress is for people."""


# --- what is wrong is seen ----------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["bare_router", "kernel_untraced"])
def test_a_wrong_echo_makes_the_result_invalid(peer: str, runtime_dir: Path) -> None:
    counts = replace(TINY, warmup_calls=100)
    done = run(PATHS[peer], HERE, counts, (Step(),), fault="wrong")
    row = row_of(PATHS[peer], HERE, Step(), done.seen)
    judge(row, [done], done.seen)
    assert row.status == INVALID
    assert "echoes" in row.reasons[0]


def test_a_server_that_leaves_its_core_makes_the_result_invalid(runtime_dir: Path) -> None:
    done = run(PATHS["unix_socket"], HERE, TINY, (Step(),), fault="wander")
    one_core = os.cpu_count() == 1
    assert one_core or "may run on" in "".join(done.strays)


def test_a_result_below_its_floor_is_invalid(runtime_dir: Path) -> None:
    slow = {"unix_socket": "slow:2000"}
    result = ipc.measure(plan("unix_socket", "mp_pipe", faults=slow, sets=1), told)
    below = next(row for row in result.results if row.peer == "mp_pipe")
    assert below.status == result.status == INVALID
    assert "below the quickest unix_socket" in "".join(below.reasons)


def test_a_run_without_a_result_is_told(runtime_dir: Path) -> None:
    with pytest.raises(RunError, match=r"unix_socket: its server was never ready"):
        run(PATHS["unix_socket"], HERE, TINY, (Step(),), fault="nonsense")
    result = ipc.measure(plan("unix_socket", faults={"unix_socket": "nonsense"}, sets=1), told)
    assert result.status == INVALID
    assert "came to no result" in result.results[0].reasons[0]
    print_table(result, Console(file=io.StringIO()))


def test_what_is_not_installed_is_told_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, runtime_dir: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    result = ipc.measure(plan("timer", "cache_line", "nats", sets=1), told)
    spinning, row = result.results[1:]
    assert (spinning.peer, spinning.status) == ("cache_line", ABSENT)
    assert "two cores" in spinning.reasons[0]
    assert (row.peer, row.status, row.n) == ("nats", ABSENT, 0)
    assert row.reasons == ["not installed: apt-get install nats-server"]
    assert result.status != INVALID
    assert "nats-server" not in result.versions


def test_the_bench_sees_what_is_done_to_a_server(runtime_dir: Path) -> None:
    """How far a p50 moves depends on who else is here, so the verdict on it is for people."""
    delay, stall = self_tests(["unix_socket"], HERE, told)
    assert (delay.name, delay.path, stall.name) == ("delay", "unix_socket", "stall")
    assert f"{SLOWER_US} us more" in delay.text
    assert stall.held, stall.text
    slowed = run(PATHS["unix_socket"], HERE, TINY, (Step(),), fault=f"slow:{SLOWER_US}")
    assert slowed.seen[0].figures["min"] >= SLOWER_US * 1000


@pytest.mark.parametrize(
    ("moved_us", "held"), [(200.0, True), (180.0, True), (221.0, False), (0.0, False)]
)
def test_a_delay_must_be_seen_as_it_is(moved_us: float, held: bool) -> None:
    assert is_seen(moved_us) == held


# --- what is right is complete ------------------------------------------------------------------


@pytest.mark.parametrize("path", PEERS, ids=lambda path: path.name)
def test_every_peer_that_is_installed_echoes(path: Any, runtime_dir: Path) -> None:
    if why := absent(path):
        assert "install" in why
        return
    where = Placement(CORE, allowed()[-1], "") if not path.same_core else HERE
    if not path.same_core and not where.is_cross:
        return  # two processes that spin need two cores
    steps = (Step(size=8),) if path.only_word else (Step(), Step(size=100_000))
    done = run(path, where, replace(TINY, samples=20), steps)
    assert [seen.wrong for seen in done.seen] == [0] * len(steps)
    assert not done.strays


def test_a_run_is_complete_and_leaves_nothing(runtime_dir: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    cores, before = os.sched_getaffinity(0), psutil.Process().children(recursive=True)
    result = ipc.measure(plan(*TRIED, steps=DEEP), lines.append)
    assert len([line for line in lines if line.endswith(" left")]) == 2 * len(TRIED)
    result.write(tmp_path / "bench.json")
    check_schema(json.loads((tmp_path / "bench.json").read_text()))
    check_table(result)
    check_pictures(result, tmp_path / "pictures")
    assert f"bench-{os.getpid()}" not in running()
    assert set(psutil.Process().children(recursive=True)) <= set(before)
    assert os.sched_getaffinity(0) == cores


def check_schema(found: dict[str, Any]) -> None:
    assert set(found) == {
        "schema", "host", "versions", "commit", "results", "ratios", "self_tests", "hops"
    }  # fmt: skip
    assert found["schema"] == SCHEMA
    wanted = {"cpu", "cores", "clock_source", "governor", "load", "kernel", "topology"}
    assert wanted <= set(found["host"])
    assert {"python", "pyzmq", "libzmq", "msgpack"} <= set(found["versions"])
    assert [row["peer"] for row in found["results"]] == list(TRIED)
    assert set(found["ratios"]) == {
        "kernel_over_zmq_proxy_c_p50",
        "kernel_over_zmq_proxy_c_throughput",
        "channel_block_over_unix_socket_p50",
    }
    assert all(ratio > 0 for ratio in found["ratios"].values())
    for row in found["results"]:
        check_row(row)


def check_row(row: dict[str, Any]) -> None:
    path = PATHS[row["peer"]]
    assert (row["class"], row["mode"], row["unit"], row["metric"]) == (
        path.kind, "closed", "ns", "rtt",
    )  # fmt: skip
    assert set(row["cores"].values()) == {CORE}
    assert ("broker" in row["cores"]) == (path.kind == "brokered")
    assert row["status"] != INVALID, row["reasons"]
    assert bool(row["reasons"]) == (row["status"] != "ok")
    assert row["n"] == 2 * TINY.samples
    assert row["depth"] == (TINY.depth if path.deep else 1)
    assert len(row["runs"]) == 2
    summary = row["summary"]
    times = [summary[name] for name in ("min", "p50", "p90", "p99", "p999", "max")]
    assert times == sorted(times)
    assert summary["ci95"][0] <= summary["p50"] <= summary["ci95"][1]
    assert summary["calls_per_s"] > 0


def check_table(result: Result) -> None:
    text = io.StringIO()
    print_table(result, Console(file=text, width=80))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    blocks = [line.strip() for line in lines if line.strip() in ("floors", "direct", "brokered")]
    assert blocks == ["floors", "direct", "brokered"]
    assert "…" not in text.getvalue()


def check_pictures(result: Result, folder: Path) -> None:
    written = pictures.draw(result, folder)
    assert {file.name for file in written} == {
        f"{name}.{suffix}"
        for name in ("percentiles-same-core", "cores")
        for suffix in ("svg", "png")
    }
    assert all(file.stat().st_size > 1000 for file in written)


# --- the command --------------------------------------------------------------------------------


def test_the_command_refuses_what_it_does_not_know(ukernel: Ukernel) -> None:
    assert "it is one or full" in ukernel("bench", "ipc", "--matrix", "some", status=2).stderr
    refused = ukernel("bench", "ipc", "--quick", "--matrix", "full", status=2)
    assert "leave one of them out" in refused.stderr
    nowhere = ukernel("bench", "ipc", "--json", "no/such/folder.json", status=2)
    assert "no/such/folder.json" in nowhere.stderr


def test_ctrl_c_leaves_nothing(runtime_dir: Path) -> None:
    command = [sys.executable, "-m", "launcher.cli", "bench", "ipc", "--quick"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as bench:
        assert bench.stderr is not None
        while "self-test" not in (line := bench.stderr.readline()):
            assert line, "it ended before it began"
        bench.send_signal(signal.SIGINT)
        bench.communicate(timeout=20)
    assert bench.returncode == 130
