"""41 to 45: who does not answer is found and replaced; who is only slow, or held up, is not."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from tests.adversary.conftest import WorldMaker
from tests.adversary.tasks.haunted import ACT, IN_VAIN, LENGTH, MESSAGES, Haunted
from tests.adversary.tasks.stubborn import Stubborn
from tests.adversary.world import MORTAL, PROOF, World, gone, launched, own_opcode
from ukernel.abi import wire
from ukernel.abi.errors import DeadUnknown
from ukernel.abi.services import Echo
from ukernel.lib.stub import release

STUBBORN = "run: tests.adversary.tasks.stubborn, serves: tests.adversary.tasks.stubborn:Stubborn"
CHAIN = f"""
  deep: {{{STUBBORN}, calls: [echo]}}
  middle: {{{STUBBORN}, calls: [deep], args: {{to: deep}}}}
  front: {{{STUBBORN}, calls: [middle], args: {{to: middle}}}}
  attacker: {{run: servers.client, calls: [deep, middle, front], start: demand}}
"""
BOTH_LIVES = {"old_life": 1, "new_life": 2}
BURNERS = 4
MOST_CALL_S = 0.4
PAUSE_S = 1.2  # half as much again as the longest silence that PATIENT allows
ROUND_S = 0.15  # in which everybody is pinged


@pytest.fixture
def chain(make_world: WorldMaker) -> World:
    """front calls middle calls deep calls echo."""
    return make_world(CHAIN)


def nobody_was_killed(world: World) -> bool:
    return not [e for e in world.events if e.kind in {"killed", "died", "lost"}]


@pytest.mark.parametrize("how", ["spin", "block"], ids=["41_spin", "42_main_loop_dead"])
def test_a_handler_that_never_returns(chain: World, how: str) -> None:
    deep = chain.intrude().stub(Stubborn, "deep")
    with pytest.raises(DeadUnknown, match="deep#1 died while it had the call") as told:
        chain.alongside(getattr(deep, how))
    assert told.value.detail == BOTH_LIVES
    chain.told("killed", "deep#1", "hung: silent for")
    chain.told("died", "deep#1", "hung")
    chain.ready("deep", 2)
    assert chain.alongside(deep.life) == 2


@pytest.mark.parametrize("how", ["spin", "block"], ids=["41_spin", "42_main_loop_dead"])
def test_only_the_deepest_callee_is_to_blame(chain: World, how: str) -> None:
    """front and middle are as silent as deep is, and as long."""
    front = chain.intrude().stub(Stubborn, "front")
    with pytest.raises(DeadUnknown, match="deep#1 died while it had the call"):
        chain.alongside(lambda: front.pass_on(2, how))
    assert {e.who for e in chain.events if e.kind in {"killed", "died"}} == {"deep#1"}
    assert chain.alongside(lambda: front.pass_on(2, "life")) == 2
    assert [chain.slot(name).life for name in ("front", "middle", "deep")] == [1, 1, 2]


def test_42_zeromqs_thread_goes_on_all_the_time(chain: World) -> None:
    """It takes calls from the kernel as long as there is credit: that it does proves nothing."""
    client = chain.intrude()
    for what in ("block", *["life"] * 4):
        opcode = own_opcode(Stubborn, what)
        client.put(
            wire.CALL, token=client.named["deep"], opcode=opcode, flags=wire.ASYNC, body=b"\x90"
        )
    chain.until(lambda: chain.slot("deep").taken == 5, "five calls with deep")
    process = chain.system.tasks["deep"].process
    assert process is not None
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    assert "ZMQbg/IO/0" in {(thread / "comm").read_text().strip() for thread in threads}
    chain.told("died", "deep#1", "hung")
    chain.ready("deep", 2)


def test_43_stopped_found_hung_and_replaced(chain: World) -> None:
    client = chain.intrude()
    chain.system.signal("deep", signal.SIGSTOP)
    old = chain.slot("deep").pid
    assert chain.alongside(client.stub(Stubborn, "deep").life) == 2
    chain.told("died", "deep#1", "hung")
    assert gone([old]), "before the next life begins; SIGCONT finds nobody"


def test_43_stopped_and_restarted_by_hand(chain: World) -> None:
    """Whoever restarts a server that is stopped need not know it: it leaves in order."""
    chain.system.signal("deep", signal.SIGSTOP)
    old = chain.slot("deep").pid
    chain.system.restart("deep")
    chain.ready("deep", 2)
    assert gone([old])
    assert chain.slot("deep").life == 2
    assert nobody_was_killed(chain)


HAUNTED = """
  rng:
    run: tests.adversary.tasks.haunted
    serves: tests.adversary.tasks.haunted:Haunted
    devices: [rng0]
  attacker: {run: servers.client, calls: [rng], start: demand}
hardware: {rng0: {model: virtio-rng}}
"""


def test_43_a_ghost_of_an_earlier_life_changes_nothing(make_world: WorldMaker) -> None:
    """A fork that nobody found goes on with the descriptors and the memory of life 1."""
    world = make_world(HAUNTED)
    rng = world.intrude().stub(Haunted, "rng")
    ghost = rng.haunt()
    world.system.signal("rng", signal.SIGKILL)
    world.ready("rng", 2)
    assert not gone([ghost]), "it has hidden well"
    unbound = world.counter("unbound")
    os.kill(ghost, ACT)
    world.until(lambda: world.counter("unbound") == unbound + MESSAGES, "a stranger's messages")
    for _ in range(PROOF):
        assert len(rng.read(LENGTH)) == LENGTH
    os.kill(ghost, ACT)
    world.until(lambda: gone([ghost]), "its end")
    assert os.waitstatus_to_exitcode(os.waitpid(ghost, 0)[1]) == IN_VAIN
    row = world.slot("rng")
    assert (row.life, row.faults, row.errors) == (2, 0, 0)
    assert {r.life for r in world.trace() if r.server == "rng"} == {1, 2}
    assert world.slot("machine").life == 1


@pytest.mark.parametrize("how", ["work", "nested"])
def test_44_slow_but_getting_on_is_left_alone(chain: World, how: str) -> None:
    deep = chain.intrude().stub(Stubborn, "deep")
    assert chain.alongside(getattr(deep, how)) > 1
    assert chain.alongside(deep.life) == 1
    assert nobody_was_killed(chain)


def test_44_waiting_for_somebody_slow_is_left_alone(chain: World) -> None:
    """front and middle say nothing at all while deep is at work."""
    front = chain.intrude().stub(Stubborn, "front")
    assert chain.alongside(lambda: front.pass_on(2, "work")) > 1
    assert nobody_was_killed(chain)


@contextmanager
def burning(core: int) -> Iterator[None]:
    """More processes than one on a processor, all of them busy, each in a session of its own:
    Linux shares a processor among sessions first."""
    program = f"import os; os.sched_setaffinity(0, [{core}]); print(flush=True)\nwhile True: pass"
    with ExitStack() as stack:
        for _ in range(BURNERS):
            burner = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True
                )
            )
            stack.callback(burner.kill)
            assert burner.stdout is not None
            assert burner.stdout.readline(), "it burns"
        yield


def test_44_starved_by_a_busy_machine_is_left_alone(make_world: WorldMaker) -> None:
    """It computes, says nothing, and others have the processor: that is no fault of its own."""
    core = min(os.sched_getaffinity(0))
    world = make_world(f"""
  deep: {{{STUBBORN}, cores: [{core}]}}
  attacker: {{run: servers.client, calls: [deep], start: demand}}
""")
    deep = world.intrude().stub(Stubborn, "deep")
    with burning(core):
        world.alongside(deep.starve)
    assert world.alongside(deep.life) == 1
    assert nobody_was_killed(world)


def limited(make_world: WorldMaker) -> World:
    return make_world(f"""
  deep: {{{STUBBORN}, heartbeat: {{max_call_s: {MOST_CALL_S}}}}}
  attacker: {{run: servers.client, calls: [deep], start: demand}}
""")


def test_who_leaves_is_not_taken_for_one_that_does_not_read(world: World) -> None:
    """Not even right after it has told the kernel something that the kernel answers."""
    for _ in range(8):
        leaving = world.intrude()
        leaving.socket.set(zmq.LINGER, 1000)
        release(leaving.stub(Echo, "echo"))
        leaving.leave()
        world.bury(leaving)
    world.check()
    assert nobody_was_killed(world)


def test_31_a_call_in_hand_without_progress(make_world: WorldMaker) -> None:
    """Its request loop is well; the one call is never answered."""
    world = limited(make_world)
    deep = world.intrude().stub(Stubborn, "deep")
    with pytest.raises(DeadUnknown):
        world.alongside(deep.hold)
    world.told("killed", "deep#1", "has a call in hand for")
    assert world.alongside(deep.life) == 2


def test_44_a_call_in_hand_with_progress_is_left_alone(make_world: WorldMaker) -> None:
    world = limited(make_world)
    client = world.intrude()
    begun = time.monotonic()
    client.put(
        wire.CALL, token=client.named["deep"], opcode=own_opcode(Stubborn, "hold_on"), body=b"\x90"
    )
    world.until(lambda: time.monotonic() > begun + 3 * MOST_CALL_S, "more than it may take")
    assert (world.slot("deep").life, world.slot("deep").taken) == (1, 1)
    assert nobody_was_killed(world)


PATIENT = MORTAL.replace("window: 1", "window: 1\n    heartbeat: {misses: 8}")


@pytest.mark.usefixtures("runtime_dir")
def test_45_the_whole_machine_paused(tmp_path: Path) -> None:
    """Everybody stands still for longer than silence may last, the launcher too. Nobody dies.

    mortal a little earlier, so that a ping to it is open; it has that little more patience.
    """
    with launched(tmp_path, PATIENT) as (launcher, pids), ExitStack() as stack:
        os.kill(pids["mortal"], signal.SIGSTOP)
        told_after(ROUND_S, launcher)
        system = psutil.Process(launcher.pid)
        everybody = [system.pid, *(child.pid for child in system.children(recursive=True))]
        assert set(pids.values()) <= set(everybody)
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        descriptors = [os.pidfd_open(pid) for pid in everybody]
        for fd in descriptors:
            stack.callback(os.close, fd)
        assert not select.select(descriptors, [], [], PAUSE_S)[0]
        for pid in everybody:
            os.kill(pid, signal.SIGCONT)
        told = told_after(PAUSE_S, launcher)
    assert {told["lives"][name] for name in ("echo", "witness", "mortal")} == {1}
    assert {kind for kind, _, _ in told["events"]} <= {"ready", "serving"}


def told_after(seconds: float, launcher: subprocess.Popen[str]) -> dict[str, Any]:
    """What a launcher has to tell when it has gone on for so long."""
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    print(seconds, file=launcher.stdin, flush=True)
    told: dict[str, Any] = json.loads(launcher.stdout.readline())
    return told
