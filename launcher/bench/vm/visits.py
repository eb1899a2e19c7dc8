"""visits: what is done with each subject in a round. Everything here raises NoResult when it comes
to none; a machine that is not visited stands still."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from statistics import harmonic_mean, median

from launcher import moves
from launcher.bench.vm import qemu
from launcher.bench.vm.guest import Guest, NoResult
from launcher.bench.vm.plan import SHARE, Plan, full
from launcher.bench.vm.result import Exits, Key, Visit
from launcher.guests import built_in
from launcher.process import describe
from launcher.system import System
from launcher.tasks import Stages
from ukernel.abi.errors import CallError
from ukernel.abi.vm import Moments, VmStatus

SPEED = re.compile(r"^speed (\d+) instructions per second\r?$", re.MULTILINE)
TURNS = 5  # loops of `speed` and `atomics`, see their sources
TOLD = re.compile(r"^diskcheck \d+ sectors \d+ wrong (\d+) errors (\d+)\r?$", re.MULTILINE)
INSTRUCTIONS = {"speed": 100_000_000, "atomics": 20_000_000, "share": 100_000_000}  # of a loop
FASTER = 1.15  # than by our clock a guest cannot be by its own: more, and one of them is wrong
TAIL = 512  # bytes of a console that have a whole line
WARM_UP_S, LOOK_S = 0.1, 0.02
CAME_ON, LINE = 2, re.compile(r"^full \d+\r?\n", re.MULTILINE)


class Visits:
    """What each subject is, in one system."""

    def __init__(self, system: System, plan: Plan) -> None:
        self.system, self.plan = system, plan
        self.guests = {
            name: Guest(system, name)
            for name, spec in system.file.manifest.servers.items()
            if spec.serves == "vm"
        }
        self._places = {full(size): (full(size), f"{full(size)}b") for size in plan.sizes}

    def settle(self) -> None:
        """All that run by themselves stand still, and all others have come to their end."""
        for guest in self.guests.values():
            guest.can_run()
        for name in ("hello", "speed", "atomics", "share"):
            self.guests[name].halted()
        for name in (full(size) for size in self.plan.sizes):
            self.guests[name].shown(0, lambda text: "full of " in text)
        self._stand()

    def _stand(self) -> None:
        for guest in self.guests.values():
            guest.stand()

    def visit(self, subject: str) -> Visit:
        found = Visit()
        try:
            self._ways()[subject](found)
        except NoResult:
            with suppress(NoResult):
                self._stand()  # the others are not to suffer from it
            raise
        return found

    def _ways(self) -> dict[str, Callable[[Visit], None]]:
        return {
            "speed": partial(self._speed, "speed", "monitor"),
            "atomics": partial(self._speed, "atomics", "atomics"),
            "share": partial(self._speed, "share", f"share-{SHARE}"),
            "hello": self._hello,
            "diskcheck": self._diskcheck,
            "heartbeat": self._heartbeat,
            "plain": self._plain,
            "qemu-speed": self._qemu_speed,
            "qemu-hello": self._qemu_hello,
            **{full(size): partial(self._full, size) for size in self.plan.sizes},
        }

    # --- speed ----------------------------------------------------------------------------------

    def _speed(self, name: str, who: str, visit: Visit) -> None:
        guest = self.guests[name]
        at = guest.past()
        guest.kill()
        speeds = mips(guest.shown(at, lambda text: len(SPEED.findall(text)) >= TURNS))
        status = guest.halted()
        visit.samples[Key("speed", who)].append(median(speeds))
        ran_s = status.run_us / 1e6
        if name == "share":
            visit.samples[Key("share", who)].append(100 * ran_s / (status.uptime_ms / 1e3))
        by_our_clock = TURNS * INSTRUCTIONS[name] / 1e6 / ran_s
        if name == "speed":
            visit.samples[Key("cpu_speed", who)].append(by_our_clock)
        by_its_own = harmonic_mean(speeds)  # of all its turns together, as ours is
        if by_its_own > FASTER * by_our_clock:
            visit.wrong.append(
                f"{name} says {by_its_own:.0f} MIPS, and had the processor so long that it is"
                f" {by_our_clock:.0f}"
            )

    def _qemu_speed(self, visit: Visit) -> None:
        speeds = mips(qemu.run(built_in()["speed"]).text)
        if len(speeds) < TURNS:
            raise NoResult(f"QEMU's guest has said its speed {len(speeds)} times, not {TURNS}")
        visit.samples[Key("speed", "qemu")].append(median(speeds))

    # --- boot -----------------------------------------------------------------------------------

    def _hello(self, visit: Visit) -> None:
        for _ in range(self.plan.boots):
            life = self.boot()
            visit.samples[Key("boot", "monitor")].append(life["shown"])
            visit.stages[Key("boot", "monitor")].append(life)

    def boot(self, meanwhile: Callable[[Guest], None] = lambda guest: None) -> dict[str, float]:
        """One life of `hello`: when it had got how far, in ms after the death of the one before."""
        guest = self.guests["hello"]
        at = guest.past()
        stages = guest.kill(meanwhile)
        guest.shown(at, lambda text: "bye" in text)
        guest.until(lambda: stages.hello_ns > 0, "the kernel told nothing of its start")
        return reached(stages, guest.halted().moments)

    def _qemu_hello(self, visit: Visit) -> None:
        for _ in range(self.plan.boots):
            told = qemu.run(built_in()["hello"])
            if "bye" not in told.text:
                raise NoResult(f"QEMU's guest has shown {told.text[-80:]!r}")
            visit.samples[Key("boot", "qemu")].append((told.first_ns - told.begun_ns) / 1e6)

    # --- disks ----------------------------------------------------------------------------------

    def _diskcheck(self, visit: Visit) -> None:
        guest = self.guests["diskcheck"]
        found = self._watched(guest, self.plan.disk_s)
        visit.exits = found
        if not found.requests:
            raise NoResult("diskcheck asked its disk for nothing")
        visit.samples[Key("disk", "guest")].append(found.seconds * 1e6 / found.requests)
        visit.wrong += disk_faults(guest.shown(max(0, guest.past() - TAIL), bool))

    def _heartbeat(self, visit: Visit) -> None:
        visit.exits = self._watched(self.guests["heartbeat"], self.plan.beats_s)

    def _watched(self, guest: Guest, seconds: float) -> Exits:
        """What it does in a while."""
        guest.run()
        guest.run_for(WARM_UP_S)
        before, begun_ns = guest.status(), time.monotonic_ns()
        guest.run_for(seconds)
        after, ended_ns = guest.status(), time.monotonic_ns()
        guest.stand()
        earlier = {exit_.kind: exit_.times for exit_ in before.exits}
        times = {e.kind: e.times - earlier.get(e.kind, 0) for e in after.exits}
        requests = after.disk_requests - before.disk_requests
        ran_s = (after.run_us - before.run_us) / 1e6
        return Exits(guest.name, (ended_ns - begun_ns) / 1e9, times, requests, ran_s)

    def _plain(self, visit: Visit) -> None:
        requests, took_ns = self._told(["plain", str(self.plan.disk_s)])
        visit.samples[Key("disk", "task")].append(took_ns / 1e3 / requests)

    def _told(self, words: list[str]) -> tuple[int, int]:
        """What the plain task says at its end."""
        told = os.memfd_create("told")
        try:
            with open(os.devnull, "rb") as nothing:
                task = self.system.run_task(words[0], words[1:], (nothing.fileno(), told, 2))
                while task.process is not None:
                    self.system.pump(1.0)
            if task.status:
                raise NoResult(f"the plain task ended: {describe(task.status)}")
            requests, took_ns = json.loads(os.pread(told, 1 << 10, 0))
            return int(requests), int(took_ns)
        finally:
            os.close(told)

    # --- snapshots, restores, migrations --------------------------------------------------------

    def _full(self, size: int, visit: Visit) -> None:
        here, there = self._places[full(size)]
        guest, who = self.guests[here], f"{size}MiB"
        guest.run()
        visit.samples[Key("snapshot", who)] = [
            self._snapshot(guest).snapshot_pause_us / 1e3 for _ in range(self.plan.snapshots)
        ]
        for _ in range(self.plan.restores):
            self._snapshot(guest)
            life = self._restore(guest)
            visit.samples[Key("restore", who)].append(life["shown"])
            visit.stages[Key("restore", who)].append(life)
        visit.samples[Key("migrate", who)].append(self._migrate(here, there))
        self._places[full(size)] = there, here
        self._goes_on(self.guests[there])
        self.guests[there].stand()

    def _snapshot(self, guest: Guest) -> VmStatus:
        """The status after the next one."""
        before, found = guest.status().snapshots, [guest.status()]

        def another() -> bool:
            found[:] = [guest.status()]
            return found[0].snapshots > before

        guest.until(another, "took no snapshot", LOOK_S)
        return found[0]

    def _restore(self, guest: Guest) -> dict[str, float]:
        """One kill: when it had got how far, in ms after the signal."""
        stages = guest.kill()
        guest.until(lambda: guest.status().moments.shown > 0, "has shown nothing", LOOK_S / 4)
        guest.until(lambda: stages.hello_ns > 0, "the kernel told nothing of its start")
        status = guest.status()
        if not status.restored_from_ms:
            raise NoResult(f"{guest.name} did not go on from a snapshot")
        return reached(stages, status.moments, stages.killed_ns)

    def _migrate(self, here: str, there: str) -> float:
        """The pause, in ms."""
        move = moves.migrate(self.system, here, there)
        try:
            while (told := move.outcome()) is None:
                self.system.pump(1.0)
        except CallError as error:
            raise NoResult(str(error)) from None
        return float(told["pause_ms"])

    def _goes_on(self, guest: Guest) -> None:
        guest.shown(guest.past(), lambda text: len(LINE.findall(text)) >= CAME_ON)


def mips(text: str) -> list[float]:
    """What a guest says of its speed."""
    return [int(number) / 1e6 for number in SPEED.findall(text)]


def disk_faults(text: str) -> list[str]:
    """What `diskcheck` says that it has found, in all its life."""
    return [
        f"diskcheck found {wrong} wrong bytes and {errors} errors"
        for wrong, errors in TOLD.findall(text)[-1:]
        if int(wrong) or int(errors)
    ]


def reached(stages: Stages, moments: Moments, since_ns: int = 0) -> dict[str, float]:
    """Milliseconds after the death before it, or after a moment."""
    since_ns = since_ns or stages.dead_ns
    told = {"spawned": stages.spawned_ns, "hello": stages.hello_ns, **moments._asdict()}
    return {name: (at - since_ns) / 1e6 for name, at in told.items()}
