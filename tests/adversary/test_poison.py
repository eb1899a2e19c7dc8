"""49: a request that two lives died of never reaches a third one, until a person says so."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from launcher.requests import Later, Refusal, perform
from tests.adversary.conftest import WorldMaker
from tests.adversary.tasks.allergic import NUT, SLEEP, TOFFEE, Allergic
from tests.adversary.world import Intruder, World, own_opcode
from ukernel.abi import wire
from ukernel.abi.errors import Code, Poison
from ukernel.abi.recorder import MOST_BODY
from ukernel.lib.memory import Region

ALLERGIC = """
  victim:
    run: tests.adversary.tasks.allergic
    serves: tests.adversary.tasks.allergic:Allergic
    state: persistent
    restart: {max_restarts: 100, backoff: {first_ms: 1, max_ms: 1}}
    heartbeat: {period_ms: %d}
  attacker: {run: servers.client, calls: [victim], start: demand}
"""
EAT = own_opcode(Allergic, "eat")
OTHER = b"bread"
WATCHED, UNWATCHED = 100, 0  # milliseconds between two pings


@pytest.fixture
def world(make_world: WorldMaker) -> World:
    return make_world(ALLERGIC % WATCHED)


def fed(world: World, food: bytes) -> Intruder:
    """Two lives have died of `food`; who fed them."""
    attacker = world.intrude()
    victim = attacker.stub(Allergic, "victim")
    with pytest.raises(Poison, match="two lives of victim died of this request"):
        world.alongside(lambda: victim.eat(food))
    return attacker


def ask(world: World, *request: Any) -> Any:
    """The answer of the control socket to a request."""
    answer = perform(world.system, list(request), [])
    return world.until(answer.outcome, str(request)) if isinstance(answer, Later) else answer


def the_case(world: World) -> dict[str, Any]:
    (case,) = ask(world, "quarantine")
    found: dict[str, Any] = case
    return found


def in_hand(world: World) -> bool:
    box = world.system.task("victim").box
    return box is not None and box._recorder.note() is not None


def held_by_root(world: World) -> int:
    return sum(row.holder == "root#1" for row in world.system.caps())


@pytest.mark.parametrize(
    ("food", "cause"), [(NUT, "killed by SIGSEGV"), (TOFFEE, "hung")], ids=["crash", "hang"]
)
def test_49_death_by_the_same_request_twice(world: World, food: bytes, cause: str) -> None:
    attacker = fed(world, food)
    victim = attacker.stub(Allergic, "victim")
    for life in (1, 2):
        world.told("died", f"victim#{life}", cause)
    size = len(wire.pack([food]))
    event = world.told("poison", "victim", "at 2 deaths")
    assert event.text.startswith(f"operation {EAT} with {size} bytes")
    assert (attacker.stats.retried, attacker.stats.failed) == (2, 1)

    row = world.slot("victim")
    assert (row.life, row.state, row.taken) == (3, "ready", 0), "the third life was not killed"
    with pytest.raises(Poison):
        victim.eat(food)  # answered at once: nobody pumps the launcher meanwhile
    assert victim.eat(OTHER) == len(OTHER), "other requests of the same operation go on"
    assert world.slot("victim").life == 3
    assert world.slot("victim").faults == 0

    case = the_case(world)
    assert (case["server"], case["opcode"], case["deaths"]) == ("victim", EAT, 2)
    assert bytes.fromhex(case["body"]) == wire.pack([food])


def test_who_is_killed_from_outside_did_not_die_of_its_request(make_world: WorldMaker) -> None:
    world = make_world(ALLERGIC % UNWATCHED)
    client = world.intrude()
    body = wire.pack([SLEEP])
    for life in (1, 2, 3):
        world.ready("victim", life)
        token = client.named["victim"]
        call = client.put(wire.CALL, token=token, opcode=EAT, flags=wire.ASYNC, body=body)
        world.until(lambda: in_hand(world), "the call in hand")
        world.system.signal("victim", signal.SIGKILL)
        world.told("died", f"victim#{life}", "SIGKILL")
        assert client.outcome(call).status == Code.E_DEAD_UNKNOWN
    assert ask(world, "quarantine") == []
    assert "suspect" not in {event.kind for event in world.events}


def test_a_replayed_request_that_kills_again_is_back_in_quarantine(world: World) -> None:
    victim = fed(world, NUT).stub(Allergic, "victim")
    number, held = the_case(world)["number"], held_by_root(world)
    verdict = ask(world, "replay", number)
    assert (verdict["outcome"], verdict["status"]) == ("died", Code.E_DEAD_UNKNOWN)
    assert verdict["why"] == "it died again: back in quarantine"
    assert (the_case(world)["number"], the_case(world)["deaths"]) == (number, 2)
    world.ready("victim", 4)
    with pytest.raises(Poison):
        world.alongside(lambda: victim.eat(NUT))
    assert world.slot("victim").life == 4
    assert held_by_root(world) == held


def test_a_replayed_request_that_is_answered_is_free(world: World) -> None:
    victim = fed(world, NUT).stub(Allergic, "victim")
    held = held_by_root(world)
    victim.cure()
    verdict = ask(world, "replay", the_case(world)["number"])
    assert (verdict["outcome"], verdict["status"]) == ("answered", Code.OK)
    assert wire.unpack(bytes.fromhex(verdict["body"])) == len(NUT)
    assert ask(world, "quarantine") == []
    assert victim.eat(NUT) == len(NUT)
    assert held_by_root(world) == held
    world.told("asked", "victim", "replay of request")


def test_a_request_to_an_object_is_replayed_under_its_badge(world: World) -> None:
    attacker = world.intrude()
    victim = attacker.stub(Allergic, "victim")
    dish = victim.order()
    with pytest.raises(Poison):
        world.alongside(lambda: dish.taste(NUT))
    assert victim.eat(OTHER) == len(OTHER)
    victim.cure()
    verdict = ask(world, "replay", the_case(world)["number"])
    assert verdict["outcome"] == "answered"
    assert dish.taste(NUT) == len(NUT)


def test_a_released_request_is_one_death_from_quarantine(world: World) -> None:
    victim = fed(world, NUT).stub(Allergic, "victim")
    number = the_case(world)["number"]
    assert ask(world, "release", number) == {"server": "victim"}
    assert ask(world, "quarantine") == []
    with pytest.raises(Poison):
        world.alongside(lambda: victim.eat(NUT))
    assert world.slot("victim").life == 4, "it killed once more"
    assert the_case(world)["number"] == number


def test_only_what_was_kept_whole_is_replayed(world: World) -> None:
    attacker = fed(world, NUT + bytes(MOST_BODY))
    (long,) = ask(world, "quarantine")
    with pytest.raises(Refusal, match=f"of which the first {MOST_BODY} were kept"):
        ask(world, "replay", long["number"])
    victim, table = attacker.stub(Allergic, "victim"), Region(attacker, "table", 4096)
    table.view[: len(NUT)] = NUT
    with pytest.raises(Poison):
        world.alongside(lambda: victim.eat_lent(table.lend(0, len(NUT))))
    _, lent = ask(world, "quarantine")
    with pytest.raises(Refusal, match=r"Allergic\.eat_lent was lent memory"):
        ask(world, "replay", lent["number"])
    with pytest.raises(LookupError, match=f"there is {long['number']}, {lent['number']}"):
        ask(world, "release", 1 << 40)
    assert len(ask(world, "quarantine")) == 2, "what was refused stays where it is"


def test_nobody_is_sent_to_a_server_that_is_not_there(world: World) -> None:
    fed(world, NUT)
    number = the_case(world)["number"]
    assert ask(world, "stop", "victim") == {"life": 3}
    with pytest.raises(Refusal, match="victim is stopped: restart it first"):
        ask(world, "replay", number)
    assert ask(world, "restart", "victim") == {"life": 4}
    assert the_case(world)["number"] == number, "it is remembered across an orderly stop"


def test_a_replay_that_nobody_waits_for_leaves_nothing(world: World) -> None:
    fed(world, TOFFEE)
    held = held_by_root(world)
    later = perform(world.system, ["replay", the_case(world)["number"]], [])
    assert later.outcome() is None
    later.abandon()
    assert held_by_root(world) == held
    world.ready("victim", 4)
    assert the_case(world)["deaths"] == 2, "that death counts all the same"
    assert world.system.kernel is not None
    connection = world.system.kernel.connection
    world.until(lambda: not connection._unwanted, "its outcome, which nobody wanted")
    assert not connection._outcomes
