"""run: one boot of the system in one way: the jobs, each between two readings, and the kill.

Virtual machines run all the while, as they do wherever the system file is used: they are looked at
before and after the jobs, and around each kill. Where there are some, the driver of the network
card is killed as well."""

from __future__ import annotations

import os
import selectors
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from launcher.compare import gauge
from launcher.compare.amounts import Amounts
from launcher.compare.cases import Case, Cast, with_load
from launcher.compare.drive import Driver
from launcher.compare.gauge import Reading
from launcher.compare.guests import Felt, Guest, Guests, did, felt
from launcher.compare.kill import Kill, kill
from launcher.config import SystemFile
from launcher.system import System
from ukernel.abi.manifest import VirtioBlk
from ukernel.abi.services import SECTOR, Block, Timed

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
    card: Kill | None = None  # of the network card's driver, where there are virtual machines
    guests: Mapping[str, Guest] = MappingProxyType({})

    @property
    def kills(self) -> list[Kill]:
        return [self.kill, self.card] if self.card is not None else [self.kill]


def run(file: SystemFile, cast: Cast, case: Case, amounts: Amounts, armed: Armed) -> Run:
    """Boot, work, kill, take down. Raises NoOutcome, BootError and SystemDown."""
    whole = with_load(file, cast, case)
    with tempfile.TemporaryDirectory(prefix="ukernel-compare-") as scratch:
        disks = [n for n, h in file.manifest.hardware.items() if isinstance(h, VirtioBlk)]
        images = {name: Path(scratch) / f"{name}.img" for name in disks}
        name = f"compare-{os.getpid()}"
        with System(whole, name=name, images=images) as system, armed(system.selector):
            system.boot()
            with Guests(system, cast.vms) as guests:
                return _measured(system, guests, cast, case, amounts)


def _measured(system: System, guests: Guests, cast: Cast, case: Case, amounts: Amounts) -> Run:
    driver = Driver(system, cast.load)
    if cast.part is not None:  # the file server has not the whole disk
        amounts = amounts.fitting(SECTOR * system.reach(Block, *cast.part).capacity())
    driver.work("prepare", 0)
    before = guests.looks()
    jobs = {job: _job(system, driver, job, n) for job, n in amounts.jobs().items()}
    after = guests.looks()
    pss_bytes, processes = gauge.pss_bytes(system), len(gauge.pids(system))
    victims = [name for name in (cast.victim, cast.card) if name is not None]
    kills = [_kill(system, guests, driver, victim, amounts.writes) for victim in victims]
    guests.wait_checked(time.monotonic_ns())
    found = {
        name: Guest(
            did(name, screen, before[name], after[name]),
            [each[name] for _, each in kills],
            screen.beating or screen.checking,
            screen.lines,
            screen.wrong,
            screen.errors,
        )
        for name, screen in guests.screens.items()
    }
    (first, _), *more = kills
    card = more[0][0] if more else None
    return Run(case, system.boot_ms, processes, pss_bytes, jobs, first, card, found)


def _kill(
    system: System, guests: Guests, driver: Driver, victim: str, writes: int
) -> tuple[Kill, dict[str, Felt]]:
    """A kill, and what it did to each virtual machine."""
    before = guests.looks()
    killed = kill(system, guests, driver, victim, writes)
    after = guests.looks()
    span = killed.killed_ns, killed.back_ns
    screens = guests.screens.items()
    return killed, {name: felt(seen, before[name], after[name], *span) for name, seen in screens}


def _job(system: System, driver: Driver, job: str, amount: int) -> Job:
    before = gauge.read(system)
    rows = driver.work(job, amount)
    return Job(rows, gauge.read(system).since(before))
