"""A hostile guest beside a peaceful one: all that it tries is counted, under its name, and nobody
else feels any of it. Real processes; one attack, which all tests look at."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import psutil
import pytest

from launcher.config import load
from launcher.system import System
from servers.vmm.machine import SAID
from tests.adversary.world import ROOT, World
from tests.conftest import own_runtime_dir
from tests.journey.guests import Machine
from ukernel.abi.syscalls import SlotRow
from ukernel.abi.vm import VmStatus

SHARE = 50  # percent of a processor, of each guest
SYSTEM = f"""
system: tenants
hardware:
  disk0: {{model: virtio-blk, image: d.img, size: 1MiB}}
servers:
  echo: {{run: servers.echo, serves: echo}}
  witness: {{run: tests.adversary.tasks.witness, calls: [echo]}}
  disk: {{run: servers.disk, serves: block, devices: [disk0]}}
  parts:
    run: servers.partitions
    serves: block
    calls: [{{disk: {{via: channel}}}}]
    window: 64
    args: {{parts: [64KiB, 64KiB]}}
  switch: {{run: servers.switch, serves: ethernet, window: 64, args: {{ports: 4}}}}
vms:
  evil:
    image: hostile
    memory: 1MiB
    share: {SHARE}
    disk: {{server: parts, badge: 1}}
    nic: {{server: switch, port: 1}}
  good:
    image: heartbeat
    memory: 1MiB
    share: {SHARE}
    disk: {{server: parts, badge: 2}}
    nic: {{server: switch, port: 2}}
"""
ROUNDS = 2  # besides the first one
CALM_LINES = 6  # of the heartbeat, ten ticks each
TRIED = "below", "above", "descriptors", "queues", "dma"  # as the guest says it
TOLD = re.compile(
    r"hostile: tried (\d+) below memory, (\d+) above, (\d+) descriptors, (\d+) queues, (\d+) DMA\n"
)
END_OF_ROUND = re.compile(TOLD.pattern + r"(hostile: phase 10, without a handler\n)?$")
SLACK_US = 20_000  # that a tick may be late for other reasons: a slice or two, and the host's noise
ATTACKED = "disk", "nic", "rng"
BURST_S = 0.02  # of credit, and the slice in which it is used up
OVERHEAD = 1.5  # of a monitor: its loop, resets
MOST_MIB = 4  # that a process may grow in a round: allocators do not give all back
FEW = 2  # capabilities of clients that come and go
MIB = 1 << 20


class Usage(NamedTuple):
    """What a process has."""

    fds: int
    rss_mib: float


class Stretch(NamedTuple):
    """A while in which the attacker stands still, and then a round of it."""

    calm_us: int  # the worst delay of a tick of `good`
    attack_us: int
    took_s: float  # the round
    ran_s: float  # the guest, of that
    used_s: float  # CPU time of its monitor


class Look(NamedTuple):
    """At the system, while the attacker stands still at the end of a round."""

    status: VmStatus  # of the attacker
    rows: dict[str, SlotRow]
    usage: dict[str, Usage]


@dataclass
class Attack:
    """What there was to see."""

    world: World
    text: str  # that the attacker has shown
    first: Look
    last: Look
    stretches: list[Stretch]

    @property
    def tried(self) -> dict[str, int]:
        """In all rounds."""
        rounds = [map(int, found) for found in TOLD.findall(self.text)]
        return dict(zip(TRIED, map(sum, zip(*rounds, strict=True)), strict=True))

    @property
    def counted(self) -> dict[str, int]:
        """By the monitor."""
        return dict(self.last.status.faults_by)


class Arena:
    """Both guests."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.evil, self.good = Machine(world, "evil"), Machine(world, "good")

    def one_round(self) -> None:
        """Let the attacker go on until it has said what it tried, and before it tries anew."""
        self._go_on()
        while not END_OF_ROUND.search(self.evil.text):  # it was too fast for us
            self._go_on()

    def _go_on(self) -> None:
        self.evil.stub.resume()
        rounds = len(TOLD.findall(self.evil.text))

        def told() -> bool:
            self.evil.look()
            return len(TOLD.findall(self.evil.text)) > rounds

        self.world.until(told, "the end of a round")
        self.evil.stub.pause()
        self.evil.look()

    def worst_us(self) -> int:
        """Of the ticks that `good` has told of since `forget`."""
        self.good.look()
        return max(int(late) for late in re.findall(r"heartbeat \d+ \d+ (\d+)\n", self.good.text))

    def stretch(self) -> Stretch:
        self.good.forget()
        self.good.shows(rf"(heartbeat \d+ \d+ \d+\n){{{CALM_LINES}}}")
        calm_us = self.worst_us()
        self.good.forget()
        before = self._times()
        self.one_round()
        took_s, ran_s, used_s = (a - b for a, b in zip(self._times(), before, strict=True))
        self.good.shows(r"heartbeat \d+ \d+ \d+\n")
        return Stretch(calm_us, self.worst_us(), took_s, ran_s, used_s)

    def _times(self) -> tuple[float, float, float]:
        cpu = psutil.Process(self.world.slot("evil").pid).cpu_times()
        return time.monotonic(), self.evil.status().run_us / 1e6, cpu.user + cpu.system

    def look(self) -> Look:
        rows = self.world.system.slots()
        processes = {name: psutil.Process(row.pid) for name, row in rows.items() if row.pid}
        processes["kernel"] = psutil.Process(self.world.kernel_pid)
        usage = {
            name: Usage(process.num_fds(), process.memory_info().rss / MIB)
            for name, process in processes.items()
            if process.pid != os.getpid()
        }
        return Look(self.evil.status(), rows, usage)


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    folder = tmp_path_factory.mktemp("tenants")
    (folder / "system.yaml").write_text(SYSTEM)
    with own_runtime_dir(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        world = World(System(load(folder / "system.yaml")))
        try:
            yield carried_out(Arena(world))
            world.check()
        finally:
            world.close()


def carried_out(arena: Arena) -> Attack:
    arena.one_round()
    first = arena.look()
    stretches = [arena.stretch() for _ in range(ROUNDS)]
    return Attack(arena.world, arena.evil.text, first, arena.look(), stretches)


def test_all_that_it_tries_is_counted(attack: Attack) -> None:
    """A chain can be wrong in two ways, and a device counts both; else once for each."""
    tried, counted, status = attack.tried, attack.counted, attack.last.status
    assert counted["bus"] == tried["below"] > 500 * ROUNDS
    assert counted["memory"] == tried["above"] > 20 * ROUNDS
    of_each = (tried["descriptors"] + tried["queues"]) // len(ATTACKED)
    assert counted["rng"] == of_each
    assert counted["nic"] >= of_each
    assert counted["disk"] >= of_each + tried["dma"]
    assert counted["console"] == 0
    assert counted["processor"] == status.resets == ROUNDS
    assert status.faults == sum(counted.values())


def test_its_monitor_says_who_it_was(attack: Attack) -> None:
    lines = attack.world.logs()["evil"].splitlines()
    assert {line.split(":")[0] for line in lines} == {"evil"}
    for device in ATTACKED:
        said = [line for line in lines if line.startswith(f"evil: {device}: ")]
        assert len(said) == SAID, "the first few, and no flood"
    ends = [line for line in lines if "the guest cannot go on" in line]
    assert len(ends) == ROUNDS
    total = attack.counted
    assert f"bus {total['bus'] * ROUNDS // (ROUNDS + 1)}, " in ends[-1]


def test_nobody_else_is_to_blame(attack: Attack) -> None:
    """No fault of any task, no life lost: it is the guest who does wrong, and not its monitor."""
    rows = attack.last.rows
    assert {name: row.faults for name, row in rows.items()} == dict.fromkeys(rows, 0)
    assert {row.life for name, row in rows.items()} == {1}
    assert attack.world.logs()["kernel"] == ""
    good = Machine(attack.world, "good").status()
    assert (good.faults, good.resets) == (0, 0)


def test_nothing_is_left_of_it(attack: Attack) -> None:
    for name, before in attack.first.usage.items():
        after = attack.last.usage[name]
        assert after.fds <= before.fds, name
        assert after.rss_mib - before.rss_mib < ROUNDS * MOST_MIB, name
    before_rows = attack.first.rows
    for name, row in attack.last.rows.items():
        assert row.caps <= before_rows[name].caps + FEW, name
        assert row.regions == before_rows[name].regions, name
        assert row.queued == 0, name


def test_the_others_ticks_come_as_before(attack: Attack) -> None:
    """In one stretch at least: others have this host too, and their noise is in all of them."""
    assert any(s.attack_us <= 2 * s.calm_us + SLACK_US for s in attack.stretches), attack.stretches


def test_it_has_no_more_of_a_processor_than_its_share(attack: Attack) -> None:
    for stretch in attack.stretches:
        most_s = SHARE / 100 * (stretch.took_s + BURST_S)
        assert stretch.ran_s <= most_s, stretch
        assert stretch.used_s <= most_s * OVERHEAD, stretch
