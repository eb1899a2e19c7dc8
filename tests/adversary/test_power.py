"""52, 53 and 55: the launcher, the kernel or the machine is killed, and what is left then."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launcher.board import MACHINE
from launcher.client import Client, Refused
from launcher.job import Job
from launcher.kernel import SystemDown
from tests.adversary.conftest import WorldMaker
from tests.adversary.world import BYSTANDERS, MORTAL, PATIENCE_S, ROOT, World, gone, launched
from tests.conftest import Ukernel
from tests.journey.test_power import LOOK_S, ROUNDS, digest, digests
from tests.journey.world import sources


def test_52_launcher_killed(runtime_dir: Path, tmp_path: Path) -> None:
    """Everything is gone within a second: processes, orphans of theirs, the run directory."""
    with launched(tmp_path) as (launcher, pids):
        assert {"kernel", "zygote", "echo", "witness", "mortal", "orphan"} <= pids.keys()
        descriptors = [os.pidfd_open(pid) for pid in pids.values()]
        launcher.kill()
        _all_end_within(1.0, descriptors)
        assert not (runtime_dir / "ukernel").exists()
    for pid in pids.values():
        _reap(pid)
    assert gone(list(pids.values()))


def _all_end_within(seconds: float, descriptors: list[int]) -> None:
    deadline = time.monotonic() + seconds
    for fd in descriptors:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        os.close(fd)
        assert ready


def _reap(pid: int) -> None:
    """An orphan may have become ours: a launcher in this process has made it a subreaper."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def test_53_kernel_killed(make_world: WorldMaker) -> None:
    """Everything fails closed: the launcher is told, and what it takes down leaves nothing."""
    world = make_world(MORTAL)
    children = [task.process.pid for task in world.system.tasks.values() if task.process]
    os.kill(world.kernel_pid, signal.SIGKILL)
    with pytest.raises(SystemDown, match="kernel died"):
        world.until(lambda: False, "the end")
    with pytest.raises(SystemDown, match="kernel died"):
        world.system.slots()
    path = world.system.run.path
    world.system.down()
    assert gone([*children, world.kernel_pid])
    assert not path.exists()


FILES = """
  disk: {run: servers.disk, serves: block, devices: [disk0]}
  fs: {run: servers.fs, serves: file, calls: [disk], state: disk, args: {format_if_blank: true}}
  shell: {run: servers.shell, calls: [fs], start: demand}
hardware: {disk0: {model: virtio-blk, image: disk.img, size: 8MiB}}
"""
CUTS = 3


def test_55_hwsim_killed_in_the_middle_of_a_write(make_world: WorldMaker, tmp_path: Path) -> None:
    """That is a power cut. After the reboot every write that was acknowledged is there."""
    kept: dict[str, str] = {}  # acknowledged: path inside -> SHA-256
    for cut in range(CUTS):
        files = sources(tmp_path / "src", [f"{cut}-{number}" for number in range(8)], cut)
        world = make_world(FILES)
        assert digests(world.system, [*kept]) == kept
        order = [*files] * ROUNDS  # there is always something to be written
        with Job(world.system, [f"put {files[path]} {path}" for path in order]) as job:
            _cut_in_a_write(world, job, 2 + cut)
            done = job.done("put")
        world.system.down()
        kept |= {path: digest(files[path]) for path in order[:done]}
        kept.pop(order[done], None)  # it was cut to nothing first, and then was under way
    world = make_world(FILES)
    assert digests(world.system, [*kept]) == kept
    assert len(kept) >= 2 * CUTS


def _cut_in_a_write(world: World, job: Job, after: int) -> None:
    """Kill the machine when so many copies are acknowledged and its disk has work in hand."""
    machine = world.system.tasks[MACHINE]

    def meanwhile() -> float:
        if machine.process and job.done("put") >= after and world.slot("disk").taken:
            world.system.signal(MACHINE, signal.SIGKILL)
        return LOOK_S

    with pytest.raises(SystemDown, match="power is off"):
        job.run(meanwhile)


REBOOTING = FILES + "on_kernel_death: reboot\n"


@contextmanager
def up(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`ukernel up` of a system that boots again; it is asked to end when all is over."""
    path = folder / "system.yaml"
    path.write_text(BYSTANDERS + REBOOTING)
    command = [sys.executable, "-m", "launcher.cli", "up", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        try:
            _hear(running, " is up: ")
            yield running
            running.send_signal(signal.SIGINT)
            assert running.wait(PATIENCE_S) == 0
        finally:
            running.terminate()


def _hear(running: subprocess.Popen[str], text: str) -> None:
    assert running.stdout is not None
    assert any(text in line for line in running.stdout), f"it ended before it said {text!r}"


def pids() -> dict[str, int]:
    """Of every task, as soon as the system answers people."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with Client() as client:
                tasks = {row["name"]: row["pid"] for row in client.ask("ps")}
                return {"kernel": client.ask("info")["kernel"], **tasks}
        except Refused:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("victim", ["kernel", MACHINE], ids=["53_kernel", "55_hwsim"])
def test_a_reboot_by_itself(ukernel: Ukernel, tmp_path: Path, victim: str) -> None:
    """`on_kernel_death: reboot`: the system is back without anybody, and all that was written."""
    files = sources(tmp_path / "src", [f"f{number}" for number in range(40)], 1)
    script = tmp_path / "script"
    script.write_text("\n".join(f"put {file} {path}" for path, file in files.items()))
    with up(tmp_path) as running:
        before = pids()
        command = [sys.executable, "-m", "launcher.cli", "fs", "script", str(script), "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            acknowledged = [writer.stdout.readline() for _ in range(3)]
            os.kill(before[victim], signal.SIGKILL)
            acknowledged += writer.stdout.read().splitlines()
        _hear(running, "booting again")
        _hear(running, " is up: ")
        kept = [*files][: sum('"put"' in line and "error" not in line for line in acknowledged)]
        assert pids().keys() == before.keys()
        told = ukernel("fs", "sha256", *kept).stdout
        assert told.splitlines() == [f"{digest(files[path])}  {path}" for path in kept]
        assert gone([pid for pid in before.values() if pid])
