"""Objects that the system file gives: partitions of a disk, ports of a switch. Real processes.

Whoever holds one reaches that one, at any length and offset that it names; deaths of those below
are waited for, or cost frames.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.config import load
from launcher.system import System
from tests.adversary.world import Intruder, World, linked
from tests.conftest import own_runtime_dir
from tests.journey.world import wait_for
from ukernel.abi.errors import CallError, Denied, Overload, Protocol
from ukernel.abi.network import Ethernet, Network, TooLong
from ukernel.abi.services import SECTOR, Block, FileSystem, OutOfRange
from ukernel.abi.syscalls import READY
from ukernel.abi.virtio import NET_HEADER_BYTES
from ukernel.lib.memory import Region
from ukernel.lib.stub import begin

AT_ONCE = "restart: {max_restarts: 1000, backoff: {first_ms: 0}}"
LATER = "start: demand"
SYSTEM = f"""
system: objects
hardware:
  disk0: {{model: virtio-blk, image: d.img, size: 1MiB}}
  out: {{model: virtio-net, backend: wire, wire: w}}
  far: {{model: virtio-net, backend: wire, wire: w, offload: false}}
servers:
  echo: {{run: servers.echo, serves: echo}}
  witness: {{run: tests.adversary.tasks.witness, calls: [echo]}}
  disk: {{run: servers.disk, serves: block, devices: [disk0], {AT_ONCE}}}
  nic: {{run: servers.nic, serves: ethernet, devices: [out], window: 64, {AT_ONCE}}}
  other: {{run: servers.nic, serves: ethernet, devices: [far], window: 64}}
  parts:
    run: servers.partitions
    serves: block
    calls: [{{disk: {{via: channel}}}}]
    window: 64
    args: {{parts: [64KiB, 32KiB]}}
    {AT_ONCE}
  switch:
    run: servers.switch
    serves: ethernet
    calls: [{{nic: {{via: channel}}}}]
    window: 64
    args: {{ports: 4}}
    {AT_ONCE}
  middle:
    run: servers.interposer
    serves: block
    calls: [{{parts: {{badge: 2}}}}]
    args: {{to: parts, serves: block, badge: 2}}
  d: {{run: servers.client, {LATER}, calls: [{{middle: {{badge: 2}}}}]}}
  a: {{run: servers.client, {LATER}, calls: [{{parts: {{badge: 1}}}}, {{switch: {{badge: 1}}}}]}}
  b: {{run: servers.client, {LATER}, calls: [{{parts: {{badge: 2}}}}, {{switch: {{badge: 2}}}}]}}
  c: {{run: servers.client, {LATER}, calls: [{{parts: {{badge: 3}}}}, {{switch: {{badge: 9}}}}]}}
  whole: {{run: servers.client, {LATER}, calls: [parts, switch]}}
  beyond: {{run: servers.client, {LATER}, calls: [other]}}
"""
BROADCAST = b"\xff" * 6
BOX = 2048


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("objects")
    (folder / "system.yaml").write_text(SYSTEM)
    with own_runtime_dir():
        made = World(System(load(folder / "system.yaml")))
        yield made
        made.check()
        made.close()


class Party:
    """A client, with memory to lend."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.task: Intruder = world.intrude(name)
        self.memory = Region(self.task, "mine", 128 << 10)

    def disk(self, by_channel: bool = False) -> Any:
        if by_channel:
            return linked(self.task, Block, self.task.named["parts"])
        return self.task.stub(Block, "parts")

    def port(self, of: str = "switch", by_channel: bool = False) -> Any:
        if by_channel:
            return linked(self.task, Ethernet, self.task.named[of])
        return self.task.stub(Ethernet, of)

    def send(self, port: Any, frame: bytes, at: int = 64 << 10) -> None:
        whole = bytes(NET_HEADER_BYTES) + frame
        self.memory.view[at : at + len(whole)] = whole
        port.transmit(self.memory.show(at, len(whole)), self.memory.show(0, 0))

    def listen(self, port: Any, box: int = 0) -> Any:
        return begin(port.receive, self.memory.lend(box * BOX, BOX))

    def heard(self, call: Any, box: int = 0) -> bytes:
        length = self.world.alongside(call.result)
        whole = bytes(self.memory.view[box * BOX : box * BOX + length])
        return whole[NET_HEADER_BYTES:]

    def leave(self) -> None:
        self.world.bury(self.task)


@pytest.fixture
def party(world: World) -> Iterator[Any]:
    made: list[Party] = []

    def make(name: str) -> Party:
        made.append(Party(world, name))
        return made[-1]

    yield make
    for each in made:
        if each.task.task.control is not None:
            each.leave()


def kill(world: World, name: str) -> None:
    task = world.system.task(name)
    assert task.process is not None
    life = task.life + 1
    os.kill(task.process.pid, signal.SIGKILL)
    world.ready(name, life)


# --- partitions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("by_channel", [False, True])
def test_each_sees_its_own_sectors_and_no_others(party: Any, by_channel: bool) -> None:
    a, b = party("a"), party("b")
    of_a, of_b = a.disk(by_channel), b.disk(by_channel)
    assert (of_a.capacity(), of_b.capacity()) == (128, 64)
    a.memory.view[: 64 << 10] = b"a" * (64 << 10)
    b.memory.view[: 32 << 10] = b"b" * (32 << 10)
    assert of_a.write(0, a.memory.show(0, 64 << 10)) == 64 << 10
    assert of_b.write(0, b.memory.show(0, 32 << 10)) == 32 << 10
    of_a.flush()
    assert of_a.read(0, a.memory.lend(0, 64 << 10)) == 64 << 10
    assert bytes(a.memory.view[: 64 << 10]) == b"a" * (64 << 10)
    for first, length in (
        (127, 2 * SECTOR),
        (128, SECTOR),
        ((1 << 64) - 1, SECTOR),
        (0, 0),
        (0, 5),
    ):
        with pytest.raises(OutOfRange):
            of_a.read(first, a.memory.lend(0, length))
    with pytest.raises(OutOfRange):
        of_a.discard(0, (1 << 64) - 1)
    with pytest.raises(CallError):
        of_a.read(0, a.memory.lend(120 << 10, 64 << 10))  # more than it has lent
    assert of_b.read(0, b.memory.lend(0, 32 << 10)) == 32 << 10
    assert bytes(b.memory.view[: 32 << 10]) == b"b" * (32 << 10)


def test_nobody_has_the_whole_nor_what_is_not_there(party: Any) -> None:
    whole, c = party("whole"), party("c")
    with pytest.raises(Denied, match="parts is called for one partition"):
        whole.disk().capacity()
    with pytest.raises(Denied, match="switch is called for one of its ports"):
        whole.port().card()
    for call in (c.disk().capacity, c.port().card):
        with pytest.raises(Protocol, match="knows no object with badge"):
            call()
    with pytest.raises(Denied):
        c.task.kernel("parts").mint(4, 1)  # CALL


def test_an_interposer_stands_for_one_object(party: Any) -> None:
    d = party("d")
    assert d.task.stub(Block, "middle").capacity() == 64
    assert linked(d.task, Block, d.task.named["middle"]).capacity() == 64


@pytest.mark.parametrize("victim", ["disk", "parts"])
def test_a_death_below_is_waited_for(world: World, party: Any, victim: str) -> None:
    """Calls that it cuts short are made again, here or by `parts`."""
    a = party("a")
    disk, memory = a.disk(), a.memory
    memory.view[:SECTOR] = b"\x07" * SECTOR
    calls = [begin(disk.write, sector, memory.show(0, SECTOR)) for sector in range(100)]
    kill(world, victim)

    def outcomes() -> list[Any]:
        return [call.result() for call in calls]

    assert world.alongside(outcomes) == [SECTOR] * 100
    assert world.alongside(lambda: disk.read(99, memory.lend(4096, SECTOR))) == SECTOR
    assert bytes(memory.view[4096 : 4096 + SECTOR]) == b"\x07" * SECTOR


# --- the switch ----------------------------------------------------------------------------------


def test_a_frame_goes_where_its_address_is(party: Any) -> None:
    a, b = party("a"), party("b")
    to_a, to_b = a.port(by_channel=True), b.port()
    card_a, card_b = to_a.card(), to_b.card()
    assert (card_a.mtu, card_a.offloads, card_a.mac != card_b.mac) == (1500, 0, True)
    waits = b.listen(to_b)
    a.send(to_a, card_b.mac + card_a.mac + b"\x88\xb5to b")
    assert b.heard(waits).endswith(b"to b")
    a.send(to_a, BROADCAST + card_a.mac + b"\x88\xb5to all")  # nobody waits: it is kept
    assert b.heard(b.listen(to_b)).endswith(b"to all")
    waits = a.listen(to_a)
    b.send(to_b, card_a.mac + card_a.mac + b"\x88\xb5as if from a")
    b.send(to_b, card_a.mac + card_b.mac + b"\x88\xb5from b")
    assert a.heard(waits).endswith(b"from b")
    waits.forget()


def test_what_is_no_frame_is_refused(party: Any) -> None:
    a = party("a")
    port, memory = a.port(), a.memory
    with pytest.raises(Protocol, match="a header of 3 bytes"):
        port.transmit(memory.show(0, 3), memory.show(0, 0))
    with pytest.raises(Protocol, match="a frame of 1 bytes"):
        port.transmit(memory.show(0, 13), memory.show(0, 0))
    with pytest.raises(TooLong):
        port.transmit(memory.show(0, 12), memory.show(0, 9000))
    memory.view[:12] = b"\x01" + bytes(11)  # a checksum to complete
    with pytest.raises(Protocol, match="not agreed"):
        port.transmit(memory.show(0, 112), memory.show(0, 0))
    with pytest.raises(Protocol):
        port.transmit(memory.show(127 << 10, 100), memory.show(127 << 10, 1400))
    with pytest.raises(Protocol, match="for reading only"):
        port.receive(memory.show(0, 2048))


def test_waiting_at_one_port_keeps_nobody_from_another(party: Any) -> None:
    a, b = party("a"), party("b")
    to_a, to_b = a.port(), b.port()
    waiting = [begin(to_a.receive, a.memory.lend(0, BOX)) for _ in range(100)]
    card = to_b.card()
    b.send(to_b, BROADCAST + card.mac + b"\x88\xb5still here")
    assert waiting[0].result() == NET_HEADER_BYTES + 14 + len("still here")
    with pytest.raises(Overload):
        waiting[-1].result()
    for call in waiting[1:-1]:
        call.forget()


def test_the_next_holder_of_a_port_gets_its_frames(world: World, party: Any) -> None:
    a, b = party("a"), party("b")
    a.listen(a.port())
    world.bury(a.task)
    again, to_b = party("a"), b.port()
    waits = again.listen(again.port())
    again.task.sync()
    b.send(to_b, again.port().card().mac + to_b.card().mac + b"\x88\xb5for the living")
    assert again.heard(waits).endswith(b"for the living")


def test_frames_go_out_and_come_in_by_the_uplink_whoever_dies(world: World, party: Any) -> None:
    a, beyond = party("a"), party("beyond")
    port, far = a.port(), beyond.port("other")
    mine, theirs = port.card().mac, far.card().mac

    def there_and_back() -> None:
        a.send(port, BROADCAST + mine + b"\x88\xb5out")
        while not beyond.heard(beyond.listen(far)).endswith(b"out"):
            pass  # an older one
        beyond.send(far, mine + theirs + b"\x88\xb5in")
        while not a.heard(a.listen(port)).endswith(b"in"):
            pass

    there_and_back()
    kill(world, "nic")
    a.task.sync()
    world.until(lambda: world.slot("nic").first_reply_ns > 0, "the switch has found its card")
    there_and_back()
    waits = a.listen(port)
    kill(world, "switch")
    assert world.alongside(port.card).mac == mine  # the same port as ever
    waits.forget()
    there_and_back()


# --- wherever they live --------------------------------------------------------------------------

TENANTS = f"""
system: tenants
hardware:
  disk0: {{model: virtio-blk, image: d.img, size: 8MiB}}
  nic0: {{model: virtio-net, backend: switch, switch: s}}
servers:
  disk: {{run: servers.disk, serves: block, devices: [disk0], {AT_ONCE}}}
  nic: {{run: servers.nic, serves: ethernet, devices: [nic0], window: 64, {AT_ONCE}}}
  parts:
    run: servers.partitions
    serves: block
    calls: [disk]
    args: {{parts: [1MiB, 4MiB]}}
    {AT_ONCE}
  switch: {{run: servers.switch, serves: ethernet, calls: [nic], window: 64, {AT_ONCE}}}
  fs:
    run: servers.fs
    serves: file
    calls: [{{parts: {{badge: 2}}}}]
    state: persistent
    args: {{disk: parts, format_if_blank: true}}
    {AT_ONCE}
  net:
    run: servers.net
    serves: net
    calls: [{{switch: {{badge: 3}}}}]
    window: 64
    state: persistent
    args: {{address: 10.0.0.2/24, connections: 8}}
    {AT_ONCE}
"""


@pytest.mark.parametrize("placement", ["micro", "mono"])
def test_a_partition_is_a_disk_and_a_port_is_a_card(
    tmp_path: Path, runtime_dir: Path, placement: str
) -> None:
    (tmp_path / "system.yaml").write_text(TENANTS)
    with System(load(tmp_path / "system.yaml"), placement=placement) as system:
        system.boot()
        system.reach(FileSystem, "fs").mkdir("/kept")
        before = system.reach(Network, "net").interfaces()
        card = system.reach(Ethernet, "switch", 3).card()
        assert [(row.mac, row.up) for row in before] == [(card.mac, True)]
        life = system.task("disk").life + 1
        system.signal("disk", signal.SIGKILL)
        ready = [system.task(name) for name in ("disk", "parts", "fs", "net")]
        wait_for(system, lambda: ready[0].life == life and all(t.state == READY for t in ready))
        kept = system.reach(FileSystem, "fs").entries("/", 0)
        assert [entry.name for entry in kept] == ["kept"]
        assert system.reach(Block, "parts", 2).capacity() == (4 << 20) // SECTOR
        assert system.reach(Block, "disk").capacity() == (8 << 20) // SECTOR
