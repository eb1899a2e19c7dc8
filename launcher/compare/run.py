"""run: one boot of the system in one way: the jobs, each between two readings, and the kill."""

from __future__ import annotations

import os
import selectors
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from launcher.compare import gauge
from launcher.compare.amounts import Amounts
from launcher.compare.cases import Case, Cast, with_load
from launcher.compare.drive import Driver
from launcher.compare.gauge import Reading
from launcher.compare.kill import Kill, kill
from launcher.config import SystemFile
from launcher.system import System
from ukernel.abi.manifest import VirtioBlk
from ukernel.abi.services import Timed

Armed = Callable[[selectors.BaseSelector], AbstractContextManager[None]]


class Job(NamedTuple):
    """What a job came to, inside and outside: the whole first, then each kind of operation."""

    rows: list[Timed]
    used: Reading

    @property
    def whole(self) -> Timed:
        return self.rows[0]


class Run(NamedTuple):
    """One case, once."""

    case: Case
    boot_ms: float
    processes: int
    pss_bytes: int
    jobs: dict[str, Job]
    kill: Kill


def run(file: SystemFile, cast: Cast, case: Case, amounts: Amounts, armed: Armed) -> Run:
    """Boot, work, kill, take down. Raises NoOutcome, BootError and SystemDown."""
    whole = with_load(file, cast, case)
    with tempfile.TemporaryDirectory(prefix="ukernel-compare-") as scratch:
        disks = [n for n, h in file.manifest.hardware.items() if isinstance(h, VirtioBlk)]
        images = {name: Path(scratch) / f"{name}.img" for name in disks}
        name = f"compare-{os.getpid()}"
        with System(whole, name=name, images=images) as system, armed(system.selector):
            system.boot()
            driver = Driver(system, cast.load)
            driver.work("prepare", 0)
            jobs = {job: _job(system, driver, job, n) for job, n in amounts.jobs().items()}
            pss_bytes, processes = gauge.pss_bytes(system), len(gauge.pids(system))
            killed = kill(system, driver, cast, amounts.writes)
            return Run(case, system.boot_ms, processes, pss_bytes, jobs, killed)


def _job(system: System, driver: Driver, job: str, amount: int) -> Job:
    before = gauge.read(system)
    rows = driver.work(job, amount)
    return Job(rows, gauge.read(system).since(before))
