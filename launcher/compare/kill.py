"""kill: the same SIGKILL of a driver, in the middle of the application's writes."""

from __future__ import annotations

import random
import signal
import time
from typing import NamedTuple

from launcher.chaos.blast import DIED
from launcher.compare.drive import Driver, NoOutcome
from launcher.compare.guests import Guests
from launcher.system import System
from ukernel.abi.errors import Code
from ukernel.abi.services import Done, Kept
from ukernel.abi.syscalls import READY, TraceRow

LAUNCHER = "launcher"
ROOT = "root"  # what the kernel calls it
DELAY_S = (0.002, 0.02)  # into the bursts
AHEAD = 3  # bursts asked for at once, so that the application has something to write all the time
LOOK_S = 0.2
BURSTS = 200  # until the next good operation; more, and there is none
PATIENCE_S = 30.0  # for the next life


class Kill(NamedTuple):
    """What one death did. The lists are names of slots in their order in the system."""

    died: list[str]  # whose lives ended with it
    noticed: dict[str, str]  # clients that saw another outcome than success, and which
    repeated: list[str]  # callers whose stubs made a call again that had died with its server
    recovery_ns: int  # from the signal to the end of the next good write
    acknowledged: int  # writes, over the whole time
    kept: Kept
    under_load: bool  # a write was under way when the signal was sent
    killed_ns: int = 0  # when it was sent, CLOCK_MONOTONIC
    back_ns: int = 0  # when everybody was READY again


def kill(system: System, guests: Guests, driver: Driver, victim: str, writes: int) -> Kill:
    """Kill a driver once, from a burst before it to the reading back. Raises NoOutcome."""
    lives = {row.name: row.life for row in system.slots().values()}
    traced = _last_of_trace(system)
    first = driver.burst(driver.begin_burst(writes))
    under_way = [driver.begin_burst(writes) for _ in range(AHEAD)]
    _pass(system, random.uniform(*DELAY_S))
    killed_ns = time.monotonic_ns()
    system.signal(victim, signal.SIGKILL)
    met = [driver.burst(number) for number in under_way]
    ready_ns = _ready(system, victim, lives[victim])
    bursts = [first, *met]
    while (ended_ns := _first_good(bursts, ready_ns)) == 0:
        if len(bursts) > BURSTS:
            raise NoOutcome(f"{driver.load}: no write was acknowledged again after the kill")
        bursts.append(driver.burst(driver.begin_burst(writes)))
    _everybody_back(system)
    back_ns = time.monotonic_ns()
    guests.wait_heard(back_ns)  # while nothing else keeps the launcher from hearing them
    kept = driver.kept()
    died = [row.name for row in system.slots().values() if row.life > lives.get(row.name, 0) > 0]
    done = [write for burst in bursts if not isinstance(burst, str) for write in burst]
    return Kill(
        died,
        _noticed(bursts, driver.load, died),
        _repeated(_trace(system, traced)),
        ended_ns - killed_ns,
        sum(not write.error for write in done),
        kept,
        isinstance(met[0], str) or any(w.begun_ns <= killed_ns <= w.ended_ns for w in done),
        killed_ns,
        back_ns,
    )


def _pass(system: System, seconds: float) -> None:
    """Let so much time go by, supervising."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        system.pump(left)


def _ready(system: System, victim: str, before: int) -> int:
    """When the next life was READY: what is acknowledged after that has passed through it."""
    task = system.task(victim)
    deadline = time.monotonic() + PATIENCE_S
    while task.life == before or task.state != READY:
        if time.monotonic() > deadline:
            raise NoOutcome(f"{victim} was killed and did not come back in {PATIENCE_S:g} s")
        system.pump(LOOK_S)
    return system.slots()[victim].ready_ns


def _everybody_back(system: System) -> None:
    """Those that died with it may take longer than it does."""
    deadline = time.monotonic() + PATIENCE_S
    boots = [t for t in system.tasks.values() if t.spec is None or t.spec.start == "boot"]
    while away := [task.name for task in boots if task.state != READY]:
        if time.monotonic() > deadline:
            raise NoOutcome(f"{', '.join(away)} did not come back in {PATIENCE_S:g} s")
        system.pump(LOOK_S)


def _first_good(bursts: list[list[Done] | str], after_ns: int) -> int:
    """When the first write was acknowledged after this moment; 0: none was."""
    done = (write for burst in bursts if not isinstance(burst, str) for write in burst)
    return min((w.ended_ns for w in done if not w.error and w.ended_ns >= after_ns), default=0)


def _noticed(bursts: list[list[Done] | str], load: str, died: list[str]) -> dict[str, str]:
    """Who was told of it. The load's own client is the launcher."""
    lost = [burst for burst in bursts if isinstance(burst, str)]
    failed = [w.error for b in bursts if not isinstance(b, str) for w in b if w.error]
    seen = {load: failed[0]} if failed else {}
    if load in died:
        seen[load] = "died with it"
    return seen | ({LAUNCHER: lost[0]} if lost else {})


def _repeated(rows: list[TraceRow]) -> list[str]:
    """Callers of calls that died with their server, and are known to the kernel."""
    callers = [row.client.partition("#")[0] for row in rows if Code(row.status) in DIED]
    return list(dict.fromkeys(caller for caller in callers if caller != ROOT))


def _last_of_trace(system: System) -> int:
    counters = {count.name: count.value for count in system.control().counters()}
    return counters["calls_done"]


def _trace(system: System, start: int) -> list[TraceRow]:
    """Finished calls from this number on."""
    rows: list[TraceRow] = []
    while page := system.control().trace(rows[-1].number + 1 if rows else start):
        rows += page
    return rows
