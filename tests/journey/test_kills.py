"""Servers are killed in any order while files are written: no byte is lost and nobody notices."""

from __future__ import annotations

import hashlib
import random
import signal
import time
from pathlib import Path

import pytest

from launcher.config import load
from launcher.job import Job
from launcher.system import System
from tests.journey.world import Pipes, booted, sources, wait_for
from ukernel.abi.syscalls import READY

HOLDER = """
system: holder
hardware:
  disk0: {model: virtio-blk, image: disk.img, size: 8MiB}
servers:
  disk:
    run: servers.disk
    serves: block
    devices: [disk0]
    restart: {max_restarts: 1000, backoff: {first_ms: 0}}
  fs:
    run: servers.fs
    state: disk
    serves: file
    calls: [disk]
    args: {format_if_blank: true}
    restart: {max_restarts: 1000, backoff: {first_ms: 0}}
  shell: {run: servers.shell, calls: [fs], start: demand}
  holder: {run: tests.journey.tasks.holder, calls: [fs], start: demand}
"""


class Killer:
    """Kills one or several of `victims` at seeded moments, each when it is READY again."""

    def __init__(self, system: System, victims: tuple[str, ...], seed: int) -> None:
        self.system = system
        self.victims = victims
        self.random = random.Random(seed)
        self.kills = dict.fromkeys(victims, 0)
        self.due = 0.0

    def act(self) -> float:
        if time.monotonic() >= self.due:
            chosen = self.random.sample(self.victims, self.random.randint(1, len(self.victims)))
            for name in chosen:
                if self.system.tasks[name].state == READY:
                    self.system.signal(name, signal.SIGKILL)
                    self.kills[name] += 1
            self.due = time.monotonic() + self.random.uniform(0.03, 0.12)
        return max(0.0, self.due - time.monotonic())


@pytest.mark.usefixtures("runtime_dir")
@pytest.mark.parametrize("victims", [("disk",), ("fs",), ("disk", "fs")])
def test_files_are_intact_after_any_kills(tmp_path: Path, victims: tuple[str, ...]) -> None:
    files = sources(tmp_path / "src", [f"f{n}" for n in range(40)], 1)
    wanted = {path: hashlib.sha256(f.read_bytes()).hexdigest() for path, f in files.items()}
    image = tmp_path / "disk.img"
    with booted(image) as system:
        killer = Killer(system, victims, 2)
        pid = system.slots()["root"].pid
        while not all(count >= 8 for count in killer.kills.values()):
            with Job(system, [f"put {file} {path}" for path, file in files.items()]) as job:
                assert job.run(killer.act) == 0
                assert (job.done("put"), job.calls("unknown")) == (len(files), 0)
            with Job(system, [f"sha256 {path}" for path in files]) as check:
                assert check.run(killer.act) == 0
                assert check.digests == wanted
        for name in victims:
            wait_for(system, lambda name=name: system.tasks[name].state == READY)  # type: ignore[misc]
        assert system.slots()["root"].pid == pid
        assert {row.name: row.value for row in system.control().counters()}["calls_open"] == 0
    with booted(image) as system, Job(system, [f"sha256 {path}" for path in files]) as check:
        check.run()
        assert check.digests == wanted


@pytest.fixture
def holder(tmp_path: Path, runtime_dir: Path) -> Path:
    config = tmp_path / "holder.yaml"
    config.write_text(HOLDER)
    return config


def kill(system: System, name: str) -> None:
    """SIGKILL, and wait until the next life serves."""
    life = system.tasks[name].life
    system.signal(name, signal.SIGKILL)
    wait_for(system, lambda: system.tasks[name].life > life and system.tasks[name].state == READY)


def test_an_open_file_works_across_restarts_of_the_file_system(holder: Path) -> None:
    with System(load(holder)) as system:
        system.boot()
        user = Pipes(system, "holder", ["/diary"])
        assert user.hear() == "open"
        assert user.ask("append one") == "done"
        kill(system, "fs")
        assert user.ask("read") == "one"
        assert user.ask("append two") == "done"
        assert user.ask("rename /journal") == "done"
        kill(system, "fs")
        kill(system, "disk")
        assert user.ask("append three") == "done"
        assert user.ask("read") == "onetwothree"
        user.close()


def test_a_removed_file_is_stale_in_the_next_life_too(holder: Path) -> None:
    with System(load(holder)) as system:
        system.boot()
        user = Pipes(system, "holder", ["/old"])
        assert user.hear() == "open"
        assert user.ask("append bytes") == "done"
        assert user.ask("remove /old") == "done"
        other = Pipes(system, "holder", ["/new"])
        assert other.hear() == "open"
        kill(system, "fs")
        assert user.ask("read") == "StaleHandle"
        assert other.ask("read") == ""
        user.close()
        other.close()


def test_a_closed_capability_is_gone_and_its_handle_with_it(holder: Path) -> None:
    with System(load(holder)) as system:
        system.boot()
        before = system.slots()["fs"].caps
        user = Pipes(system, "holder", ["/file"])
        assert user.hear() == "open"
        assert user.ask("close") == "done"
        assert user.ask("read") == "Denied"
        user.close()
        assert system.slots()["fs"].caps == before
