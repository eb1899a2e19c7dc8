"""39 and 40: calls that wait for each other, along edges that no system file could refuse."""

from __future__ import annotations

import pytest

from tests.adversary.conftest import WorldMaker
from tests.adversary.tasks.relay import Link
from tests.adversary.world import Intruder, World
from ukernel.abi.errors import Deadlock


def ring(make_world: WorldMaker, size: int) -> tuple[World, Intruder, list[str]]:
    """Relays, each of which was given a capability to the next, and the last one to the first."""
    names = [f"relay-{number}" for number in range(size)]
    relay = "{run: tests.adversary.tasks.relay, serves: tests.adversary.tasks.relay:Link}"
    calls = ", ".join(f"{{{name}: {{rights: [call, grant]}}}}" for name in names)
    world = make_world(
        "".join(f"  {name}: {relay}\n" for name in names)
        + f"  attacker: {{run: servers.client, calls: [{calls}], start: demand}}\n"
    )
    attacker = world.intrude()
    for name, following in zip(names, [*names[1:], names[0]], strict=True):
        attacker.stub(Link, name).take(attacker.stub(Link, following))  # type: ignore[arg-type]
    return world, attacker, names


@pytest.mark.parametrize("size", [2, 5], ids=["39_a_b_a", "40_ring_of_five"])
def test_cycle_of_calls_is_refused_and_named(make_world: WorldMaker, size: int) -> None:
    world, attacker, names = ring(make_world, size)
    first = attacker.stub(Link, names[0])
    assert first.go(size - 1) == size - 1, "as far as it goes without closing the ring"
    with pytest.raises(Deadlock) as refused:
        first.go(size)
    cycle = refused.value.detail["cycle"]
    assert cycle == [names[-1], *names], "from the task whose call would have closed it"
    assert " -> ".join([names[-1], *names]) in str(refused.value)
    assert world.counter("E_DEADLOCK") == 1
    assert world.slot(names[-1]).errors >= 1, "it counts against who would have closed the ring"
    assert first.go(size - 1) == size - 1, "nobody is stuck"
    for name in names:
        row = world.slot(name)
        assert (row.life, row.queued, row.taken) == (1, 0, 0)


def test_39_a_call_to_oneself(make_world: WorldMaker) -> None:
    world, attacker, _ = ring(make_world, 1)
    with pytest.raises(Deadlock, match="relay-0 -> relay-0"):
        attacker.stub(Link, "relay-0").go(1)
    assert world.slot("relay-0").life == 1
