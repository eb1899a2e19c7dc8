"""56, from the other side: a client that takes back what it lent while the device works in it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Iterator

import pytest

from launcher.board import MACHINE
from tests.adversary.conftest import WorldMaker
from tests.adversary.world import World, own_opcode
from ukernel.abi import wire
from ukernel.abi.errors import Answer, CallError, Code
from ukernel.abi.faults import DeviceFaults
from ukernel.abi.services import SECTOR, Block
from ukernel.lib.connection import error_of
from ukernel.lib.memory import Region
from ukernel.lib.stub import kernel

SYSTEM = """
  disk: {run: servers.disk, serves: block, devices: [disk0], window: 64}
  thief: {run: servers.client, calls: [disk], start: demand}
  honest: {run: servers.client, calls: [disk], start: demand}
hardware: {disk0: {model: virtio-blk, image: disk.img, size: 1MiB}}
"""
SECTORS = 64
BURST = 8  # requests that are on their way when the memory goes
ROUNDS = 8
WINDOW = 64
READ, WRITE = own_opcode(Block, "read"), own_opcode(Block, "write")


class Honest:
    """Reads what it wrote, and it is always right."""

    def __init__(self, world: World) -> None:
        client = world.intrude("honest")
        self.block = client.stub(Block, "disk")
        self.box = Region(client, "box", SECTORS * SECTOR)
        self.written = random.Random(1).randbytes(SECTORS * SECTOR)
        self.box.view[:] = self.written
        self.block.write(0, self.box.lend(0, SECTORS * SECTOR))

    def is_served(self) -> None:
        self.box.view[:] = bytes(SECTORS * SECTOR)
        self.block.read(0, self.box.lend(0, SECTORS * SECTOR))
        assert self.box.view == self.written


class Thief:
    """Lends its memory, and takes it back when the device is about to touch it."""

    def __init__(self, world: World) -> None:
        self.task = world.intrude("thief")
        self.block = self.task.stub(Block, "disk")
        self.region = Region(self.task, "loot", SECTORS * SECTOR)

    def lend_anew(self, written: bytes) -> None:
        """Its memory is mapped for the device again, both ways, and serves it as it should."""
        self.region.view[:] = bytes(SECTORS * SECTOR)
        self.block.read(0, self.region.lend(0, SECTORS * SECTOR))
        assert self.region.view == written
        self.block.write(SECTORS, self.region.lend(0, SECTORS * SECTOR))

    def begin(self, opcode: int, count: int = BURST) -> list[int]:
        """Requests on their way. Writes go where nobody else has anything."""
        first = 0 if opcode == READ else SECTORS
        body = wire.pack([first, (0, 0, SECTORS * SECTOR)])
        return [
            self.task.put(
                wire.CALL, flags=wire.ASYNC, opcode=opcode, token=self.task.named["disk"],
                caps=(self.region.token,), body=body,
            )
            for _ in range(count)
        ]  # fmt: skip

    def take_back(self) -> None:
        kernel(self.task, self.region.token).revoke()

    def failures(self, numbers: list[int]) -> list[Answer | CallError]:
        replies = self.task.collect_all(numbers)
        return [error_of(reply) for reply in replies if reply.status != Code.OK]


@contextlib.contextmanager
def stopped(world: World) -> Iterator[None]:
    """The driver does nothing meanwhile."""
    process = world.system.task("disk").process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("opcode", [READ, WRITE], ids=["read", "write"])
def test_56_a_client_cannot_end_its_driver(make_world: WorldMaker, opcode: int) -> None:
    world = make_world(SYSTEM)
    honest, thief = Honest(world), Thief(world)
    for _ in range(ROUNDS):
        thief.lend_anew(honest.written)
        racing = thief.begin(opcode)
        thief.take_back()
        honest.is_served()
        thief.failures(racing)
        thief.lend_anew(honest.written)
        with stopped(world):  # what it has not asked the device for when the memory goes
            too_late = thief.begin(opcode)
            thief.take_back()
            world.system.reach(DeviceFaults, MACHINE).broken()  # it has been told by now
        honest.is_served()
        assert len(thief.failures(too_late)) == BURST
    disk = world.slot("disk")
    assert (disk.life, world.slot("machine").life) == (1, 1)
    assert disk.faults > 0, "the device met memory that was gone, and its driver is told so"
    assert "disk0: driver disk: DMA of" in world.logs()["machine"]


def test_a_full_window_of_requests_fits_into_the_ring(make_world: WorldMaker) -> None:
    """As many at once as the kernel ever delivers to one server."""
    world = make_world(SYSTEM)
    honest, client = Honest(world), Thief(world)
    with stopped(world):
        numbers = client.begin(READ, 3 * WINDOW)
    assert client.failures(numbers) == []
    assert client.region.view == honest.written
    assert world.slot("disk").life == 1
