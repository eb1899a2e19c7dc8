"""What a virtual machine holds, said three times: read from the file, counted in the kernel, and
seen by Linux in its process. All agree that nothing of it leads to another's disk, console or
memory; and whoever is in its place, and tries, gets no further."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from launcher.board import MACHINE
from launcher.config import load
from launcher.system import System
from tests.adversary.world import Intruder, World
from tests.conftest import CONFIGS, own_runtime_dir
from ukernel.abi import wire
from ukernel.abi.errors import CallError, Code, Denied
from ukernel.abi.network import Ethernet
from ukernel.abi.services import SECTOR, Block, OutOfRange
from ukernel.abi.syscalls import CALL, CapRow
from ukernel.abi.virtio import NET_HEADER_BYTES
from ukernel.abi.vm import VirtualMachine
from ukernel.lib.memory import Region
from ukernel.lib.stub import begin, bind, kernel

MIB = 1 << 20
A, B = "vm-a", "vm-b"
IN_ITS_PLACE = """
  as-a:
    run: servers.client
    calls: [{parts: {badge: 2}}, {switch: {badge: 2}}]
    start: demand
  as-b:
    run: servers.client
    calls: [{parts: {badge: 3}}, {switch: {badge: 3}}]
    start: demand

vms:"""
CHUNK = 128 << 10  # bytes of one request
U64 = (1 << 64) - 1


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """configs/cloud.yaml, and two tasks that have what two of its machines have. Its card is on a
    cable of its own: not every host gives a network namespace."""
    path = tmp_path_factory.mktemp("cloud") / "cloud.yaml"
    text = (CONFIGS / "cloud.yaml").read_text()
    text, cables = re.subn(
        "backend: userns, host_address: [0-9./]+", "backend: switch, switch: s", text
    )
    assert (cables, text.count("\nvms:")) == (1, 1)
    path.write_text(text.replace("\nvms:", IN_ITS_PLACE))
    with own_runtime_dir():
        world = World(System(load(path)))
        try:
            yield world
            assert world.logs()["kernel"] == ""
        finally:
            world.close()


# --- what the file says, and the kernel ----------------------------------------------------------


@pytest.fixture(scope="module")
def said(world: World) -> dict[str, Any]:
    """The answer of `ukernel blast`, which starts nothing."""
    path = str(world.system.file.path)
    command = [sys.executable, "-m", "launcher.cli", "blast", A, path, "--json"]
    found: dict[str, Any] = json.loads(subprocess.check_output(command, timeout=20))
    return found


def of(rows: list[CapRow], name: str) -> list[CapRow]:
    return [row for row in rows if row.holder.partition("#")[0] == name]


def objects(rows: list[CapRow], name: str) -> set[str]:
    """What of others a task may call: `parts:2`."""
    return {
        f"{row.object}:{row.badge}" if row.badge else row.object
        for row in of(rows, name)
        if row.kind == "endpoint" and row.object != name
    }


def memory(rows: list[CapRow], name: str) -> set[int]:
    """The regions that a task has a capability for, by the number of the region itself."""
    parents = {row.number: row.parent for row in rows}

    def root(number: int) -> int:
        while parents[number]:
            number = parents[number]
        return number

    return {root(row.number) for row in of(rows, name) if row.kind == "region"}


def below(world: World) -> set[str]:
    """By whom requests of A go, with memory that it lends: down to the machine, which fills it."""
    servers = world.system.file.manifest.servers
    found, waiting = {MACHINE}, [A]
    while waiting:
        found |= {*(calls := servers[waiting.pop()].calls)}
        waiting += calls
    return found


def test_the_file_and_the_kernel_agree(world: World, said: dict[str, Any]) -> None:
    rows = world.system.caps()
    assert objects(rows, A) == {*said["holds"]} == {"parts:2", "switch:2"}
    assert B in said["untouched"]
    assert {row.kind for row in of(rows, A)} == {"endpoint", "region"}
    for other in (name for name, row in world.system.slots().items() if row.pid and name != A):
        both = objects(rows, A) & objects(rows, other)
        assert both == {what for what, holders in said["holds"].items() if other in holders}
        if other not in below(world):
            assert not memory(rows, A) & memory(rows, other), other


def test_one_object_is_not_another(world: World) -> None:
    """Where the objects lie: sectors of one partition are no sectors of another."""
    sizes = world.system.file.manifest.servers["parts"].args["parts"]
    assert isinstance(sizes, list)
    for badge, size in enumerate(sizes, 1):
        stub = world.system.reach(Block, "parts", badge)
        assert stub.capacity() * SECTOR == int(str(size).removesuffix("MiB")) * MIB
    macs = [world.system.reach(Ethernet, "switch", port).card().mac for port in (1, 2, 3, 4)]
    assert len({*macs}) == 4


# --- what Linux says ------------------------------------------------------------------------------


class Process(NamedTuple):
    """What a process has mapped, and what its descriptors are."""

    maps: set[str]  # shared memory, by its inode
    open: set[str]


def seen_in(pid: int) -> Process:
    maps = Path(f"/proc/{pid}/maps").read_text()
    shared = re.findall(r"^\S+ \S+ \S+ \S+ (\d+)\s+(?:/memfd:|/dev/shm/).*$", maps, re.M)
    opened = (_identity(pid, fd) for fd in os.listdir(f"/proc/{pid}/fd"))
    return Process({*shared}, {what for what in opened if what})


def _identity(pid: int, fd: str) -> str:
    """What a descriptor stands for; empty for what only its own process can have, or everybody."""
    what = os.readlink(f"/proc/{pid}/fd/{fd}")
    if "eventfd" in what:
        info = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
        found = re.search(r"eventfd-id:\s*(\d+)", info)
        assert found, info
        return f"eventfd {found[1]}"
    return "" if what == "/dev/null" or what.startswith("anon_inode") else what


def test_linux_agrees(world: World, said: dict[str, Any]) -> None:
    """Nobody has anything of its process but those by whom its requests go, and the kernel."""
    rows = world.system.slots()
    pids = {name: row.pid for name, row in rows.items() if row.pid and row.pid != os.getpid()}
    found = {name: seen_in(pid) for name, pid in pids.items()}
    mine = found.pop(A)
    assert len(mine.maps) > 5
    assert len(mine.open) > 5
    assert below(world) == {"parts", "switch", "disk", "nic", MACHINE}
    for name, theirs in found.items():
        if name not in below(world):
            assert not mine.maps & theirs.maps, name
            assert not mine.open & theirs.open, name
    called = {what.partition(":")[0] for what in said["holds"]}
    assert all(mine.maps & found[name].maps for name in called), "there is something to see"
    assert all(mine.open & found[name].open for name in called)


# --- who is in its place --------------------------------------------------------------------------


class Holder:
    """The test as a task that has what a virtual machine has."""

    def __init__(self, world: World, name: str) -> None:
        self.task: Intruder = world.intrude(name)
        self.disk = self.task.stub(Block, "parts")
        self.port = self.task.stub(Ethernet, "switch")
        self.memory = Region(self.task, "mine", 2 * CHUNK)

    def send(self, frame: bytes) -> None:
        whole = bytes(NET_HEADER_BYTES) + frame
        self.memory.view[: len(whole)] = whole
        self.port.transmit(self.memory.show(0, len(whole)), self.memory.show(0, 0))


@pytest.fixture(scope="module")
def quiet(world: World) -> Iterator[World]:
    """The machines stand still: what changes on the disk now, others have changed."""
    for name in (A, B):
        world.system.reach(VirtualMachine, name).pause()
    yield world
    for name in (A, B):
        world.system.reach(VirtualMachine, name).resume()


@pytest.fixture(scope="module")
def as_a(quiet: World) -> Holder:
    return Holder(quiet, "as-a")


@pytest.fixture(scope="module")
def as_b(quiet: World) -> Holder:
    return Holder(quiet, "as-b")


def image(world: World) -> bytes:
    return (world.system.file.path.parent / "cloud.img").read_bytes()


def starts(disk: int, own: int) -> set[int]:
    """Sectors, as `as-a` counts them, at and around which something begins that is not its own."""
    edges = [own, *range(own, disk, 997), disk, 1 << 32, 1 << 63, U64]
    return {min(U64, max(own, edge + step)) for edge in edges for step in (-1, 0, 1)}


def test_no_sector_of_another_can_be_named(quiet: World, as_a: Holder) -> None:
    own, whole = as_a.disk.capacity(), 64 * MIB // SECTOR
    first, last = 32 * MIB, 32 * MIB + own * SECTOR
    as_a.disk.flush()
    before = image(quiet)
    as_a.memory.view[:] = b"\xa5" * len(as_a.memory.view)
    for sector in range(0, own, CHUNK // SECTOR):
        assert as_a.disk.write(sector, as_a.memory.show(0, CHUNK)) == CHUNK
    window = as_a.memory.lend(CHUNK, SECTOR)
    as_a.memory.view[CHUNK:] = bytes(CHUNK)
    tries: list[Callable[[int], Any]] = [
        lambda sector: begin(as_a.disk.read, sector, window),
        lambda sector: begin(as_a.disk.write, sector, window),
        lambda sector: begin(as_a.disk.discard, sector, 1),
        lambda sector: begin(as_a.disk.discard, sector, U64),
    ]
    for sector in starts(whole, own):
        for call in [attempt(sector) for attempt in tries]:
            with pytest.raises(OutOfRange):
                call.result()
    for sector in (own - 1, 0):  # it begins with one's own, and ends with another's
        with pytest.raises(OutOfRange):
            as_a.disk.discard(sector, own + 1)
    with pytest.raises(OutOfRange):
        as_a.disk.write(own - 1, as_a.memory.show(CHUNK, 2 * SECTOR))
    assert not any(as_a.memory.view[CHUNK:]), "nothing was read either"
    as_a.disk.flush()
    after = image(quiet)
    assert after[first:last] == b"\xa5" * (last - first)
    assert after[:first] == before[:first]
    assert after[last:] == before[last:]


def test_no_capability_of_another_can_be_had(quiet: World, as_a: Holder, as_b: Holder) -> None:
    task, own = as_a.task, as_a.disk.capacity()
    assert {*task.named} == {"self", "parts", "switch"}
    for name in ("parts", "switch"):
        for badge in (1, 3, 4, 1 << 63, U64):
            with pytest.raises(Denied):
                task.kernel(name).mint(CALL, badge)
        again = kernel(task, task.kernel(name).mint(CALL, 0)).describe()
        assert (again.name, again.badge) == (name, 2), "badge 0 is no way to the whole"
    dice = random.Random(3)
    guessed = [dice.randbytes(wire.TOKEN_SIZE) for _ in range(200)]
    leaked = [*as_b.task.named.values(), as_b.memory.token]
    for token in [*guessed, *leaked]:
        for interface, call in ((Block, "capacity"), (VirtualMachine, "status")):
            with pytest.raises(CallError) as refused:
                getattr(bind(interface, task, token), call)()
            assert refused.value.code == Code.E_DENIED
        with pytest.raises(CallError):
            as_a.disk.read(0, as_a.memory.lend(0, SECTOR)._replace(token=token))
    for name in (B, A, "disk", "nic", "fs", "net", "console"):
        with pytest.raises(Denied, match=f"as-a may not use {name}"):
            task.capability(name)
    assert as_a.disk.capacity() == own


def test_no_frame_of_another_can_be_taken_or_sent(as_a: Holder, as_b: Holder) -> None:
    """Whoever pretends to be the other is not believed, and does not get what is the other's."""
    mine, theirs = as_a.port.card().mac, as_b.port.card().mac
    assert mine != theirs
    heard_by_b = begin(as_b.port.receive, as_b.memory.lend(CHUNK, 2048))
    heard_by_a = begin(as_a.port.receive, as_a.memory.lend(CHUNK, 2048))
    as_a.send(b"\xff" * 6 + theirs + b"\x88\xb5as if from b")
    as_a.send(theirs + theirs + b"\x88\xb5as if from b")
    as_b.send(theirs + mine + b"\x88\xb5as if from a")
    as_b.send(mine + theirs + b"\x88\xb5to a")
    as_a.send(theirs + mine + b"\x88\xb5to b")
    length = heard_by_b.result()
    assert bytes(as_b.memory.view[CHUNK : CHUNK + length]).endswith(b"to b")
    length = heard_by_a.result()
    assert bytes(as_a.memory.view[CHUNK : CHUNK + length]).endswith(b"to a")
