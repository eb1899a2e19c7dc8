"""Virtual machines in their monitors: whatever is killed, the guests go on. Real processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from launcher import asks, moves
from launcher.config import load
from launcher.system import System
from tests.adversary.world import World
from tests.conftest import own_runtime_dir
from tests.journey.guests import LATE, PERIODS, SNAPSHOT_PERIODS, Machine, copy_of, kill, lent, put
from ukernel.abi.errors import CallError
from ukernel.abi.network import Network, TimedOut
from ukernel.abi.services import SECTOR, Block
from ukernel.abi.syscalls import READY
from ukernel.abi.vm import EMPTY, HALTED, PAUSED, RUNNING, BadImage, WrongState
from ukernel.lib.stub import begin

AT_ONCE = "restart: {max_restarts: 1000, backoff: {first_ms: 0}}"
SYSTEM = f"""
system: guests
hardware:
  disk0: {{model: virtio-blk, image: d.img, size: 1MiB}}
servers:
  echo: {{run: servers.echo, serves: echo}}
  witness: {{run: tests.adversary.tasks.witness, calls: [echo]}}
  disk: {{run: servers.disk, serves: block, devices: [disk0], {AT_ONCE}}}
  parts:
    run: servers.partitions
    serves: block
    calls: [{{disk: {{via: channel}}}}]
    window: 64
    args: {{parts: [64KiB, 64KiB, 64KiB]}}
    {AT_ONCE}
  switch: {{run: servers.switch, serves: ethernet, window: 64, args: {{ports: 4}}, {AT_ONCE}}}
  net:
    run: servers.net
    serves: net
    calls: [{{switch: {{badge: 2, via: channel}}}}]
    window: 64
    state: persistent
    args: {{address: 10.0.0.2/24, connections: 8}}
vms:
  echoing:
    image: netping
    memory: 1MiB
    share: 20
    nic: {{server: switch, port: 4}}
    snapshot_every: 50ms
    args: {{ip: 10.0.0.9}}
    {AT_ONCE}
  hello: {{image: hello, memory: 1MiB, share: 50, snapshot_every: 50ms, {AT_ONCE}}}
  beat:
    image: heartbeat
    memory: 2MiB
    share: 30
    disk: {{server: parts, badge: 1}}
    nic: {{server: switch, port: 1}}
    snapshot_every: 200ms
    {AT_ONCE}
  beat2: {{standby_for: beat}}
  check: {{image: diskcheck, memory: 1MiB, share: 30, disk: {{server: parts, badge: 2}}}}
  hostile:
    image: hostile
    memory: 1MiB
    share: 20
    disk: {{server: parts, badge: 3}}
    nic: {{server: switch, port: 3}}
"""
KILLS = 5


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("guests")
    (folder / "system.yaml").write_text(SYSTEM)
    with own_runtime_dir():
        made = World(System(load(folder / "system.yaml")))
        yield made
        check(made)
        made.close()


def check(world: World) -> None:
    """The kernel and those who have to do with no guest have noticed nothing."""
    assert world.logs()["kernel"] == ""
    for name in ("echo", "witness"):
        row = world.slot(name)
        assert (row.life, row.state, row.errors, row.faults) == (1, "ready", 0, 0), row


@pytest.fixture
def beat(world: World) -> Machine:
    return Machine(world, "beat")


def test_hello(world: World) -> None:
    hello = Machine(world, "hello")
    hello.shows("three ticks, bye\n")
    assert hello.text == "hello from hart 0\nthree ticks, bye\n"
    world.until(lambda: hello.status().state == HALTED, "the end of it")
    status = hello.status()
    assert (status.engine, status.memory, status.faults, status.resets) == (
        "unicorn",
        1 << 20,
        0,
        0,
    )
    assert {each.kind: each.times for each in status.exits}["halt"] == 1
    with pytest.raises(WrongState, match="switched itself off"):
        hello.stub.resume()


def test_off_is_off_until_somebody_presses_the_button(world: World) -> None:
    hello = Machine(world, "hello")
    world.until(lambda: hello.status().snapshot_age_ms, "a snapshot")
    kill(world, "hello")
    world.until(lambda: hello.status().state == HALTED, "it to be off again")
    hello.forget()
    world.system.restart("hello")
    world.ready("hello", 3)
    hello.shows("hello from hart 0\nthree ticks, bye\n")


def test_one_who_is_paused_stands_still(world: World, beat: Machine) -> None:
    beat.beats()
    assert beat.stub.enter(b"typed into the void") == 19
    beat.stub.pause()
    beat.forget()
    before, status = beat.count_of_exits(), beat.status()
    world.until(lambda: world.slot("witness").calls > 50, "some time")
    assert beat.stub.output(beat.at).data == b""  # it has waited a second for it
    after = beat.status()
    assert (after.state, after.uptime_ms) == (PAUSED, status.uptime_ms)
    assert beat.count_of_exits() == before
    beat.stub.resume()
    beat.stub.resume()
    first = beat.beats(1)
    assert beat.status().state == RUNNING
    assert first * 10 < status.uptime_ms + 1000  # it has not counted the time that it stood


def test_a_heartbeat_outlives_its_monitor(world: World, beat: Machine) -> None:
    for _ in range(3):
        world.until(lambda: beat.status().snapshots > 1, "snapshots")
        last = beat.beats(1)
        kill(world, "beat")
        beat.shows(r"\n(heartbeat \d+ \d+ \d+\n){6}")
        counts = beat.counts()
        back = [before - after for before, after in pairwise(counts) if after < before]
        assert len(back) <= 1  # where it was killed, if anything was shown since the snapshot
        assert all(step <= SNAPSHOT_PERIODS + LATE for step in back)
        status = beat.status()
        assert counts[-1] > last
        assert (status.state, status.faults) == (RUNNING, 0)
        assert status.restored_from_ms > 0
        assert status.uptime_ms >= last * 10


def test_a_machine_that_was_paused_is_paused_after_a_death(world: World, beat: Machine) -> None:
    beat.stub.pause()
    kill(world, "beat")
    assert beat.status().state == PAUSED
    beat.stub.resume()
    beat.beats()


def test_an_orderly_end_costs_it_nothing_while_it_is_paused(world: World, beat: Machine) -> None:
    beat.beats()
    beat.stub.pause()
    uptime_ms, life = beat.status().uptime_ms, world.slot("beat").life
    world.system.restart("beat")
    world.ready("beat", life + 1)
    assert (beat.status().state, beat.status().uptime_ms) == (PAUSED, uptime_ms)
    beat.stub.resume()
    beat.beats(1)


def test_who_is_discarded_before_it_goes_on_does_not(world: World) -> None:
    """Its disk has not ended what was begun: so long it waits, and nothing else is loaded."""
    check = Machine(world, "check")
    copied = copy_of(check)
    check.stub.resume()
    world.system.signal("disk", signal.SIGSTOP)
    check.forget()
    world.until(
        lambda: check.status() and not check.stub.output(check.at).data, "it to wait for its disk"
    )
    check.stub.discard()
    put(check, copied)
    starting = begin(check.stub.start_loaded)
    for wrong in (check.stub.start_loaded, lambda: put(check, copied)):
        with pytest.raises(WrongState, match="it is about to go on from what was loaded"):
            wrong()
    check.stub.discard()
    with pytest.raises(WrongState, match="discarded meanwhile"):
        starting.result()
    put(check, copied)
    starting = begin(check.stub.start_loaded)
    world.system.signal("disk", signal.SIGCONT)
    starting.result()
    check.shows(r"(diskcheck \d+ sectors 128 wrong 0 errors 0\n){2}")


def test_no_byte_is_wrong_whatever_happens_to_the_disk(world: World) -> None:
    check = Machine(world, "check")
    for _ in range(KILLS):
        check.forget()
        check.shows(r"diskcheck \d+ sectors 128")
        kill(world, "disk")
    kill(world, "parts")
    check.forget()
    check.shows(r"(diskcheck \d+ sectors 128 wrong 0 errors 0\n){2}")
    status = check.status()
    assert (status.state, status.faults, status.resets) == (RUNNING, 0, 0)
    assert world.slot("check").life == 1


def test_a_machine_moves_to_another_monitor(
    world: World, beat: Machine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there = Machine(world, "beat2")
    assert there.status().state == EMPTY
    beat.beats()
    copied = copy_of(beat)
    file = tmp_path_factory.mktemp("image") / "beat.vm"
    file.write_bytes(copied)
    beat.look()
    last = beat.counts()[-1]
    put(there, file.read_bytes())
    there.stub.start_loaded()
    beat.stub.discard()
    with pytest.raises(WrongState, match="it is empty"):
        beat.stub.resume()
    there.at = beat.at  # positions go on
    there.shows(r"(heartbeat \d+ \d+ \d+\n){3}")
    counts = there.counts()
    assert last < counts[0] <= last + PERIODS + LATE
    assert counts == sorted(counts)
    kill(world, "beat")
    assert beat.status().state == EMPTY  # it stays where it is
    kill(world, "beat2")
    assert there.beats() > counts[-1] - SNAPSHOT_PERIODS - LATE
    put(beat, copy_of(there))
    beat.stub.start_loaded()
    there.stub.discard()
    beat.at = there.at
    beat.beats()


def test_nobody_else_touches_a_machine_that_moves(world: World, beat: Machine) -> None:
    """Or who gives up would empty the monitor that another has moved it to."""
    system, there = world.system, Machine(world, "beat2")
    last = beat.beats(1)
    move = moves.migrate(system, "beat", "beat2")
    for source, target in (("beat", "beat2"), ("check", "beat2"), ("beat2", "beat")):
        with pytest.raises(CallError, match="being copied or moved already"):
            moves.migrate(system, source, target)
    with pytest.raises(CallError, match="beat: being copied or moved already"):
        moves.save(system, "beat", 0)
    with pytest.raises(LookupError, match="is being copied or moved: resume it when"):
        asks.askable(system, "beat", "resume")
    assert world.until(move.outcome, "the end of the move")["size"] > 0
    there.at = beat.at
    assert there.beats(1) >= last
    world.until(moves.migrate(system, "beat2", "beat").outcome, "the end of the move")
    asks.askable(system, "beat", "resume")
    beat.at = there.at
    beat.beats(1)


def test_a_guest_on_the_network_answers_in_its_next_life_too(world: World) -> None:
    net = world.system.reach(Network, "net")
    echoing = Machine(world, "echoing")
    for _ in range(3):
        for size in (8, 1400):
            assert net.ping("10.0.0.9", size, 1000) > 0
        world.until(lambda: echoing.status().snapshots > 0, "a snapshot")
        kill(world, "echoing")
    kill(world, "switch")
    world.until(lambda: answers(net), "an answer by the next life of the switch")
    assert "netping at 10.0.0.9" in echoing.stub.output(0).data.decode()
    assert echoing.status().resets == 0


def answers(net: Network) -> bool:
    try:
        return net.ping("10.0.0.9", 8, 200) > 0
    except TimedOut:
        return False


def test_what_is_no_image_is_refused(world: World, beat: Machine) -> None:
    there = Machine(world, "beat2")
    with pytest.raises(WrongState, match="it is running"):
        put(beat, b"x")
    with lent(beat) as (monitor, memory), pytest.raises(WrongState, match="nothing is saved"):
        monitor.image(0, memory.lend(0, 100))
    whole = copy_of(beat)
    beat.stub.resume()
    half, changed, more = whole[:-1], bytearray(whole), whole + b"x"
    changed[len(whole) // 2] ^= 1
    for data in (b"", b"x" * 100, half, bytes(changed), more):
        put(there, data or b"x")
        with pytest.raises(BadImage):
            there.stub.start_loaded()
    with lent(there) as (monitor, memory), pytest.raises(BadImage, match="a piece of"):
        monitor.load(5, memory.show(0, 1))
    assert there.status().state == EMPTY
    there.stub.discard()


def test_a_monitor_holds_its_partition_and_no_other(world: World, beat: Machine) -> None:
    """And no byte of another guest is in there."""
    caps = world.system.caps()
    reached = {
        (row.holder.split("#")[0], row.badge)
        for row in caps
        if row.kind == "endpoint" and row.object == "parts" and row.badge
    }
    own = {("beat", 1), ("beat2", 1), ("check", 2), ("hostile", 3)}
    assert {pair for pair in reached if pair[0] in ("beat", "beat2", "check", "hostile")} == own
    beat.beats()
    parts = world.system.reach(Block, "parts", 1)
    assert parts.capacity() == (64 << 10) // SECTOR
    image = world.system.file.path.parent / "d.img"
    records = image.read_bytes()[: 64 << 10]
    for at in range(0, len(records), SECTOR):
        assert records[at : at + 8] in (b"heartbea", bytes(8))


def test_all_in_one_process(tmp_path: Path, runtime_dir: Path) -> None:
    """There each death is everybody's, and the guests go on all the same."""
    (tmp_path / "system.yaml").write_text(SYSTEM)
    world = World(System(load(tmp_path / "system.yaml"), placement="mono"))
    try:
        beat, check = Machine(world, "beat"), Machine(world, "check")
        check.shows(r"(diskcheck \d+ sectors 128 wrong 0 errors 0\n){3}")
        last = beat.beats(1)
        kill(world, "disk")
        world.until(lambda: all(t.state == READY for t in world.system.tasks.values()), "READY")
        assert beat.beats(1) > last - SNAPSHOT_PERIODS - LATE
        assert beat.status().restored_from_ms > 0
        check.forget()
        check.shows(r"(diskcheck \d+ sectors 128 wrong 0 errors 0\n){3}")
    finally:
        world.close()
