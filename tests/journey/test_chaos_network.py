"""Experiments on the network: a real client outside, its connections, and what is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from launcher.chaos.evidence import OK
from launcher.chaos.experiment import load
from launcher.chaos.outside import check_programs
from launcher.source import ConfigError
from tests.conftest import TIMEOUT_S, gone, processes_of
from tests.journey.experiments import (
    ALWAYS,
    READY,
    TALKER,
    experiment,
    injections,
    play,
    results,
    told,
)
from tests.tools import needs, no_own_network

pytestmark = [
    needs("curl"),
    pytest.mark.skipif(bool(no_own_network()), reason=no_own_network() or "there is one"),
]

SYSTEM = f"""
system: network
hardware:
  disk0: {{model: virtio-blk, image: disk.img, size: 8MiB}}
  nic0: {{model: virtio-net, backend: userns, host_address: 10.77.0.1/24}}
servers:
  disk: {{run: servers.disk, serves: block, devices: [disk0], {ALWAYS}}}
  fs:
    run: servers.fs
    serves: file
    calls: [{{disk: {{via: channel}}}}]
    state: persistent
    args: {{format_if_blank: true}}
    {ALWAYS}
  nic:
    run: servers.nic
    serves: ethernet
    devices: [nic0]
    window: 64
    standby: true
    {ALWAYS}
  net:
    run: servers.net
    serves: net
    calls: [{{nic: {{via: channel}}}}]
    window: 64
    state: persistent
    standby: true
    args: {{address: 10.77.0.2/24, connections: 16}}
    {ALWAYS}
  httpd:
    run: servers.httpd
    calls: [{{net: {{via: channel}}}}, {{fs: {{via: channel}}}}]
    args: {{root: /}}
    {ALWAYS}
  echo: {{run: servers.echo, serves: echo, {ALWAYS}}}
"""
FETCHER = {"client": "fetcher", "run": "download", "url": "http://10.77.0.2/big", "size": "3MiB"}
SOME = {"at": 0, "do": "device", "device": "nic0", "probability": 0.2, "for": "3s"}
NEMESIS = [
    {**SOME, "fault": "lose_frame", "requests": 3},
    {**SOME, "fault": "corrupt_frame", "requests": 3},
    {"at": "900ms", "every": "600ms", "count": 3, "do": "kill", "target": "net"},
    {"at": "1200ms", "every": "600ms", "count": 2, "do": "kill", "target": "nic"},
    {"at": "2400ms", "do": "kill_together", "target": ["nic", "net"]},
]


@pytest.mark.usefixtures("runtime_dir")
def test_downloads_go_on_over_their_connections_whoever_is_killed(tmp_path: Path) -> None:
    run = play(
        experiment(
            tmp_path,
            SYSTEM,
            workload=[FETCHER, {**TALKER, "bystander": True}],
            steady_state=[READY],
            nemesis=NEMESIS,
            checkers=[
                "min_landed",
                "downloads_complete",
                "same_connection",
                "one_outcome_per_call",
                "bystanders",
                "blast_radius_as_predicted",
                "kernel_alive",
            ],
        )
    )
    assert told(run) == {}
    assert len(results(run)) == 8
    evidence = run.evidence
    downloads = [op for op in evidence.history if op.client == "fetcher"]
    assert downloads
    assert {(op.outcome, op.value) for op in downloads} == {(OK, evidence.prepared["fetcher"])}
    assert {each.moved_bytes for each in evidence.transfers} == {3 << 20}
    assert len(evidence.transfers) == len(evidence.connections) == len(downloads)
    assert all(each.acked_bytes > 3 << 20 for each in evidence.connections)  # and a head
    lost = injections(run)["lose_frame", "nic0"]
    assert int(lost.detail.split()[1]) > 0
    assert evidence.observed is not None
    assert set(evidence.observed.down) == {"nic", "net"}
    assert "fetcher" not in {name for part in evidence.observed for name in part}


def only_pausing(folder: Path) -> Path:
    pause = {"at": 0, "do": "pause", "target": "echo", "for": "60s"}
    return experiment(
        folder, SYSTEM, workload=[FETCHER], nemesis=[pause], checkers=["same_connection"]
    )


def is_curl(process: psutil.Process) -> bool:
    try:
        return bool(process.name() == "curl")
    except psutil.Error:
        return False


def test_nobody_outlives_a_launcher_that_is_killed(runtime_dir: Path, tmp_path: Path) -> None:
    path = only_pausing(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "launcher.cli", "chaos", "run", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(scratch)},
    ) as run:
        launcher, below = psutil.Process(run.pid), list[psutil.Process]()
        while not any(map(is_curl, below)):
            assert run.poll() is None
            below = launcher.children(recursive=True)
        run.send_signal(signal.SIGKILL)
        run.wait(TIMEOUT_S)
        assert gone(below, TIMEOUT_S)
    assert processes_of(runtime_dir) == []


def test_a_host_without_curl_is_told_so_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = load(only_pausing(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        check_programs(file)
    line = file.where("workload", 0).rpartition(":")[2]
    assert [(str(p.line), p.text) for p in caught.value.problems] == [
        (line, f"workload.run: download needs {program}, which this host has not: install the"
         f" package {package}")
        for program, package in (("curl", "curl"), ("nsenter", "util-linux"))
    ]  # fmt: skip


def test_the_command_ends_with_2_then(tmp_path: Path, runtime_dir: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "launcher.cli", "chaos", "run", str(only_pausing(tmp_path))],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": str(tmp_path)},
        timeout=TIMEOUT_S,
        check=False,
    )
    assert told.returncode == 2
    assert "download needs curl, which this host has not" in told.stderr
    assert "Traceback" not in told.stderr
    assert list(runtime_dir.iterdir()) == []
