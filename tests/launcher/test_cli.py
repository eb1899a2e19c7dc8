"""cli: every command on running systems, wrong input, and ends of every kind that leave nothing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.client import Client
from tests.conftest import CONFIGS, TIMEOUT_S, Ukernel, gone, processes_of, until

MINIMAL, STORAGE = str(CONFIGS / "minimal.yaml"), str(CONFIGS / "storage.yaml")

Up = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def up(runtime_dir: Path) -> Iterator[Up]:
    """Starts `ukernel up ARGS` in the foreground; returns when it says that the system is up."""
    started = []

    def start(*args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "launcher.cli", "up", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert any(" is up: " in line for line in process.stdout)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def as_json(ukernel: Ukernel, *args: str) -> Any:
    return json.loads(ukernel(*args, "--json").stdout)


def rows(ukernel: Ukernel) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in as_json(ukernel, "ps")}


# --- a running system ---------------------------------------------------------------------------


def test_up_ps_kill_restart_down(ukernel: Ukernel, runtime_dir: Path) -> None:
    table = ukernel("up", MINIMAL, "--detach").stdout
    assert "minimal is up: 2 tasks READY in" in table
    before = rows(ukernel)
    assert before["echo"]["state"] == before["client"]["state"] == "ready"
    assert before["echo"]["rss_bytes"] > 1 << 20
    assert before["kernel"]["pid"] == psutil.Process(before["kernel"]["pid"]).pid
    victim = psutil.Process(before["echo"]["pid"])
    ukernel("kill", "echo", "--signal", "SEGV")
    assert gone([victim])
    assert "echo is ready: life 3" in ukernel("restart", "echo").stdout
    after = rows(ukernel)["echo"]
    assert (after["life"], after["restarts"], after["state"]) == (3, 1, "ready")
    assert "minimal is down" in ukernel("down").stdout
    assert not list(runtime_dir.iterdir())


UNWATCHED = """
system: unwatched
servers:
  echo: {run: servers.echo, serves: echo, heartbeat: {period_ms: 0}}
"""


def test_a_suspended_server_is_shown_as_such(ukernel: Ukernel, tmp_path: Path) -> None:
    """One that is watched is soon killed instead."""
    config = tmp_path / "system.yaml"
    config.write_text(UNWATCHED)
    ukernel("up", str(config), "--detach")
    ukernel("kill", "echo", "--signal", "STOP")
    until(lambda: "ready, suspended" in ukernel("ps").stdout)
    ukernel("kill", "echo", "--signal", "CONT")
    ukernel("down")


def test_caps_kstat_trace_logs(ukernel: Ukernel, storage_kernel: str) -> None:
    ukernel("fs", "put", "-", "/a", stdin="text")
    fs_caps = as_json(ukernel, "caps", "fs")
    (disk,) = [c for c in fs_caps if c["object"] == "disk" and c["holder"] == "fs#1"]
    assert (disk["kind"], disk["rights"]) == ("endpoint", "call")
    assert f"  {disk['number']} fs#1 endpoint disk: call\n" in ukernel("caps", "fs").stdout
    assert not any("token" in row for row in fs_caps)
    assert as_json(ukernel, "kstat")["calls_done"] > 0
    decoded = ukernel("trace", "--decode").stdout
    assert "shell -> fs FileSystem.open(path='/a', mode=3) = cap[File] " in decoded
    assert "shell -> fs File.write(offset=0, data=4 bytes) = 4 " in decoded
    assert "fs -> disk Block.flush() = ok " in decoded
    assert "disk -> disk0 Registers." in decoded
    first = json.loads(ukernel("trace", "--json").stdout.splitlines()[0])
    assert (first["number"], first["server"]) == (0, "machine")
    assert " -> " in ukernel("trace").stdout
    ukernel("kill", "disk")
    ukernel("restart", "fs")
    assert "disk#1 died: killed by SIGKILL" in ukernel("logs", "launcher").stdout


def test_files_in_and_out(ukernel: Ukernel, storage: str, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "local").write_bytes(content)
    ukernel("fs", "mkdir", "/d")
    ukernel("fs", "put", "local", "/d/")
    digest = ukernel("fs", "sha256", "/d/local").stdout.split()[0]
    assert digest == hashlib.sha256(content).hexdigest()
    ukernel("fs", "mv", "/d/local", "/moved")
    assert ukernel("fs", "ls", "/").stdout == "d/\nmoved\n"
    assert ukernel("fs", "stat", "/moved").stdout == "/moved: file, 300000 bytes\n"
    ukernel("fs", "get", "/moved", "back")
    assert (tmp_path / "back").read_bytes() == content
    ukernel("fs", "rm", "/moved", "/d")
    assert ukernel("fs", "ls").stdout == ""
    assert ukernel("fs", "cat", "/moved", status=1).stderr == "shell: /moved: no such file\n"
    assert "COMMAND" in ukernel("fs", "dance", status=2).stderr


def test_two_systems_at_once(ukernel: Ukernel, minimal: str) -> None:
    ukernel("up", MINIMAL, "--detach", "--system", "second")
    assert "several systems are running: minimal, second" in ukernel("ps", status=2).stderr
    assert "echo" in ukernel("ps", "--system", "second").stdout
    ukernel("kill", "echo", "--system", "second")
    ukernel("down", "--system", "second")
    assert rows(ukernel)["echo"]["life"] == 1
    ukernel("up", MINIMAL, "--detach", "--system", "third")
    assert ukernel("down", "--all").stdout == "minimal is down\nthird is down\n"


def test_up_for_a_while(ukernel: Ukernel) -> None:
    assert "minimal is up" in ukernel("up", MINIMAL, "--for", "0").stdout


# --- wrong input --------------------------------------------------------------------------------


def test_a_bad_system_file_is_told_with_its_place(ukernel: Ukernel, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("system: bad\nservers:\n  a: {run: servers.echo, serves: eco}\n")
    for command in (["check"], ["up"], ["up", "--detach"]):
        assert f"{bad}:3:" in ukernel(*command, str(bad), status=2).stderr
    assert "nothing is wrong" in ukernel("check", MINIMAL).stdout


def test_a_server_that_does_not_start_is_told(ukernel: Ukernel, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('no such luck')\n")
    config = tmp_path / "system.yaml"
    config.write_text("system: sad\nservers:\n  a: {run: broken}\n")
    for mode in ([], ["--detach"]):
        told = ukernel_allowing_a_traceback(config, *mode)
        assert "a failed at start: exit 1" in told
        assert "no such luck" in told


def ukernel_allowing_a_traceback(config: Path, *args: str) -> str:
    """The server's own last words are shown, and they are a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "launcher.cli", "up", str(config), *args],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr


BAD_INPUT = [
    (["kill", "nobody"], "has no task 'nobody'"),
    (["kill", "echo", "--signal", "HUP"], "no signal 'HUP'"),
    (["restart", "nobody"], "has no task 'nobody'"),
    (["caps", "nobody"], "no task 'nobody'"),
    (["logs", "../../lock"], "nothing has been logged by"),
    (["ps", "--system", "other"], "no system other is running; there is minimal"),
    (["fs", "ls"], "has no file shell"),
    (["up", MINIMAL], "system minimal is running"),
    (["up", MINIMAL, "--system", "x", "--image", "disk9=a"], "no disk 'disk9'"),
    (["up", MINIMAL, "--system", "x", "--image", "disk9"], "write it as DEVICE=PATH"),
    (["up", MINIMAL, "--system", "../x"], "a name is a letter"),
    (["manual", "fil"], "did you mean 'file'?"),
    (["dance"], "dance"),
    (
        ["bench", "vm", "--json", "/nope/f"],
        "/nope/f: No such file or directory; name one that can be written",
    ),
]


def test_bad_input_is_one_line_and_status_2(ukernel: Ukernel, minimal: str) -> None:
    for command, told in BAD_INPUT:
        assert told in ukernel(*command, status=2).stderr


def test_without_a_system_there_is_a_hint(ukernel: Ukernel) -> None:
    for command in (["ps"], ["down"], ["fs", "ls"], ["kill", "disk"]):
        told = ukernel(*command, status=2).stderr
        assert told == "ukernel: no system is running: start one with `ukernel up CONFIG`\n"
    assert ukernel("down", "--all").stdout == ""


def test_reference(ukernel: Ukernel) -> None:
    assert json.loads(ukernel("schema").stdout)["properties"].keys() >= {"system", "servers"}
    assert ukernel("manual", "block").stdout.startswith("# Block (")
    assert "| 80 | `caps(" in ukernel("manual", "control").stdout
    assert "file\n" in ukernel("manual").stdout
    assert "Boot a system" in ukernel("--help").stdout


# --- ends of every kind -------------------------------------------------------------------------


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_the_system_down_in_order(
    up: Up, runtime_dir: Path, signo: signal.Signals
) -> None:
    process = up(MINIMAL)
    process.send_signal(signo)
    process.send_signal(signo)  # the second must not break the orderly end
    assert process.wait(TIMEOUT_S) == 0
    assert not processes_of(runtime_dir)
    assert not list(runtime_dir.iterdir())


def test_ctrl_c_of_a_command_ends_it_alone(
    up: Up, ukernel: Ukernel, runtime_dir: Path, tmp_path: Path
) -> None:
    up(STORAGE, "--image", f"disk0={tmp_path / 'disk.img'}")
    ukernel("fs", "put", "-", "/big", stdin="x" * 500_000)
    command = [sys.executable, "-m", "launcher.cli", "fs", "cat", "/big"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as cat, Client() as client:
        assert cat.stdout is not None
        cat.stdout.read(1)  # it has begun, and cannot end: nobody reads on
        (pid,) = [row["pid"] for row in client.ask("ps") if row["name"] == "shell"]
        shell = psutil.Process(pid)
        cat.send_signal(signal.SIGINT)
        assert cat.wait(TIMEOUT_S) == 130
        assert gone([shell])
    assert ukernel("fs", "ls").stdout == "big\n"


def test_a_reader_that_leaves_is_no_error(ukernel: Ukernel, storage: str) -> None:
    ukernel("fs", "put", "-", "/big", stdin="x" * 500_000)
    command = [sys.executable, "-m", "launcher.cli", "fs", "cat", "/big"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as cat:
        assert cat.stdout is not None
        assert cat.stderr is not None
        cat.stdout.read(1)
        cat.stdout.close()
        assert cat.stderr.read() == b""


def test_a_killed_launcher_leaves_nothing(up: Up, runtime_dir: Path, tmp_path: Path) -> None:
    process = up(STORAGE, "--image", f"disk0={tmp_path / 'disk.img'}")
    left = processes_of(runtime_dir)
    assert len(left) >= 8
    process.kill()
    process.wait()
    assert gone(left)
    assert not list(runtime_dir.rglob("*"))


def test_a_killed_kernel_ends_the_system(up: Up, ukernel: Ukernel, runtime_dir: Path) -> None:
    process = up(MINIMAL)
    os.kill(rows(ukernel)["kernel"]["pid"], signal.SIGKILL)
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 3
    assert "the kernel died" in told
    assert not processes_of(runtime_dir)


def test_a_killed_machine_ends_the_system(ukernel: Ukernel, up: Up, tmp_path: Path) -> None:
    process = up(STORAGE, "--image", f"disk0={tmp_path / 'disk.img'}")
    ukernel("kill", "machine")
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 3
    assert "power is off" in told
