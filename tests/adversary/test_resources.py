"""29 to 38: who takes too much meets a limit of its own, and nobody else notices."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from launcher.orphans import MARK
from launcher.vitals import LOG_LIMIT
from tests.adversary.conftest import WorldMaker
from tests.adversary.tasks import bomb, full_host, glutton
from tests.adversary.tasks.mortal import Mortal
from tests.adversary.world import MORTAL, ROOT, Intruder, World, gone, own_opcode
from ukernel.abi import wire
from ukernel.abi.errors import Code, DeadlinePassed, Overload
from ukernel.abi.exits import OUT_OF_MEMORY
from ukernel.abi.faults import NO_ROOM, DeviceFaults
from ukernel.abi.services import CREATE, Echo, File, FileSystem, NoSpace
from ukernel.abi.syscalls import CALL, GRANT, STOPPED, Quota
from ukernel.broker.shell import OPTIONS
from ukernel.lib.memory import Region
from ukernel.lib.stub import bind, kernel

ECHO, HOLD = own_opcode(Echo, "echo"), own_opcode(Mortal, "hold")
QUOTA = Quota()
FLOOD = 3000  # messages
LOUD = 32  # events that a flood makes at most
MESSAGES = OPTIONS[zmq.SNDHWM] + 1000  # unread by a task, and of it by the kernel (zmq.RCVHWM)
CAP_SYS_ADMIN = 21  # linux/capability.h
FEW = 8  # descriptors more or less: those of next lives come and go
NOTHING = b"\x91\xc4\0"  # body of an echo of no bytes


def put(task: Intruder, op: int = wire.CALL, body: bytes = NOTHING, **fields: Any) -> int:
    """Call the target and go on."""
    token = task.named["target"]
    return task.put(op, flags=wire.ASYNC, opcode=ECHO, token=token, body=body, **fields)


def answer_all(target: Intruder, number: int) -> list[wire.Message]:
    """Take so many calls, and answer those that want an answer."""
    taken = []
    for m in (target.delivered() for _ in range(number)):
        if m.flags & wire.ONEWAY:
            target.put(wire.RECV, seq=1, token=target.named["self"])
        else:
            target.put(wire.REPLY, seq=m.seq, body=NOTHING)
        taken.append(m)
    return taken


def kernel_process(world: World) -> psutil.Process:
    return psutil.Process(world.kernel_pid)


@pytest.mark.parametrize("op", [wire.CALL, wire.SEND], ids=["calls", "sends"])
def test_29_flood_of(world: World, op: int) -> None:
    """To a server that takes none of them: what is beyond the quota is refused, one by one."""
    target, attacker, victim = (world.intrude(n) for n in ("target", "attacker", "victim"))
    for _ in range(QUOTA.calls):
        put(attacker, op)
    for _ in range(FLOOD // 100):
        refused = attacker.collect_all([put(attacker, op) for _ in range(100)])
        assert {m.status for m in refused} == {Code.E_OVERLOAD}
    seq = put(victim)
    target.serve(credit=8)
    taken = answer_all(target, QUOTA.calls + 1)
    assert victim.outcome(seq).status == Code.OK
    assert target.quiet(), "nothing that was refused is delivered"
    assert len({m.token for m in taken}) == 2
    assert (world.slot("attacker").errors, world.slot("victim").errors) == (FLOOD, 0)


def test_29_flood_of_bytes(world: World) -> None:
    attacker, victim = world.intrude(), world.intrude("victim")
    body = bytes(wire.MAX_BODY)
    fitting = QUOTA.queued_bytes // len(body)
    for _ in range(fitting):
        put(attacker, body=body)
    refused = attacker.outcome(put(attacker, body=body))
    assert refused.status == Code.E_OVERLOAD
    assert "bytes are queued" in wire.unpack(refused.body)[0]
    put(victim, body=body)
    victim.sync()
    assert world.slot("target").queued == fitting + 1


def test_29_flood_of_notices(world: World) -> None:
    """A task has none to send: each is a fault, and of thousands some are reported."""
    attacker = world.intrude()
    for _ in range(FLOOD):
        attacker.put(wire.NOTICE, opcode=wire.NOTICE_STOP, body=wire.pack([]))
    attacker.sync()
    world.told("fault", attacker.who, f"operation {wire.NOTICE} is not for tasks")
    assert world.slot("attacker").faults == FLOOD
    assert len([e for e in world.events if e.kind == "fault"]) <= LOUD


def test_29_flood_of_the_kernels_own_notices(world: World) -> None:
    """A client gives a thousand objects up at once, while their server reads nothing."""
    target, attacker = world.intrude("target"), world.intrude()
    target.serve(credit=8)
    badges = range(1, 1001)
    held: list[bytes] = []
    for badge in badges:
        seq, minted = put(attacker), target.kernel("self").mint(CALL | GRANT, badge)
        target.put(
            wire.REPLY, seq=target.delivered().seq, caps=(minted,), flags=wire.MOVE, body=NOTHING
        )
        held += attacker.outcome(seq).caps
    for token in held:
        kernel(attacker, token).delete()
    target.sync()
    told = [m for m in target.inbox if m.op == wire.NOTICE]
    assert [wire.unpack(m.body) for m in told] == [[badge] for badge in badges]
    assert not [e for e in world.events if e.kind == "lost"]


def test_29_flood_from_many_connections(make_world: WorldMaker) -> None:
    names = [f"flooder-{number}" for number in range(3)]
    world = make_world("".join(f"  {n}: {{run: tests.adversary.tasks.flooder}}\n" for n in names))
    world.until(lambda: world.counter("unbound") > FLOOD, "a flood")
    for name in names:
        world.told("denied", f"{name}#1", "spoke on a line that is not its own")
    world.check()
    assert len([e for e in world.events if e.kind == "denied"]) <= LOUD * len(names)


def test_30_client_that_never_reads(make_world: WorldMaker) -> None:
    """It is cut off, killed and started again, until it is given up; what waited for it is gone."""
    size = 64 << 10
    world = make_world(f"""
  deaf:
    run: tests.adversary.tasks.deaf
    calls: [echo]
    args: {{size: {size}}}
    restart: {{max_restarts: 3, backoff: {{first_ms: 0}}}}
""")
    memory = kernel_process(world).memory_info
    peaks, before = [0], memory().rss
    world.system.after_events.append(lambda: peaks.append(memory().rss))
    for life in (1, 2, 3, 4):
        world.told("lost", f"deaf#{life}", "does not read its messages")
        world.told("died", f"deaf#{life}", "does not read its messages")
    world.told("failed", "deaf", "not restarted")
    most = MESSAGES * size + QUOTA.queued_bytes
    assert max(peaks) - before < most  # of all lives together: what waited for one is gone


MUTE = (
    MORTAL
    + """
  mute:
    run: tests.adversary.tasks.mortal
    serves: tests.adversary.tasks.mortal:Mortal
    state: persistent
    window: 4
    heartbeat: {WATCH}
  caller: {run: servers.client, calls: [mute, mortal], start: demand}
"""
)


def hold(caller: Intruder, deadline_ns: int = 0) -> int:
    """A call that is never answered."""
    token, body = caller.named["mute"], wire.pack([])
    return caller.put(
        wire.CALL, flags=wire.ASYNC, opcode=HOLD, token=token, body=body, deadline_ns=deadline_ns
    )


def test_31_server_that_never_replies(make_world: WorldMaker) -> None:
    """Callers have their deadlines, in its queue too. It goes on: nobody said how long is long."""
    world = make_world(MUTE.replace("WATCH", "max_call_s: 3600"))
    caller = world.intrude("caller")
    deadline_ns = time.monotonic_ns() + 200_000_000
    calls = [hold(caller, deadline_ns) for _ in range(8)]
    assert caller.stub(Mortal, "mortal").total() == 0, "its caller goes on with others"
    late = caller.collect_all(calls)
    assert {m.status for m in late} == {Code.E_DEADLINE}
    assert {"with mute#1" in str(wire.unpack(m.body)[0]) for m in late} == {True, False}
    with pytest.raises(DeadlinePassed, match="in the queue of mute"):
        bind(Mortal, caller, caller.named["mute"], 0.1).total()
    assert (world.slot("mute").life, world.slot("mute").taken) == (1, 4)


def test_31_server_that_never_replies_and_is_watched(make_world: WorldMaker) -> None:
    world = make_world(MUTE.replace("WATCH", "max_call_s: 0.3"))
    caller = world.intrude("caller")
    held = hold(caller)
    assert world.alongside(lambda: caller.outcome(held)).status == Code.E_DEAD_UNKNOWN
    for kind in ("killed", "died"):
        world.told(kind, "mute#1", "has a call in hand for")
    world.ready("mute", 2)
    assert world.alongside(caller.stub(Mortal, "mute").total) == 0
    assert world.slot("mortal").life == 1


GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
HALVES = (b"", b"\xff", GREETING[:10], GREETING[:40], GREETING)  # ZMTP 3.1 §3.2
CONNECTIONS = 300


def connected(world: World, said: bytes = b"") -> socket.socket:
    """A stranger's line to the kernel on which somebody began to speak, or did not."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.connect(f"{world.system.run.path}/kernel")
    line.sendall(said)
    return line


def no_descriptor_is_lost(world: World, before: int) -> None:
    """The kernel has about as many as it had."""
    descriptors = kernel_process(world).num_fds
    world.until(lambda: descriptors() <= before + FEW, "the kernel to close what is over")


def test_32_half_open_connections(world: World) -> None:
    before = kernel_process(world).num_fds()
    with ExitStack() as stack:
        for said in islice(cycle(HALVES), CONNECTIONS):
            stack.enter_context(connected(world, said))
        world.until(
            lambda: kernel_process(world).num_fds() >= before + CONNECTIONS, "all to be accepted"
        )
        victim = world.intrude("victim")
        assert victim.stub(Echo, "echo").echo(b"one more") == b"one more"
        world.check()
    no_descriptor_is_lost(world, before)


def test_32_as_many_connections_as_a_task_can_have(make_world: WorldMaker) -> None:
    """It meets its own limit long before the kernel does, dies of it, and is named."""
    world = make_world("  crowd: {run: tests.adversary.tasks.crowd}\n")
    world.told("died", "crowd#1", "exit 1")
    world.ready("crowd", 2)
    assert "Too many open files" in world.logs()["crowd"]


def test_33_connect_and_disconnect_in_a_loop(world: World) -> None:
    ours, before = psutil.Process(), kernel_process(world).num_fds()
    ours_before = ours.num_fds()
    for said in islice(cycle(HALVES), CONNECTIONS):
        connected(world, said).close()
    for _ in range(50):
        with world.stranger() as line:
            line.send(b"nobody knows me")
            line.recv()
    for _ in range(50):
        attacker = world.intrude()
        kernel(attacker).region("mine", 4096, False)
        world.bury(attacker)
        attacker.close()
    no_descriptor_is_lost(world, before)
    assert world.slot("attacker").life == 50
    assert ours.num_fds() <= ours_before + FEW, "nor does the launcher lose any"


def test_34_capability_table_exhausted(world: World) -> None:
    """It is the attacker's that is full, and stays so when others give it more."""
    target, attacker, victim = (world.intrude(n) for n in ("target", "attacker", "victim"))
    target.serve()
    before = world.counter("caps")
    mint = partial(attacker.kernel("target").mint, CALL, 0)
    made = [mint() for _ in range(QUOTA.caps - len(attacker.named))]
    for _ in range(FEW):
        with pytest.raises(Overload, match=f"{attacker.who} has {QUOTA.caps} capabilities"):
            mint()
    more = put(attacker)
    number, given = target.delivered().seq, target.kernel("self").mint(CALL | GRANT, 1)
    target.put(wire.REPLY, seq=number, caps=(given,), body=NOTHING)
    assert attacker.outcome(more).status == Code.E_OVERLOAD
    assert victim.kernel("echo").mint(CALL, 0)
    kernel(attacker, made.pop()).delete()
    made.append(mint())
    assert (world.slot("attacker").caps, world.slot("attacker").errors) == (QUOTA.caps, FEW + 1)
    assert (world.slot("target").faults, world.slot("target").errors) == (0, 0)
    world.bury(attacker)
    assert world.counter("caps") < before + FEW


@pytest.mark.parametrize("size", [4096, 1 << 20], ids=["count", "bytes"])
@pytest.mark.parametrize("persistent", [False, True], ids=["of_a_life", "kept"])
def test_35_regions_until_there_are_no_more(
    make_world: WorldMaker, size: int, persistent: bool
) -> None:
    """What a life has goes with it, what is kept counts for the next."""
    world = make_world(f"""
  hoarder:
    run: tests.adversary.tasks.hoarder
    memory: 48MiB
    state: persistent
    args: {{size: {size}, persistent: {str(persistent).lower()}}}
    restart: {{max_restarts: 2, backoff: {{first_ms: 0}}}}
""")
    before = kernel_process(world).num_fds()
    world.told("failed", "hoarder", "exit 1")
    why = "may have 50331648 bytes of regions" if size > 4096 else "has 64 objects"
    assert world.logs()["hoarder"].count(f"hoarder#3: hoarder#3 {why}") == 1
    row = world.slot("hoarder")
    most = min(QUOTA.objects, 50331648 // size)
    assert (row.life, row.regions) == (3, most if persistent else 0)
    assert row.region_bytes == row.regions * size
    no_descriptor_is_lost(world, before + row.regions)


def processes_of(world: World, name: str) -> list[int]:
    """A task and all that it has forked, wherever they went."""
    mark = str(world.system.run.path)
    every = [p.info for p in psutil.process_iter(["pid", "name", "environ"])]
    return [p["pid"] for p in every if p["name"] == name and (p["environ"] or {}).get(MARK) == mark]


def test_36_fork_bomb(make_world: WorldMaker) -> None:
    """Nothing of it outlives the server."""
    world = make_world("  bomb: {run: tests.adversary.tasks.bomb}\n")
    exploded = world.until(lambda: all_of(world), "the explosion")
    world.system.signal("bomb", signal.SIGKILL)
    world.told("died", "bomb#1", "SIGKILL")
    world.ready("bomb", 2)
    world.until(lambda: gone(exploded), "the end of all that it had forked")
    assert processes_of(world, "bomb") == [world.slot("bomb").pid]


def all_of(world: World) -> list[int]:
    found = processes_of(world, "bomb")
    return found if len(found) == bomb.PROCESSES else []


def test_36_fork_bomb_in_a_server_with_limited_memory(make_world: WorldMaker) -> None:
    """What it forks is its own, so the launcher ends it by itself."""
    world = make_world("  bomb: {run: tests.adversary.tasks.bomb, memory: 128MiB}\n")
    for kind in ("killed", "died"):
        world.told(kind, "bomb#1", "bytes of memory, and may have 134217728")
    world.ready("bomb", 2)
    alone = [world.slot("bomb").pid]
    world.until(lambda: processes_of(world, "bomb") == alone, "the end of all that it had forked")


LEAKS = {
    glutton.SLOWLY: ("killed", "bytes of memory, and may have 67108864"),
    glutton.AT_ONCE: ("died", "met its memory limit"),
}


@pytest.mark.parametrize("how", LEAKS)
def test_36_memory_leak(make_world: WorldMaker, how: str) -> None:
    kind, why = LEAKS[how]
    world = make_world(
        f"  glutton: {{run: tests.adversary.tasks.glutton, memory: 64MiB, args: {{how: {how}}}}}\n"
    )
    world.told(kind, "glutton#1", why)
    world.told("died", "glutton#1", why)
    world.ready("glutton", 2)
    assert world.system.task("glutton").restarts == 1
    status = world.system.task("glutton").status
    assert status == (OUT_OF_MEMORY if how == glutton.AT_ONCE else -signal.SIGKILL)


def test_36_memory_leak_without_end(make_world: WorldMaker) -> None:
    """Whoever of the two sees it first, it is named."""
    world = make_world(
        "  glutton: {run: tests.adversary.tasks.glutton, memory: 64MiB, args: {how: in_pieces}}\n"
    )
    assert "memory" in world.told("died", "glutton#1").text
    world.ready("glutton", 2)


def test_37_log_flood(make_world: WorldMaker) -> None:
    world = make_world("  babbler: {run: tests.adversary.tasks.babbler}\n")
    log = world.system.run.log("babbler")
    world.told("log", "babbler", "its log was cut, at")
    world.until(lambda: len([e for e in world.events if e.kind == "log"]) >= 3, "two more cuts")
    before = world.slot("witness").calls
    world.until(lambda: world.slot("witness").calls > before + FEW, "answers for the witness")
    assert world.slot("babbler").life == 1, "to say much is no crime"
    world.system.stop("babbler")
    world.until(lambda: world.slot("babbler").state == STOPPED, "silence")
    world.until(lambda: log.stat().st_size <= LOG_LIMIT, "the log to be short")
    assert "bytes are cut here" in log.read_text()


def append_without_end(file: File, box: Region) -> None:
    for number in count():
        file.write(number * full_host.SIZE, box.show(0, full_host.SIZE))


def test_38_volume_full(make_world: WorldMaker) -> None:
    """NoSpace, the file as it was; and whoever removes something goes on."""
    world = make_world(full_host.FILES)
    attacker = world.intrude()
    files = attacker.stub(FileSystem, "fs")
    box = Region(attacker, "box", full_host.SIZE)
    box.view[:] = os.urandom(full_host.SIZE)
    kept, big = files.open("/kept", CREATE), files.open("/big", CREATE)
    kept.write(0, box.show(0, full_host.SIZE))
    with pytest.raises(NoSpace, match="/big: the volume is full; remove something"):
        append_without_end(big, box)
    size = big.stat().size
    before = bytes(box.view)
    box.view[:] = bytes(full_host.SIZE)
    with pytest.raises(NoSpace):
        kept.write(0, box.show(0, full_host.SIZE))
    assert (kept.stat().size, big.stat().size) == (full_host.SIZE, size)
    assert size % full_host.SIZE == 0
    for file in (kept, big):
        assert file.read(0, box.lend(0, full_host.SIZE)) == full_host.SIZE
        assert box.view == before
    files.remove("/big")
    assert kept.write(0, box.show(0, 1)) == 1
    assert world.slot("fs").life == 1


def may_mount() -> bool:
    """Whether this process is root with all that belongs to it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    return bool(int(status["CapEff"], 16) >> CAP_SYS_ADMIN & 1)


def full_as_planned(folder: Path) -> tuple[int, int]:
    """The image has no room, now and then: says the machine."""

    def fill(world: World) -> None:
        faults = world.system.reach(DeviceFaults, "machine")
        faults.break_device("disk0", NO_ROOM, 0, 0.2, 38)

    def free(world: World) -> None:
        world.system.reach(DeviceFaults, "machine").mend()

    ledger = full_host.endure(folder, fill, free)
    return ledger.refusals, len(ledger.acknowledged)


def full_for_real(_: Path) -> tuple[int, int]:
    """The file system that holds image, logs and sockets is full."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.adversary.tasks.full_host"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refusals, acknowledged = json.loads(done.stdout)
    return refusals, acknowledged


HOSTS: dict[str, Callable[[Path], tuple[int, int]]] = (
    {"full_as_planned": full_as_planned, "full_for_real": full_for_real}
    if may_mount()
    else {"full_as_planned_and_for_real_only_if_run_by_root": full_as_planned}
)


@pytest.mark.parametrize("host", HOSTS)
def test_38_host_is(
    runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Errors, and nothing that was acknowledged is lost, not even by a power cut."""
    monkeypatch.chdir(ROOT)
    refusals, acknowledged = HOSTS[host](tmp_path)
    assert refusals > 0
    assert acknowledged >= full_host.KEPT
