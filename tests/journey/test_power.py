"""A power cut is the SIGKILL of the machine. What was acknowledged is on the disk afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import random
import signal
import time
from pathlib import Path

import pytest

from launcher.board import MACHINE
from launcher.job import Job
from launcher.kernel import SystemDown
from launcher.system import System
from tests.journey.world import booted, sources

CUTS = 10
FILES = 9  # to be written in each round, some of them more often
ROUNDS = 20  # as often: the power goes while it writes, not when it is done
LOOK_S = 0.002  # between two looks at what was acknowledged
EMPTY = hashlib.sha256(b"").hexdigest()


def cut_power(system: System, job: Job, after: int, rng: random.Random) -> None:
    """Run the job and kill the machine a random moment after so many acknowledged copies."""
    late_s = rng.uniform(0.0, 0.01)
    due: list[float] = []

    def meanwhile() -> float:
        now = time.monotonic()
        if not due and job.done("put") >= after:
            due.append(now + late_s)
        if due and now >= due[0] and system.tasks[MACHINE].process is not None:
            system.signal(MACHINE, signal.SIGKILL)
        return LOOK_S

    with contextlib.suppress(SystemDown):
        job.run(meanwhile)
        pytest.fail("the power did not go")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(system: System, paths: list[str]) -> dict[str, str]:
    with Job(system, [f"sha256 {path}" for path in paths]) as check:
        check.run()
        return check.digests


@pytest.mark.usefixtures("runtime_dir")
def test_acknowledged_files_survive_power_cuts(tmp_path: Path) -> None:
    rng = random.Random(50)
    image = tmp_path / "disk.img"
    kept: dict[str, str] = {}  # acknowledged: path inside -> SHA-256
    for number in range(CUTS):
        names = [f"{number}-{n}" for n in range(FILES - 2)] + ["again-0", "again-1"]
        rng.shuffle(names)
        files = sources(tmp_path / "src", names, number)
        with booted(image) as system:
            assert digests(system, list(kept)) == kept, f"after {number} cuts"
            order = list(files) * ROUNDS
            with Job(system, [f"put {files[path]} {path}" for path in order]) as job:
                cut_power(system, job, rng.randrange(FILES), rng)
                done = job.done("put")
        for path in order[:done]:
            kept[path] = digest(files[path])
        kept.pop(order[done], None)  # it was under way: the test below is about those


@pytest.mark.usefixtures("runtime_dir")
def test_a_file_under_way_is_a_whole_version_or_empty(tmp_path: Path) -> None:
    """A copy truncates, then writes up to 128 KiB in one call: never a mixture of two versions."""
    rng = random.Random(7)
    image = tmp_path / "disk.img"
    known: set[str] = {EMPTY}
    for number in range(6):
        versions = list(sources(tmp_path / "src", [f"v{n}" for n in range(6)], number).values())
        whole = [path for path in versions if path.stat().st_size <= 128 * 1024]
        with booted(image) as system:
            assert set(digests(system, ["/file"]).values()) <= known, f"after {number} cuts"
            with Job(system, [f"put {path} /file" for path in whole * ROUNDS]) as job:
                cut_power(system, job, rng.randrange(len(whole)), rng)
        known |= {digest(path) for path in whole}
