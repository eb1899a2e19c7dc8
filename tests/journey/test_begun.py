"""Calls that a server begins, and is told the outcomes of in its loop: each once, whoever dies."""

from __future__ import annotations

import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.config import load
from launcher.requests import perform
from launcher.system import System
from tests.adversary.world import ROOT, Intruder, World, linked, system_of
from tests.conftest import processes_of
from tests.journey.tasks.clerk import Clerk
from tests.journey.tasks.errands import Errands
from ukernel.abi.syscalls import READY
from ukernel.lib.stub import begin

WINDOW = 4
AT_ONCE = 24  # more than clerk's window: some are not taken yet when it dies
MANY = 1500
KILLS = 3
WAYS = ("plain", "linked")  # by the kernel; by a channel
REST = 2  # that wait behind those that fill the window
PINGS = 8  # of which two may be missed

CLERK = f"""
  clerk:
    run: tests.journey.tasks.clerk
    serves: "tests.journey.tasks.clerk:Clerk"
    state: persistent
    window: {WINDOW}
    restart: {{max_restarts: 100, backoff: {{first_ms: 0}}}}
"""
ERRANDS = """
  {name}:
    run: tests.journey.tasks.errands
    serves: "tests.journey.tasks.errands:Errands"
    calls: [{{clerk: {how}}}]
    heartbeat: {{period_ms: 20, misses: 20}}
"""
FOREMAN = """
  foreman:
    run: tests.journey.tasks.clerk
    serves: "tests.journey.tasks.clerk:Clerk"
    state: persistent
    args: {{above: clerk}}
    calls: [{{clerk: {how}}}]
"""
QUIET = "    heartbeat: {period_ms: 0}\n"  # nothing else wakes anybody up
SEVERAL = (
    CLERK
    + ERRANDS.format(name="plain", how="{via: kernel}")
    + ERRANDS.format(name="linked", how="{via: channel}")
    + FOREMAN.format(how="{via: channel}")
    + QUIET
    + "  one: {run: servers.client, calls: [clerk, foreman, plain, linked], start: demand}\n"
)
TOGETHER = (
    "system: together\nservers:"
    + CLERK
    + QUIET
    + FOREMAN.format(how="{}")
    + QUIET
    + ERRANDS.format(name="within", how="{}").replace("period_ms: 20", "period_ms: 0")
    + "  one: {run: servers.client, calls: [clerk, foreman, within], start: demand}\n"
)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """One system for all tests here; each has deeds of its own."""
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="uk-", dir="/tmp") as folder,
    ):
        patch.setenv("XDG_RUNTIME_DIR", folder)
        patch.chdir(ROOT)
        made = World(system_of(Path(folder), SEVERAL))
        try:
            yield made
            made.check()
        finally:
            made.close()
        assert not processes_of(Path(folder))


@pytest.fixture(scope="module")
def one(world: World) -> Intruder:
    return world.intrude("one")


@pytest.fixture
def clerk(one: Intruder) -> Any:
    """By a channel, which is open before others use the kernel's way up."""
    made = linked(one, Clerk, one.named["clerk"])
    assert made.held() == 0
    return made


def record(world: World, one: Intruder, first: int, count: int) -> list[int]:
    """How often each of these deeds was done."""
    return list(world.alongside(lambda: one.stub(Clerk, "clerk").record(first))[:count])


def hold(world: World, errands: Any, clerk: Any, how: str, first: int, count: int) -> None:
    """Have deeds held until clerk takes no more."""
    assert world.alongside(lambda: errands.between(first, 0)) == 7  # by a channel, it is open now
    errands.set_about(how, first, count, count)
    world.until(lambda: clerk.held() == WINDOW, "the window to be full")


@pytest.mark.parametrize("way", WAYS)
def test_outcomes_come_in_the_order_of_the_answers_while_others_are_served(
    world: World, one: Intruder, clerk: Any, way: str
) -> None:
    errands = one.stub(Errands, way)
    hold(world, errands, clerk, "hold", 0, 2 * WINDOW)  # so many are in hand, and as many wait
    heard: set[int] = set()

    def said(times: int) -> bool:
        heard.add(world.slot(way).heard_ns)
        return len(heard) > times

    world.until(lambda: said(PINGS), "so many answers")
    assert errands.alive() == 2 * WINDOW
    for first in (0, WINDOW):
        world.until(lambda: clerk.held() == WINDOW, "the next ones")
        assert clerk.let_go() == WINDOW
        said_so = errands.told(WINDOW)
        assert said_so == [f"{deed} answered" for deed in reversed(range(first, first + WINDOW))]
    assert errands.alive() == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_is_waited_for_in_between_loses_none_and_keeps_their_order(
    one: Intruder, way: str
) -> None:
    errands = one.stub(Errands, way)
    assert errands.between(0, 20) == 7
    deeds = [*range(20), *range(21, 41)]
    assert errands.told(40) == [f"{deed} answered" for deed in deeds]


@pytest.mark.parametrize("way", WAYS)
def test_of_what_is_forgotten_nothing_is_told(one: Intruder, way: str) -> None:
    errands = one.stub(Errands, way)
    errands.change_of_mind(0)
    assert errands.told(1) == ["1 answered"]
    assert errands.between(2, 1) == 7, "nothing waits for what was forgotten"
    assert errands.told(2) == ["2 answered", "4 answered"]


def outcomes(world: World, errands: Any, count: int) -> list[str]:
    """The next so many, while the launcher goes on."""
    found: list[str] = []
    while len(found) < count:
        found += world.alongside(lambda: errands.told(1))
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_death_ends_what_was_in_hand_and_the_next_life_gets_the_rest(
    world: World, one: Intruder, clerk: Any, way: str
) -> None:
    errands, first = one.stub(Errands, way), 1000 + 100 * WAYS.index(way)
    life = world.slot("clerk").life
    hold(world, errands, clerk, "hold_again", first, WINDOW + REST)
    world.system.signal("clerk", signal.SIGKILL)
    world.ready("clerk", life + 1)
    told = outcomes(world, errands, WINDOW)
    if way == "plain":  # they wait with the kernel, which has them
        world.until(lambda: world.alongside(clerk.held) == REST, "those that had waited")
        assert clerk.let_go() == REST
    told += outcomes(world, errands, WINDOW + REST - len(told))
    rest = "answered" if way == "plain" else "never"
    words = {word.split()[0]: word.split()[1] for word in told}
    assert list(words.values()).count("unknown") == WINDOW
    assert [words[str(first + WINDOW + n)] for n in range(REST)] == [rest] * REST
    done = [2] + [1] * (WINDOW - 1) + [int(way == "plain")] * REST
    assert record(world, one, first, WINDOW + REST) == done


@pytest.mark.parametrize("way", WAYS)
def test_after_a_death_that_concerned_nobody_calls_go_to_the_next_life(
    world: World, one: Intruder, way: str
) -> None:
    errands = one.stub(Errands, way)
    assert world.alongside(lambda: errands.between(0, 0)) == 7
    life = world.slot("clerk").life
    world.system.signal("clerk", signal.SIGKILL)
    world.told("died", f"clerk#{life}")
    errands.set_about("do", 50, 3, 3)
    assert sorted(outcomes(world, errands, 3)) == [f"{50 + n} answered" for n in range(3)]


@pytest.mark.parametrize("way", WAYS)
def test_thousands_of_calls_and_a_callee_that_is_killed_have_one_outcome_each(
    world: World, one: Intruder, way: str
) -> None:
    """And nothing is done twice, not even what might be repeated."""
    errands, first = one.stub(Errands, way), 2000 + MANY * WAYS.index(way)
    errands.set_about("do_again", first, MANY, AT_ONCE)
    told: list[str] = []
    for kill in range(1, KILLS + 1):
        told += outcomes(world, errands, kill * MANY // (KILLS + 1) - len(told))
        life = world.slot("clerk").life
        world.system.signal("clerk", signal.SIGKILL)
        world.ready("clerk", life + 1)
    told += outcomes(world, errands, MANY - len(told))
    deeds = Counter(int(word.split()[0]) for word in told)
    assert deeds == Counter(range(first, first + MANY))
    assert errands.alive() == 0
    done = record(world, one, first, MANY)
    words = {int(word.split()[0]) - first: word.split()[1] for word in told}
    for deed, word in words.items():
        assert done[deed] in {"answered": (1,), "unknown": (0, 1), "never": (0,)}[word]
    assert Counter(words.values())["answered"] > MANY // 2


def test_what_comes_while_a_server_waits_in_a_channel_is_not_left_lying(
    world: World, one: Intruder, clerk: Any
) -> None:
    waiting = begin(linked(one, Clerk, one.named["foreman"]).pass_on, 0)
    world.until(lambda: clerk.held() == 1, "foreman to wait")
    taken = world.slot("foreman").taken
    meanwhile = begin(one.stub(Clerk, "foreman").held)
    world.until(lambda: world.slot("foreman").taken > taken, "it to be delivered")
    assert clerk.let_go() == 1
    assert waiting.result() == 0
    assert meanwhile.result() == 0


@pytest.mark.parametrize("way", WAYS)
def test_an_orderly_stop_does_not_wait_for_what_is_under_way(
    world: World, one: Intruder, clerk: Any, way: str
) -> None:
    errands = one.stub(Errands, way)
    hold(world, errands, clerk, "hold", 0, 2 * WINDOW)
    later = perform(world.system, ["restart", way], [])
    assert world.until(later.outcome, "it to have stopped and come back") == {"life": 2}
    ends = [event for event in world.events if event.who == f"{way}#1" and event.kind != "serving"]
    assert [event.kind for event in ends] == ["ready"], "it did not have to be killed"
    assert clerk.let_go() == WINDOW
    assert world.alongside(lambda: errands.between(0, 1)) == 7


def test_in_one_process_nobody_sleeps_who_was_told_something(
    tmp_path: Path, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    path = tmp_path / "system.yaml"
    path.write_text(TOGETHER)
    world = World(System(load(path), name="a", placement="mono"))
    try:
        one = world.intrude("one")
        assert len({world.slot(n).pid for n in ("clerk", "foreman", "within")}) == 1
        assert world.slot("clerk").state == READY
        clerk, errands = one.stub(Clerk, "clerk"), one.stub(Errands, "within")
        errands.set_about("hold", 0, WINDOW, WINDOW)
        assert clerk.held() == WINDOW
        assert clerk.let_go() == WINDOW
        assert errands.told(WINDOW) == [f"{deed} answered" for deed in reversed(range(WINDOW))]
        assert errands.between(0, 5) == 7
        assert len(errands.told(10)) == 10
        errands.change_of_mind(0)
        assert errands.told(1) == ["1 answered"]
        waiting = begin(one.stub(Clerk, "foreman").pass_on, 5)
        world.until(lambda: clerk.held() == 1, "the one that foreman waits for within its call")
        assert clerk.let_go() == 1
        assert waiting.result() == 5
    finally:
        world.close()
