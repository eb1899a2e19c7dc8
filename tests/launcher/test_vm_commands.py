"""vm commands: tables, files, moves and the console, with monitors whose guests are a few bytes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from launcher import vmfile
from launcher.cli import app
from launcher.client import Client, Refused
from launcher.commands.vm import find_vm
from launcher.commands.vm_top import between, shown
from launcher.frames import dump
from tests.conftest import TIMEOUT_S, own_runtime_dir, until

MONITOR = "run: tests.launcher.tasks.monitor, serves: vm"
CLOUD = f"""
system: cloud
servers:
  echo: {{run: servers.echo, serves: echo}}
  vm-a: {{{MONITOR}, args: {{memory: 5000000}}}}
  vm-b: {{{MONITOR}, args: {{memory: 5000000, empty: true}}}}
  small: {{{MONITOR}, args: {{memory: 4096, empty: true}}}}
  broken: {{{MONITOR}, args: {{memory: 5000000, empty: true, trouble: fails}}}}
  mortal:
    {MONITOR.replace(", ", chr(10) + "    ")}
    args: {{memory: 5000000, empty: true, trouble: dies}}
    restart: {{max_restarts: 100, backoff: {{first_ms: 0}}}}
  doomed: {{{MONITOR}, args: {{memory: 4096}}, restart: {{max_restarts: 0}}}}
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One system for all of these tests, up; a folder."""
    folder = tmp_path_factory.mktemp("cloud")
    (folder / "system.yaml").write_text(CLOUD)
    with own_runtime_dir():
        up = command("up", str(folder / "system.yaml"), "--detach")
        subprocess.run(up, check=True, timeout=TIMEOUT_S)
        yield folder
        subprocess.run(command("down"), check=True, timeout=TIMEOUT_S)


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "launcher.cli", *args]


def shown_by(*args: str, status: int = 0) -> str:
    """What a command prints, and why it was refused."""
    done = CliRunner().invoke(app, ["vm", *args])
    if isinstance(done.exception, Refused | LookupError):
        code = done.exception.code if isinstance(done.exception, Refused) else 2
        assert code == status, done.exception
        return done.output + str(done.exception)
    assert done.exit_code == status, done.output
    return done.output


def states() -> dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads(shown_by("ls", "--json"))}


@pytest.mark.usefixtures("cloud")
def test_what_there_is() -> None:
    lines = shown_by("ls").splitlines()
    assert lines[1].split() == [
        "vm-a", "running", "unicorn", "4882", "1.5", "0.2", "2", "1", "4", "0.3", "1.2", "1",
    ]  # fmt: skip
    assert len(lines) == 7
    assert "QUARANTINED" not in lines[0]
    (first, *_) = json.loads(shown_by("ls", "--json"))
    assert first["exits"] == [{"kind": "slice", "times": 7}, {"kind": "wfi", "times": 3}]


@pytest.mark.usefixtures("cloud")
def test_pause_and_resume() -> None:
    shown_by("pause", "vm-a")
    assert states()["vm-a"] == "paused"
    shown_by("resume", "vm-a")
    assert states()["vm-a"] == "running"
    assert "it is empty" in shown_by("resume", "vm-b", status=1)
    assert "no virtual machine 'echo'; it has vm-a, vm-b" in shown_by("pause", "echo", status=2)


def test_a_system_without_virtual_machines() -> None:
    with pytest.raises(Refused, match=r"add one under `vms:` \(s.yaml\)"):
        find_vm({"system": "s", "config": "s.yaml", "serves": {"a": "echo"}}, "a")


def test_a_machine_goes_into_a_file_and_on_from_it(cloud: Path) -> None:
    file = cloud / "a.vm"
    assert "bytes; vm-a stood still for" in shown_by("snapshot", "vm-a", str(file))
    told = json.loads(shown_by("snapshot", "vm-a", str(file), "--json"))
    assert (told["memory"], told["size"], told["name"]) == (
        5_000_000,
        file.stat().st_size - 4096,
        "vm-a",
    )
    assert states()["vm-a"] == "running"
    assert "vm-b goes on from" in shown_by("restore", "vm-b", str(file))
    assert states()["vm-b"] == "running"
    again = cloud / "b.vm"
    shown_by("snapshot", "vm-b", str(again))
    assert again.read_bytes()[4096:] == file.read_bytes()[4096:]
    shown_by("discard", "vm-b")
    assert states()["vm-b"] == "empty"
    assert "vm-b is empty" in shown_by("snapshot", "vm-b", str(again), status=1)
    assert sorted(path.name for path in cloud.glob("*.vm")) == ["a.vm", "b.vm"]
    assert not list(cloud.glob(".*vm*"))


def test_files_that_are_no_copies(cloud: Path) -> None:
    file = cloud / "good.vm"
    shown_by("snapshot", "vm-a", str(file))
    good = file.read_bytes()
    bad = cloud / "bad.vm"
    for content, told in (
        (b"", "no copy of a virtual machine"),
        (b"x" * 5000, "no copy of a virtual machine"),
        (good[:8] + b"\x02\0\0\0" + good[12:], "its format is version 2, and this reads 1"),
        (good[:16] + b"[" + good[17:], "its description cannot be read"),
        (good[:-1], "it was cut off"),
        (good[:-1] + b"\0", "is not what its checksum says"),
    ):
        bad.write_bytes(content)
        assert told in shown_by("restore", "vm-b", str(bad), status=2)
    assert "No such file" in shown_by("restore", "vm-b", str(cloud / "none"), status=2)
    assert "No such file" in shown_by("snapshot", "vm-a", str(cloud / "no" / "x"), status=2)
    os.mkfifo(pipe := cloud / "pipe")
    assert "it is there, and no file" in shown_by("snapshot", "vm-a", str(pipe), status=2)
    assert pipe.is_fifo()  # and not replaced
    told = shown_by("restore", "small", str(file), status=1)
    assert "small has 4KiB of memory, and the copy 5000000: give it the same" in told
    assert states() == {**states(), "vm-a": "running", "vm-b": "empty", "small": "empty"}


@pytest.mark.usefixtures("cloud")
def test_a_machine_moves_there_and_back() -> None:
    told = json.loads(shown_by("migrate", "vm-a", "vm-b", "--json"))
    assert told["size"] > 5_000_000 - 251
    assert told["pause_ms"] >= 0
    assert states() == {**states(), "vm-a": "empty", "vm-b": "running"}
    assert "vm-a runs what vm-b was" in shown_by("migrate", "vm-b", "vm-a")
    for to, why in (
        ("broken", "vm-a was not moved, and goes on where it was: no processor"),
        ("mortal", "vm-a was not moved, and goes on where it was"),
        ("small", "small has 4KiB of memory, and vm-a 5000000"),
    ):
        assert why in shown_by("migrate", "vm-a", to, status=1)
        assert states() == {**states(), "vm-a": "running"}
    assert "name another monitor" in shown_by("migrate", "vm-a", "vm-a", status=2)


@pytest.mark.usefixtures("cloud")
def test_who_asked_is_gone_and_the_machine_goes_on() -> None:
    with Client() as asks:
        asks._line.sendall(dump(["vm_migrate", "vm-a", "vm-b"]))
    with Client() as client:
        while {states()["vm-a"], states()["vm-b"]} not in (
            {"running", "empty"},
            {"empty", "running"},
        ):
            client.ended(0.01)
    if states()["vm-b"] == "running":
        shown_by("migrate", "vm-b", "vm-a")
    assert states() == {**states(), "vm-a": "running", "vm-b": "empty"}


def test_two_at_the_same_time_have_memory_of_their_own_and_none_is_left(cloud: Path) -> None:
    file, again = cloud / "before.vm", cloud / "after.vm"
    shown_by("snapshot", "vm-a", str(file))
    with Client() as moves, Client() as restores, file.open("rb", buffering=0) as copy:
        about = vmfile.check(copy, file)
        moves._line.sendall(dump(["vm_migrate", "vm-a", "vm-b"]))
        with pytest.raises(Refused, match="broken was not restored, and is empty now: no proc"):
            restores.ask("vm_load", "broken", "unicorn", about.memory, fds=(copy.fileno(),))
        while states()["vm-a"] != "empty":
            moves.ended(0.01)
    shown_by("snapshot", "vm-b", str(again))
    assert again.read_bytes()[4096:] == file.read_bytes()[4096:]
    shown_by("migrate", "vm-b", "vm-a")
    with Client() as client:
        regions = [row for row in client.ask("caps") if row["kind"] == "region"]
        assert regions == []


@pytest.mark.usefixtures("cloud")
def test_what_may_not_be_asked() -> None:
    with Client() as client:
        for request, why in (
            (["vm_migrate", "vm-a", "echo"], "echo is no virtual machine"),
            (["vm_save", "vm-a"], "one file is needed"),
            (["ask", "vm-a", "load", [0, "00"], 1000], "vm-a cannot be asked 'load'"),
            (["ask", "vm-a", "enter", ["xyz"], 1000], "are no arguments of enter(data: bytes)"),
        ):
            with pytest.raises(Refused) as refused:
                client.ask(*request)
            assert why in str(refused.value)
            assert refused.value.code == 2
        inner, outer = os.pipe()
        with pytest.raises(Refused, match="nobody waits for a pipe"):
            client.ask("vm_save", "vm-a", fds=(outer,))
        os.close(inner)
        os.close(outer)


@pytest.mark.usefixtures("cloud")
def test_a_monitor_that_is_given_up_and_a_request_in_quarantine_are_shown() -> None:
    subprocess.run(command("kill", "doomed"), check=True, timeout=TIMEOUT_S)
    until(lambda: states()["doomed"] == "monitor failed")
    shown_by("migrate", "vm-a", "mortal", status=1)  # asked again, its monitor dies twice
    rows = {row["name"]: row for row in json.loads(shown_by("ls", "--json"))}
    kept = {name: row["quarantined"] for name, row in rows.items() if row["quarantined"]}
    assert {*kept} == {"mortal"}
    titles, *lines = shown_by("ls").splitlines()
    assert titles.split()[-1] == "QUARANTINED"
    assert [line.split()[-1] for line in lines if line.startswith("mortal")] == [
        str(kept["mortal"])
    ]
    assert "doomed is failed" in shown_by("pause", "doomed", status=1)


@pytest.mark.usefixtures("cloud")
def test_the_console_as_a_pipe() -> None:
    done = subprocess.run(
        command("vm", "console", "vm-a"),
        input=b"typed in\n",
        capture_output=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert done.stdout.startswith(b"hello\r\n")
    assert done.stdout.endswith(b"typed in\n")


@pytest.mark.usefixtures("cloud")
def test_the_console_of_a_terminal() -> None:
    ours, theirs = pty.openpty()
    line = command("vm", "console", "vm-b")
    with subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        while b"Ctrl-] leaves" not in seen:
            seen += os.read(ours, 1000)
        os.write(ours, b"\x03keys\x1d")
        while b"keys" not in seen:
            seen += os.read(ours, 1000)
        assert process.wait(TIMEOUT_S) == 0
    os.close(ours)
    assert b"\x03keys" in seen


# --- top -----------------------------------------------------------------------------------------


def row(**more: Any) -> dict[str, Any]:
    return {
        "name": "a", "life": 1, "state": "running", "engine": "unicorn", "slices": 10,
        "run_us": 1000, "exits": [{"kind": "slice", "times": 10}], "faults": 0, "resets": 0,
        "snapshots": 0, "snapshot_age_ms": 0, "snapshot_pause_us": 0, **more,
    }  # fmt: skip


def test_what_a_machine_did_between_two_looks() -> None:
    later = row(slices=30, run_us=501_000, exits=[{"kind": "wfi", "times": 6}])
    found = between(row(), later, 2.0)
    assert (found["cpu_percent"], found["slices_per_s"]) == (25.0, 10.0)
    assert (found["exits_per_s"]["wfi"], found["exits_per_s"]["halt"]) == (3.0, 0.0)
    assert between(row(), {**later, "life": 2}, 2.0)["slices_per_s"] == 15.0
    assert between(None, later, 2.0)["cpu_percent"] == pytest.approx(25.05)
    dead = {"name": "a", "life": 2, "state": "monitor dead", "why": "x"}
    assert shown(between(row(), dead, 1.0))[:3] == ["a", "monitor dead", None]
    assert shown(found)[:3] == ["a", "running", 25.0]


@pytest.mark.usefixtures("cloud")
def test_top_as_a_table_and_as_json() -> None:
    lines = shown_by("top", "--every", "0.05", "--count", "1").splitlines()
    assert lines[0].startswith("cloud: 6 virtual machines in 0.")
    assert lines[2].split()[:3] == ["vm-a", "running", "0.0"]
    told = json.loads(shown_by("top", "--every", "0.05", "--count", "1", "--json"))
    assert {each["name"] for each in told["vms"]} >= {"vm-a", "vm-b"}


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x.vm"
    with pytest.raises(ValueError, match="closed"), vmfile.writing(path) as out:
        out.close()
    assert list(tmp_path.iterdir()) == []
