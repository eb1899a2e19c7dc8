"""46 to 48, 50 to 55: what becomes of requests, processes and data when somebody dies."""

from __future__ import annotations

import signal
from functools import partial
from typing import Any

import pytest

from launcher.system import BootError
from launcher.tasks import Task
from tests.adversary.conftest import WorldMaker
from tests.adversary.tasks.frail import Frail
from tests.adversary.tasks.mortal import Mortal
from tests.adversary.world import MORTAL, gone, own_opcode
from ukernel.abi import wire
from ukernel.abi.errors import Code, DeadUnknown, Unavailable
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.syscalls import READY

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


FRAIL = """
  frail:
    run: tests.adversary.tasks.frail
    serves: tests.adversary.tasks.frail:Frail
    state: persistent
    restart: {max_restarts: MOST, ready_timeout_s: 0.5, backoff: {first_ms: 20, jitter: 0}}
  attacker: {run: servers.client, calls: [frail], start: demand}
"""
PAUSES_MS = [0, 20, 40, 80]  # before the first, second, ... restart of FRAIL


@pytest.mark.parametrize("way", ["raise", "kill", "hang"])
def test_48_death_in_init(make_world: WorldMaker, way: str) -> None:
    """As often as it may: each life waits longer than the one before, and the last one serves."""
    world = make_world(FRAIL.replace("MOST", "100"))
    frail = world.intrude().stub(Frail, "frail")
    frail.curse(1 if way == "hang" else 3, way)
    world.system.signal("frail", signal.SIGKILL)
    last = world.alongside(frail.life)
    assert last == (3 if way == "hang" else 5)
    for life in range(2, last):
        world.told("died", f"frail#{life}", "was not READY in 0.5 s" if way == "hang" else "")
    pauses_ms = [(s.spawned_ns - s.dead_ns) / 1e6 for s in world.system.recoveries]
    assert len(pauses_ms) == last - 1
    assert all(got >= least for got, least in zip(pauses_ms, PAUSES_MS, strict=False))


def test_48_death_in_init_too_often(make_world: WorldMaker) -> None:
    """It is given up, and who waits or asks is told so at once. A person may still try."""
    world = make_world(FRAIL.replace("MOST", "3"))
    client = world.intrude()
    frail = client.stub(Frail, "frail")
    frail.curse(3, "raise")
    world.system.signal("frail", signal.SIGSTOP)
    life = {"opcode": own_opcode(Frail, "life"), "flags": wire.ASYNC, "body": wire.pack([])}
    queued = [client.put(wire.CALL, token=client.named["frail"], **life) for _ in range(12)]
    world.until(lambda: world.slot("frail").queued, "calls in the queue")
    world.system.signal("frail", signal.SIGKILL)
    world.told("failed", "frail", "exit 1")
    assert {client.outcome(seq).status for seq in queued} == {
        Code.E_DEAD_UNKNOWN,
        Code.E_UNAVAILABLE,
    }
    with pytest.raises(Unavailable, match="frail is failed"):
        frail.life()  # nobody lets the launcher go on meanwhile: the kernel says it by itself
    assert (world.slot("frail").life, world.slot("frail").state) == (4, "failed")
    world.system.restart("frail")
    assert world.alongside(frail.life) == 5


def test_48_death_in_the_very_first_init_is_a_failed_boot(make_world: WorldMaker) -> None:
    """What has never been READY is misconfigured: it is not tried again, and nothing is left."""
    with pytest.raises(BootError, match=r"(?s)frail failed at start: exit 1.*was cursed"):
        make_world(
            FRAIL.replace("MOST", "100").replace(
                "    state:", "    args: {born: raise}\n    state:"
            )
        )


def test_50_exit_0_rests(make_world: WorldMaker) -> None:
    """It says that it is done: nobody is kept waiting for a next life, until a person wants one."""
    world = make_world(MORTAL)
    client = world.intrude()
    mortal = client.stub(Mortal, "mortal")
    leave, total = own_opcode(Mortal, "leave"), own_opcode(Mortal, "total")
    token, flags = client.named["mortal"], wire.ASYNC
    left = client.put(wire.CALL, token=token, opcode=leave, flags=flags, body=wire.pack([0]))
    queued = client.put(wire.CALL, token=token, opcode=total, flags=flags, body=wire.pack([]))
    world.told("died", "mortal#1", "exit 0")
    assert client.outcome(left).status == Code.E_DEAD_UNKNOWN
    assert client.outcome(queued).status == Code.E_UNAVAILABLE
    with pytest.raises(Unavailable, match="mortal is stopped"):
        mortal.add(0)
    assert (world.slot("mortal").life, world.slot("mortal").state) == (1, "stopped")
    world.system.restart("mortal")
    world.ready("mortal", 2)
    assert mortal.add(0) == 1
    with pytest.raises(Unavailable, match="mortal is stopped"):
        world.alongside(lambda: mortal.leave_again(0))
    assert client.stats.retried == 1


def test_50_exit_0_of_who_is_always_wanted(make_world: WorldMaker) -> None:
    world = make_world(MORTAL.replace("max_restarts: 100", "max_restarts: 100, when: always"))
    mortal = world.intrude().stub(Mortal, "mortal")
    assert mortal.add(0) == 1
    with pytest.raises(DeadUnknown):
        world.alongside(lambda: mortal.leave(0))
    assert world.alongside(lambda: mortal.add(0)) == 2
    world.told("died", "mortal#1", "exit 0")
    assert (world.slot("mortal").life, world.slot("mortal").state) == (2, "ready")


def test_50_exit_125_is_not_tried_again(make_world: WorldMaker) -> None:
    """The next life would meet the same, it says."""
    world = make_world(MORTAL)
    mortal = world.intrude().stub(Mortal, "mortal")
    with pytest.raises(DeadUnknown):
        world.alongside(lambda: mortal.leave(NO_RESTART))
    with pytest.raises(Unavailable, match="mortal is failed"):
        mortal.total()
    world.told("failed", "mortal", "exit 125")


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


MORTAL_SERVER = (
    "{run: tests.adversary.tasks.mortal, serves: tests.adversary.tasks.mortal:Mortal,"
    " state: persistent}"
)
FAMILY = ("first", "second", "third")
STRATEGIES: dict[str, list[tuple[set[str], set[str]]]] = {  # who is killed, who has a new life
    "one_for_all": [
        ({"second"}, {*FAMILY}),
        ({"first", "third"}, {*FAMILY}),
        ({*FAMILY}, {*FAMILY}),
    ],
    "rest_for_one": [
        ({"third"}, {"third"}),
        ({"second", "third"}, {"second", "third"}),
        ({"first", "third"}, {*FAMILY}),
        ({*FAMILY}, {*FAMILY}),
    ],
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_54_several_of_a_group_killed_at_once(make_world: WorldMaker, strategy: str) -> None:
    """However many of them die, and in whatever order that is seen: all come back, together."""
    server = MORTAL_SERVER.replace("}", f", restart: {{max_restarts: 100, strategy: {strategy}}}}}")
    world = make_world(
        "".join(f"  {name}: {server}\n" for name in FAMILY)
        + f"  attacker: {{run: servers.client, calls: [{', '.join(FAMILY)}], start: demand}}\n"
        + f"groups: {{family: [{', '.join(FAMILY)}]}}\n"
    )
    client = world.intrude()
    tasks = {name: world.system.tasks[name] for name in FAMILY}
    for victims, affected in STRATEGIES[strategy]:
        held = {n: client.put(wire.CALL, token=client.named[n], **HELD) for n in FAMILY}
        world.until(lambda: all(world.slot(n).taken for n in FAMILY), "calls taken")
        lives = {name: task.life for name, task in tasks.items()}
        for name in victims:
            world.system.signal(name, signal.SIGKILL)
        world.until(partial(_all_anew, tasks, affected, lives), f"new lives of {affected}")
        for name in affected:
            assert client.outcome(held[name]).status == Code.E_DEAD_UNKNOWN
            assert client.stub(Mortal, name).total() == 0
        for name in {*FAMILY} - affected:
            assert tasks[name].life == lives[name]
        assert not [e for e in world.events if e.kind == "killed"], "the others left in order"


HELD: dict[str, Any] = {"opcode": HOLD, "flags": wire.ASYNC, "body": wire.pack([])}


def _all_anew(tasks: dict[str, Task], names: set[str], before: dict[str, int]) -> bool:
    return all(tasks[n].state == READY and tasks[n].life > before[n] for n in names)
