"""Calls through shared memory, with real processes, really killed: outcomes are those of a call."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.config import load
from launcher.system import System
from tests.adversary.world import ROOT, Intruder, World, channel_of, linked, system_of
from tests.journey.tasks.clerk import Clerk, Full
from tests.journey.under_fire import under_fire
from tests.journey.world import CONFIGS, Pipes
from ukernel.abi import wire
from ukernel.abi.channels import Channels
from ukernel.abi.errors import Answer, CallError, DeadlinePassed, DeadUnknown, Denied, Revoked
from ukernel.abi.services import CREATE, FileSystem
from ukernel.abi.syscalls import CALL, GRANT
from ukernel.lib.link import SELDOM
from ukernel.lib.memory import Region
from ukernel.lib.reception import MOST_DOORS
from ukernel.lib.stub import begin, kernel

WINDOW = 4
CLERKS = f"""
  clerk:
    run: tests.journey.tasks.clerk
    serves: "tests.journey.tasks.clerk:Clerk"
    state: persistent
    window: {WINDOW}
    restart: {{max_restarts: 100, backoff: {{first_ms: 0}}}}
  foreman:
    run: tests.journey.tasks.clerk
    serves: "tests.journey.tasks.clerk:Clerk"
    state: persistent
    args: {{above: clerk}}
    calls: [{{clerk: {{via: channel}}}}]
    heartbeat: {{period_ms: 20, misses: 10}}
  one:
    run: servers.client
    calls: [{{clerk: {{rights: [call, grant]}}}}, foreman]
    start: demand
  two: {{run: servers.client, calls: [clerk], start: demand}}
  salvo:
    run: tests.journey.tasks.salvo
    calls: [{{clerk: {{via: channel}}}}]
    start: demand
"""
LARGE = 240 << 10  # bytes of a body: more than a ring has
PINGS = 12  # more than may be missed


@pytest.fixture
def world(runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(ROOT)
    made = World(system_of(tmp_path, CLERKS))
    try:
        yield made
        made.check()
    finally:
        made.close()


def clerk_of(task: Intruder, timeout_s: float = 10.0, name: str = "clerk") -> Any:
    return linked(task, Clerk, task.named[name], timeout_s)


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except (Answer, CallError) as error:
        return type(error), str(error)


def done(world: World, task: Intruder, deed: int) -> int:
    """How often, as the record says."""
    plain = task.stub(Clerk, "clerk")
    return world.alongside(lambda: plain.record(deed)[0])


def hold_all(clerk: Any, first: int) -> list[Any]:
    """As many deeds as a channel may have at once, in hand."""
    return [begin(clerk.hold, first + number) for number in range(WINDOW)]


def raw(stub: Any, opcode: int, body: bytes) -> tuple[int, bytes]:
    """A request as no stub makes it; status and body of its reply."""
    channel = channel_of(stub)
    got = channel.collect(channel.post(opcode, body, 0), 0)
    return got.status, got.body


def test_outcomes_are_the_same_as_by_the_kernel(world: World) -> None:
    one, two = world.intrude("one"), world.intrude("two")
    ours, plain, other = clerk_of(one), one.stub(Clerk, "clerk"), clerk_of(two)
    assert ours.do(1, b"x", 0) == b"x"
    before = world.slot("one").calls
    for size in (0, 1, 100, 103, 104, 105, 5000, LARGE):
        assert ours.do(2, b"y" * 7, size) == (bytes(size) or b"y" * 7)
        assert ours.do(3, bytes(size), 0) == bytes(size)
        assert other.do(4, bytes(size), size) == bytes(size)
    assert world.slot("one").calls == before, "none of them has gone by the kernel"
    assert outcome(lambda: ours.decline("no")) == outcome(lambda: plain.decline("no"))
    assert outcome(lambda: ours.decline("no")) == (Full, "no")
    for body in (b"", b"\xc1", wire.pack([]), wire.pack([1, 2, 3]), wire.pack({"deed": 1})):
        for opcode in (1, 77, *Channels.ops):
            if body:
                by_kernel = one.ask(wire.CALL, opcode=opcode, token=one.named["clerk"], body=body)
                status, text = raw(ours, opcode, body)
                assert status == by_kernel.status
                assert wire.unpack(text)[0] == wire.unpack(by_kernel.body)[0]
    assert ours.do(5, b"z", 0) == b"z", "the channel has survived it"
    assert world.slot("clerk").life == 1


def test_replies_come_in_any_order_and_late_ones_keep_nobody_else_waiting(world: World) -> None:
    one, two = world.intrude("one"), world.intrude("two")
    ours, other = clerk_of(one), clerk_of(two)
    held = hold_all(ours, 10)
    queued = [begin(ours.do, 20 + n, bytes([n]), 0) for n in range(30)]
    world.until(lambda: other.held() == WINDOW, "the window to be full")
    assert other.do(1, b"served", 0) == b"served"
    large = begin(other.do, 2, bytes(LARGE), LARGE)
    assert other.let_go() == WINDOW
    assert [h.result() for h in reversed(held)] == [13, 12, 11, 10]
    assert [q.result() for q in reversed(queued)] == [bytes([n]) for n in reversed(range(30))]
    assert large.result() == bytes(LARGE)
    unwanted = begin(ours.do, 3, b"", 100)
    unwanted.forget()
    assert ours.do(4, b"next", 0) == b"next"
    assert channel_of(ours)._ends == {}


def test_memory_is_registered_once_and_when_it_was_revoked_again(world: World) -> None:
    one = world.intrude("one")
    ours, box = clerk_of(one), Region(one, "box", 8192)
    assert ours.fill(box.lend(0, 8192), 1) == 8192
    before = world.slot("one").calls
    for value in range(2, 20):
        assert ours.fill(box.lend(value, 4096), value) == 4096
        assert box.view[value : value + 4096] == bytes([value]) * 4096
    assert world.slot("one").calls == before
    assert outcome(lambda: ours.fill(box.show(0, 1), 1)) == outcome(
        lambda: one.stub(Clerk, "clerk").fill(box.show(0, 1), 1)
    )
    assert outcome(lambda: ours.fill(box.lend(8000, 4096), 1)) == outcome(
        lambda: one.stub(Clerk, "clerk").fill(box.lend(8000, 4096), 1)
    )
    lent = box.lend(0, 16)._replace(token=kernel(one, box.token).copy())
    assert ours.fill(lent, 30) == 16
    kernel(one, box.token).revoke()
    assert ours.fill(box.lend(0, 16), 31) == 16, "lent again"
    assert bytes(box.view[:16]) == bytes([31]) * 16
    kernel(one, lent.token).delete()
    assert outcome(lambda: ours.fill(lent, 32)) == outcome(
        lambda: one.stub(Clerk, "clerk").fill(lent, 32)
    )
    assert bytes(box.view[:16]) == bytes([31]) * 16
    shown = box.show(0, 16)
    assert isinstance(outcome(lambda: ours.fill(shown, 1)), tuple)
    kernel(one, box.token).revoke()
    with pytest.raises(Revoked):
        ours.fill(shown, 33)


def test_what_is_late_is_not_done_later(world: World) -> None:
    one, two = world.intrude("one"), world.intrude("two")
    ours, hasty, other = clerk_of(one), clerk_of(one, 0.05), clerk_of(two)
    held = hold_all(ours, 10)
    with pytest.raises(DeadlinePassed):
        hasty.do(1, b"small", 0)
    with pytest.raises(DeadlinePassed):
        hasty.do(2, bytes(LARGE), 0)  # half of it is in the ring
    with pytest.raises(DeadlinePassed):
        hasty.do(3, b"behind it", 0)
    assert other.let_go() == WINDOW
    assert [h.result() for h in held] == [10, 11, 12, 13]
    assert ours.do(4, bytes(LARGE), 10) == bytes(10), "the same channel goes on"
    assert [done(world, one, deed) for deed in (1, 2, 3, 4, 10)] == [0, 0, 0, 1, 1]
    late = begin(hasty.hold, 5)
    with pytest.raises(DeadlinePassed):
        late.result()
    assert other.let_go() == 1
    assert ours.do(6, b"x", 0) == b"x", "whose answer nobody waits for any more"


def test_a_death_leaves_what_was_not_taken_to_the_next_life(world: World) -> None:
    one, two = world.intrude("one"), world.intrude("two")
    ours, other = clerk_of(one), clerk_of(two)
    again = begin(ours.hold_again, 9)
    held = [begin(ours.hold, 10 + number) for number in range(WINDOW - 1)]
    queued = [begin(ours.do, 20 + n, b"q", 0) for n in range(WINDOW)]
    world.until(lambda: other.held() == WINDOW, "the window to be full")
    world.system.signal("clerk", signal.SIGKILL)
    for call in held:
        with pytest.raises(DeadUnknown):
            world.alongside(call.result)
    assert [world.alongside(call.result) for call in queued] == [b"q"] * WINDOW
    results: list[int] = []
    repeating = threading.Thread(target=lambda: results.append(again.result()))
    repeating.start()
    world.until(lambda: world.alongside(other.held) == 1, "what may be repeated to be so")
    assert other.let_go() == 1
    world.until(lambda: not repeating.is_alive(), "its outcome")
    assert results == [9]
    assert [done(world, one, deed) for deed in (9, 10, 12, 20, 23)] == [2, 1, 1, 1, 1]
    assert world.slot("clerk").life == 2


def test_a_stopped_server_is_replaced_and_changes_nothing_for_others(world: World) -> None:
    one = world.intrude("one")
    ours = clerk_of(one)
    assert ours.do(1, b"x", 0) == b"x"
    world.system.signal("clerk", signal.SIGSTOP)
    waiting = begin(ours.do, 2, b"y", 0)
    world.check()
    world.told("killed", "clerk#1")
    assert world.alongside(waiting.result) == b"y"
    assert done(world, one, 2) == 1


def test_a_stopped_client_keeps_nobody_waiting(world: World) -> None:
    """It was in the middle of many requests, some larger than the ring."""
    two = world.intrude("two")
    other, many = clerk_of(two), 1_000_000
    salvo = Pipes(world.system, "salvo", [str(many), "1"])
    assert salvo.task.process is not None
    stopped = psutil.Process(salvo.task.process.pid)
    world.until(lambda: world.alongside(lambda: other.record(0))[2000], "many of its requests")
    stopped.suspend()
    for size in (1, 5000, LARGE):
        assert other.do(many, bytes(size), size) == bytes(size)
    stopped.kill()
    salvo.close()
    world.until(lambda: other.channels() == 1, "its door to be taken away")


def test_nothing_is_begun_once_a_revoke_has_returned(world: World) -> None:
    one, two = world.intrude("one"), world.intrude("two")
    above, other = kernel(one, one.named["clerk"]), clerk_of(two)
    for ends, kind in (("revoke", Revoked), ("delete", Denied)):
        token = above.mint(CALL | GRANT, 0)
        ours = linked(one, Clerk, token)
        held = hold_all(ours, 10)
        queued = begin(ours.do, 1, b"q", 0)
        world.until(lambda: other.held() == WINDOW, "the window to be full")
        assert other.channels() == 2
        if ends == "revoke":
            above.revoke()
        else:
            kernel(one, token).delete()
        with pytest.raises(kind):
            ours.do(2, b"", 1)
        assert other.let_go() == WINDOW
        with pytest.raises(kind):
            queued.result()
        for call in held:  # begun before, and answered after: as long as the door is there
            with contextlib.suppress(DeadUnknown):
                call.result()
        world.until(lambda: other.channels() == 1, "the door to be taken away")
    assert [done(world, two, deed) for deed in (1, 2, 10)] == [0, 0, 2]
    ours = clerk_of(one)
    began = begin(ours.do, 3, b"x", 0)
    above.revoke()  # what is below: not itself
    assert began.result() == b"x"
    assert ours.do(4, b"y", 0) == b"y"


def test_a_client_that_dies_leaves_nothing_behind(world: World) -> None:
    two = world.intrude("two")
    other = clerk_of(two)
    assert other.do(1, b"x", 0) == b"x"
    process = psutil.Process(world.slot("clerk").pid)
    before = process.num_fds(), len(process.memory_maps(grouped=False))
    for life in range(3):
        one = world.intrude("one")
        ours = clerk_of(one)
        begin(ours.hold, 10 + life)
        assert ours.do(2, b"y", 0) == b"y"
        world.bury(one)
        one.close()
        channel_of(ours).close()
    world.until(lambda: other.channels() == 1, "their doors to be taken away")
    assert other.let_go() == 3
    assert (process.num_fds(), len(process.memory_maps(grouped=False))) == before


def test_a_server_that_waits_in_a_channel_is_not_hung(world: World) -> None:
    """It answers pings for as long as the one above it takes."""
    one, two = world.intrude("one"), world.intrude("two")
    waiting = begin(clerk_of(one, name="foreman").pass_on, 10)
    other = clerk_of(two)
    world.until(lambda: other.held() == 1, "the clerk above to have it")
    heard: set[int] = set()

    def said(times: int) -> bool:
        heard.add(world.slot("foreman").heard_ns)
        return len(heard) > times

    world.until(lambda: said(PINGS), "so many answers")
    assert other.let_go() == 1
    assert waiting.result() == 10
    assert world.slot("foreman").life == 1


def test_when_there_is_no_room_for_a_channel_calls_go_by_the_kernel(world: World) -> None:
    one, two = world.intrude("one"), world.intrude("two")
    above = kernel(one, one.named["clerk"])
    stubs = [linked(one, Clerk, above.mint(CALL, 0)) for _ in range(MOST_DOORS + 2)]
    for number, stub in enumerate(stubs):
        assert stub.do(number, b"x", 0) == b"x"
    assert [s.link._channel is None for s in stubs] == [False] * MOST_DOORS + [True] * 2
    other = clerk_of(two)
    assert other.channels() == MOST_DOORS
    above.revoke()
    assert world.until(lambda: other.channels() == 0, "room again") or True
    assert clerk_of(one).do(1, b"x", 0) == b"x"
    assert other.channels() == 1


def test_a_file_that_is_used_often_gets_a_channel_of_its_own(
    runtime_dir: Path, tmp_path: Path
) -> None:
    system = System(load(CONFIGS / "storage.yaml"), images={"disk0": tmp_path / "disk.img"})
    world = World(system)
    try:
        shell = world.intrude("shell")
        files = linked(shell, FileSystem, shell.named["fs"])
        file, box = files.open("/f", CREATE), Region(shell, "box", 4096)
        box.view[:] = bytes(range(256)) * 16
        for number in range(SELDOM):
            assert file.link._channel is None
            assert file.write(number * 4096, box.show(0, 4096)) == 4096
        for number in range(SELDOM):
            file.read(number * 4096, box.lend(0, 4096))
            assert bytes(box.view) == bytes(range(256)) * 16
        channel_of(file)
        before = world.slot("shell").calls
        assert file.read(0, box.lend(0, 4096)) == 4096
        assert world.slot("shell").calls == before
        file.release()
        assert outcome(lambda: file.read(0, box.lend(0, 1)))[0] is Denied  # type: ignore[index]
        world.system.signal("fs", signal.SIGKILL)
        again = world.alongside(lambda: files.open("/f", 0))
        assert world.alongside(lambda: again.stat().size) == SELDOM * 4096
    finally:
        world.close()


def test_under_fire(runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m tests.journey.under_fire 1000000` is the same for longer."""
    monkeypatch.chdir(ROOT)
    messages = 30_000
    found = under_fire(tmp_path, messages, seed=7)
    assert found["kills"] > 0
    assert found["answered"] + found["unknown"] + found["refused"] == messages
    assert not any(found[name] for name in ("lost", "twice", "false", "wrong")), found
