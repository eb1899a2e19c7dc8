"""Calls past the kernel, with real processes: counted, seen to be waited for, and judged."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import requests
from launcher.blocked import chains
from tests.adversary.world import ROOT, World, system_of
from tests.journey.tasks.clerk import Clerk
from tests.journey.world import Pipes
from ukernel.abi.errors import DeadUnknown
from ukernel.lib.stub import begin

CALLS = 1000
CLERK = """
  clerk:
    run: tests.journey.tasks.clerk
    serves: "tests.journey.tasks.clerk:Clerk"
    state: persistent
    heartbeat: {period_ms: 100, misses: 10, max_call_s: 0.6}
    restart: {backoff: {first_ms: 0}}
  foreman:
    run: tests.journey.tasks.clerk
    serves: "tests.journey.tasks.clerk:Clerk"
    state: persistent
    args: {above: clerk}
    calls: [{clerk: {via: channel}}]
    heartbeat: {period_ms: 100, misses: 5, max_call_s: 0.5}
  one: {run: servers.client, calls: [clerk, foreman], start: demand}
  salvo: {run: tests.journey.tasks.salvo, calls: [{clerk: {via: channel}}], start: demand}
"""
Boot = Callable[[str], World]


@pytest.fixture
def boot(runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Boot]:
    monkeypatch.chdir(ROOT)
    made: list[World] = []

    def boot(text: str) -> World:
        made.append(World(system_of(tmp_path, text)))
        return made[-1]

    try:
        yield boot
    finally:
        for world in made:
            world.close()


def rows(world: World) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in requests.ps(world.system)}


def test_calls_past_the_kernel_are_counted_one_by_one(boot: Boot) -> None:
    world = boot(CLERK)
    salvo = Pipes(world.system, "salvo", [str(CALLS - 1), "1"])  # and one for the record
    assert json.loads(salvo.hear())["answered"] == CALLS - 1
    salvo.close()
    world.until(lambda: rows(world)["clerk"]["channel_served"] == CALLS, "the clerk to be idle")
    found = rows(world)
    assert (found["salvo"]["channel_calls"], found["salvo"]["direct_calls"]) == (CALLS, 0)
    assert (found["clerk"]["channel_calls"], found["clerk"]["in_hand"]) == (0, 0)
    world.system.signal("clerk", signal.SIGKILL)
    world.ready("clerk", 2)
    again = Pipes(world.system, "salvo", ["9", "1"])
    again.hear()
    again.close()
    world.until(lambda: rows(world)["clerk"]["channel_served"] == CALLS + 10, "both lives' calls")
    assert rows(world)["salvo"]["channel_calls"] == CALLS + 10


def test_who_waits_in_a_channel_is_seen_and_whom_it_waits_for_is_killed(boot: Boot) -> None:
    """The callee first stands still, and then takes the call and has no answer."""
    world = boot(CLERK)
    one = world.intrude("one")
    foreman, clerk = one.stub(Clerk, "foreman"), one.stub(Clerk, "clerk")
    opened = begin(foreman.pass_on, 6)
    world.until(clerk.let_go, "the channel to be there")
    assert opened.result() == 6
    world.system.signal("clerk", signal.SIGSTOP)
    waiting = begin(foreman.pass_on, 7)

    def seen() -> list[Any]:
        now_ns = time.monotonic_ns()
        found = chains(requests.ps(world.system), ["clerk"], now_ns)
        return [c for c in found if (c.culprit, c.waits[-1].way) == ("clerk", "by channel")]

    (chain,) = world.until(seen, "the wait")
    (wait,) = chain.waits
    hold = next(o.number for o in Clerk.ops.values() if o.name == "hold")
    assert (wait.caller, wait.opcode, wait.badge, chain.why) == (
        "foreman", hold, 0, "is suspended",
    )  # fmt: skip
    assert world.told("killed", "clerk#1").text.startswith("hung: silent")
    assert world.told("killed", "clerk#2").text.startswith("has a call in hand")
    with pytest.raises(DeadUnknown):
        world.alongside(waiting.result)
    world.until(lambda: rows(world)["foreman"]["waits"] is None, "the end of the wait")
    assert world.slot("foreman").life == 1
    world.check()


def test_calls_within_a_process_are_counted_and_their_waits_are_seen(boot: Boot) -> None:
    world = boot(re.sub(", max_call_s: 0.[0-9]", "", CLERK) + "placement: mono\n")
    one = world.intrude("one")
    foreman, clerk = one.stub(Clerk, "foreman"), one.stub(Clerk, "clerk")
    for deed in range(3):
        waiting = begin(foreman.pass_on, deed)
        world.until(lambda: rows(world)["foreman"]["waits"], "it to wait")
        told = rows(world)["foreman"]["waits"]
        assert (told["callee"]["name"], told["opcode"], told["way"]) == ("clerk", 5, "direct")
        assert clerk.let_go() == 1
        assert waiting.result() == deed
    world.until(lambda: rows(world)["foreman"]["direct_calls"] == 3, "it to be idle")
    assert rows(world)["foreman"]["waits"] is None
