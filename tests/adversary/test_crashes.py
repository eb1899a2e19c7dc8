"""46, 47 and 51 to 54: what becomes of requests and processes when somebody is killed."""

from __future__ import annotations

import json
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

from launcher.kernel import SystemDown
from tests.adversary.conftest import ROOT, WorldMaker
from tests.adversary.tasks.mortal import Mortal
from tests.adversary.world import BYSTANDERS, gone, own_opcode
from ukernel.abi import wire
from ukernel.abi.errors import Code, DeadUnknown

MORTAL = """
  mortal:
    run: tests.adversary.tasks.mortal
    serves: tests.adversary.tasks.mortal:Mortal
    window: 1
    restart: {max_restarts: 100}
  attacker: {run: servers.client, calls: [mortal], start: demand}
"""
HOLD, TOTAL = own_opcode(Mortal, "hold"), own_opcode(Mortal, "total")
BOTH_LIVES = {"old_life": 1, "new_life": 2}


def test_46_death_before_the_take(make_world: WorldMaker) -> None:
    """Queued calls go to the next life; one that is bound to its life is told it did not run."""
    world = make_world(MORTAL)
    client = world.intrude()
    token, nothing = client.named["mortal"], wire.pack([])
    taken = client.put(wire.CALL, token=token, opcode=HOLD, flags=wire.ASYNC, body=nothing)
    queued = client.put(wire.CALL, token=token, opcode=TOTAL, flags=wire.ASYNC, body=nothing)
    flags = wire.ASYNC | wire.BOUND_LIFE
    bound = client.put(wire.CALL, token=token, opcode=TOTAL, flags=flags, body=nothing)
    world.until(lambda: world.slot("mortal").queued == 2, "two calls in the queue")
    world.system.signal("mortal", signal.SIGKILL)
    world.told("died", "mortal#1", "SIGKILL")
    world.ready("mortal", 2)
    lost = client.outcome(taken)
    assert (lost.status, wire.unpack(lost.body)[1]) == (Code.E_DEAD_UNKNOWN, BOTH_LIVES)
    assert client.outcome(bound).status == Code.E_DEAD_NOTRUN
    answered = client.outcome(queued)
    assert (answered.status, wire.unpack(answered.body)) == (Code.OK, 0)
    row = next(r for r in world.trace() if r.server == "mortal" and r.status == Code.OK)
    assert row.life == 2


def test_47_effect_without_reply_is_unknown_and_not_repeated(make_world: WorldMaker) -> None:
    world = make_world(MORTAL)
    client = world.intrude()
    mortal = client.stub(Mortal, "mortal")
    with pytest.raises(DeadUnknown, match="mortal#1 died while it had the call") as died:
        world.alongside(lambda: mortal.add(1))
    assert died.value.detail == BOTH_LIVES
    assert world.alongside(mortal.total) == 1, "it happened, once"
    assert (client.stats.retried, client.stats.unknown) == (0, 1)
    world.told("died", "mortal#1", "SIGKILL")


def test_47_idempotent_operation_is_repeated_by_the_stub(make_world: WorldMaker) -> None:
    world = make_world(MORTAL)
    client = world.intrude()
    mortal = client.stub(Mortal, "mortal")
    assert world.alongside(lambda: mortal.add_again(1)) == 2, "it happened, twice"
    assert (client.stats.retried, client.stats.unknown) == (1, 0)
    world.told("died", "mortal#1", "SIGKILL")
    assert world.slot("mortal").life == 2


@pytest.mark.parametrize("session", [0, 1], ids=["in_its_session", "in_its_own"])
def test_51_orphan_grandchildren_die_with_their_server(
    make_world: WorldMaker, session: int
) -> None:
    world = make_world(MORTAL)
    mortal = world.intrude().stub(Mortal, "mortal")
    orphans = [mortal.fork(session) for _ in range(3)]
    assert not any(gone([pid]) for pid in orphans)
    world.system.signal("mortal", signal.SIGKILL)
    world.told("died", "mortal#1", "SIGKILL")
    world.until(lambda: gone(orphans), "the end of the orphans")
    world.ready("mortal", 2)
    left = world.alongside(lambda: mortal.fork(session))
    world.system.down()
    assert gone([left]), "nor does an orderly end leave any"


@contextmanager
def launched(folder: Path, servers: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """A system in a launcher of its own, and the process ids of everything in it."""
    path = folder / "system.yaml"
    path.write_text(BYSTANDERS + servers)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.adversary.tasks.launched", str(path), "b"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as launcher:
        assert launcher.stdout is not None
        pids: dict[str, int] = json.loads(launcher.stdout.readline() or "{}")
        assert pids, "the system came up"
        try:
            yield launcher, pids
        finally:
            launcher.kill()


def test_52_launcher_killed(runtime_dir: Path, tmp_path: Path) -> None:
    """Everything is gone within a second: processes, orphans of theirs, the run directory."""
    with launched(tmp_path, MORTAL) as (launcher, pids):
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


def test_54_several_killed_at_once(make_world: WorldMaker) -> None:
    servers = {f"mortal-{number}": MORTAL_SERVER for number in range(4)}
    world = make_world(
        "".join(f"  {name}: {text}\n" for name, text in servers.items())
        + f"  attacker: {{run: servers.client, calls: [{', '.join(servers)}], start: demand}}\n"
    )
    client = world.intrude()
    calls = [
        client.put(
            wire.CALL, token=client.named[name], opcode=HOLD, flags=wire.ASYNC, body=wire.pack([])
        )
        for name in servers
    ]
    world.until(lambda: all(world.slot(name).taken == 1 for name in servers), "calls taken")
    for name in servers:
        world.system.signal(name, signal.SIGKILL)
    for name in servers:
        world.told("died", f"{name}#1", "SIGKILL")
        world.ready(name, 2)
    assert {client.outcome(seq).status for seq in calls} == {Code.E_DEAD_UNKNOWN}
    for name in servers:
        assert client.stub(Mortal, name).total() == 0
        assert world.system.tasks[name].restarts == 1


MORTAL_SERVER = "{run: tests.adversary.tasks.mortal, serves: tests.adversary.tasks.mortal:Mortal}"
