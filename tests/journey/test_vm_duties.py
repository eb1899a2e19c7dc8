"""What a hypervisor owes: to each guest its memory and its part of a processor, and to the system
that it keeps to what the file says of a monitor that dies. Real processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from launcher.config import load
from launcher.kernel import SystemDown
from launcher.system import System
from tests.adversary.world import World
from tests.conftest import own_runtime_dir
from tests.journey.guests import Machine
from tests.journey.tasks.leaky import DIE, LEAK
from ukernel.abi.errors import CallError, DeadUnknown, Poison, Unavailable
from ukernel.abi.vm import HALTED, VirtualMachine, VmStatus

MIB = 1 << 20
SHARES = {"slow": 20, "left": 40, "right": 40, "full": 100}
FIRST_MS = 200
SYSTEM = f"""
system: duties
servers:
  echo: {{run: servers.echo, serves: echo}}
  witness: {{run: tests.adversary.tasks.witness, calls: [echo]}}
  leaky:
    run: tests.journey.tasks.leaky
    serves: vm
    state: persistent
    memory: 131MiB              # as an entry of vms: with 1 MiB has
    window: 16
    args: {{image: heartbeat, memory: 1MiB, share: 20, snapshot_every_ms: 50}}
    restart: {{max_restarts: 9, backoff: {{first_ms: 0}}}}
  user: {{run: servers.client, calls: [leaky], start: demand}}
vms:
  slow: {{image: speed, memory: 1MiB, share: 20}}
  left: {{image: speed, memory: 1MiB, share: 40, cores: [0]}}
  right: {{image: speed, memory: 1MiB, share: 40, cores: [0]}}
  full: {{image: speed, memory: 1MiB}}
  small: {{image: full, memory: 2MiB, share: 10}}
  big: {{image: full, memory: 3MiB, share: 10}}
  fragile:
    image: hello
    memory: 1MiB
    restart: {{max_restarts: 2, within_s: 60, backoff: {{first_ms: {FIRST_MS}, jitter: 0}}}}
"""
CRITICAL = """
system: critical
servers:
  echo: {run: servers.echo, serves: echo}
vms:
  idle: {image: hello, memory: 1MiB}
  vital: {image: hello, memory: 1MiB, critical: true, restart: {max_restarts: 0}}
"""
MEASURED_MS = 1000  # of a guest's time at least, or until it has ended
BURST_S = 0.03  # credit, and the slice in which it is used up
GUEST_BYTES = 128 << 10  # of a guest itself, at most
KEPT = 0.75  # of its share at least, while it did not wait for others on this host


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    path = tmp_path_factory.mktemp("duties") / "system.yaml"
    path.write_text(SYSTEM)
    with own_runtime_dir():
        world = World(System(load(path)))
        try:
            yield world
            world.check()
        finally:
            world.close()


# --- a processor ---------------------------------------------------------------------------------


class Part(NamedTuple):
    """Of a processor, that a guest had."""

    time_s: float  # since it began
    ran_s: float
    waited_s: float  # its monitor, ready to run, for others to make room

    @property
    def share(self) -> float:
        return self.ran_s / self.time_s


@pytest.fixture(scope="module")
def parts(world: World) -> dict[str, Part]:
    """Four guests that never wait, all at once: what each has had of it."""

    return {name: part_of(world, name) for name in SHARES}


def part_of(world: World, name: str) -> Part:
    """When it has gone on for long enough to tell, or has ended."""
    machine = Machine(world, name)

    def looked() -> VmStatus | None:
        status = machine.status()
        return status if status.uptime_ms >= MEASURED_MS or status.state == HALTED else None

    status = world.until(looked, f"{name} at work")
    assert status is not None
    waited_ns = int(Path(f"/proc/{world.slot(name).pid}/schedstat").read_text().split()[1])
    return Part(status.uptime_ms / 1e3, status.run_us / 1e6, waited_ns / 1e9)


@pytest.mark.parametrize("name", SHARES)
def test_a_share_is_kept(parts: dict[str, Part], name: str) -> None:
    """No more than that, and no less but for what others on this host have taken."""
    part, share = parts[name], SHARES[name] / 100
    assert part.ran_s <= share * part.time_s + BURST_S, part
    assert part.ran_s >= KEPT * share * (part.time_s - part.waited_s), part


def test_two_on_one_processor_do_not_starve_each_other(parts: dict[str, Part]) -> None:
    both = sorted(parts[name].share for name in ("left", "right"))
    assert both[0] >= 0.6 * both[1], parts


@pytest.fixture
def typist(world: World) -> Iterator[VirtualMachine]:
    """Who types at the console of `leaky`, as a task of the system: it may have to wait for it."""
    user = world.intrude("user")
    yield user.stub(VirtualMachine, "leaky")
    world.bury(user)


# --- memory --------------------------------------------------------------------------------------


def test_a_guests_memory_is_what_the_file_says(world: World) -> None:
    """It fills all that there is: to the last word, and the first one above is a fault."""
    found = {}
    for name, size in (("small", 2 * MIB), ("big", 3 * MIB)):
        guest = Machine(world, name)
        guest.shows(r"full of \d+ bytes\n")
        found[name] = int(guest.text.split()[2])
        assert size - GUEST_BYTES < found[name] < size
        assert dict(guest.status().faults_by)["memory"] == 1
    assert found["big"] - found["small"] == MIB


def test_a_monitor_that_grows_is_ended_by_name_and_its_guest_goes_on(
    world: World, typist: VirtualMachine
) -> None:
    leaky = Machine(world, "leaky")
    world.until(lambda: leaky.status().snapshots > 0, "a snapshot")
    last = leaky.beats(1)
    life = world.slot("leaky").life
    with pytest.raises(CallError):
        world.alongside(lambda: [typist.enter(LEAK) for _ in range(100)])
    assert "memory" in world.told("died", f"leaky#{life}").text
    world.ready("leaky", life + 1)
    assert leaky.status().restored_from_ms > 0
    assert leaky.beats(1) > last


# --- what the file says of deaths ----------------------------------------------------------------


def test_what_kills_a_monitor_twice_is_kept_from_it(world: World, typist: VirtualMachine) -> None:
    leaky = Machine(world, "leaky")
    life = world.slot("leaky").life
    for step in (1, 2):
        with pytest.raises(DeadUnknown):
            world.alongside(lambda: typist.enter(DIE))
        world.ready("leaky", life + step)
    world.told("poison", "leaky")
    with pytest.raises(Poison):
        typist.enter(DIE)
    (case,) = world.system.quarantined(world.system.task("leaky"))
    assert case.deaths == 2
    assert world.slot("leaky").life == life + 2
    leaky.beats(1)


def test_a_machine_that_dies_too_often_is_given_up(world: World) -> None:
    """After a wait that grows, and so many times as the file says."""
    died_s: list[float] = []
    for life in (1, 2, 3):
        world.ready("fragile", life)
        if died_s:
            waited_s = time.monotonic() - died_s[-1]
            assert (waited_s >= FIRST_MS / 1e3) == (life == 3), "the first restart is at once"
        died_s.append(time.monotonic())
        world.system.signal("fragile", signal.SIGKILL)
        world.told("died", f"fragile#{life}", "SIGKILL")
    world.told("failed", "fragile")
    assert world.slot("fragile").state == "failed"
    with pytest.raises(Unavailable, match="fragile is failed"):
        Machine(world, "fragile").status()


def test_a_critical_machine_takes_the_system_down_in_order(
    tmp_path: Path, runtime_dir: Path
) -> None:
    (tmp_path / "system.yaml").write_text(CRITICAL)
    world = World(System(load(tmp_path / "system.yaml")))
    try:
        world.system.signal("idle", signal.SIGKILL)
        world.ready("idle", 2)
        world.system.signal("vital", signal.SIGKILL)
        with pytest.raises(SystemDown, match="vital is critical and was given up") as down:
            world.until(lambda: False, "the end")
        assert not down.value.may_reboot
        world.system.down()
        assert [e.who for e in world.events if e.kind == "died"] == ["idle#1", "vital#1"]
    finally:
        world.close()
