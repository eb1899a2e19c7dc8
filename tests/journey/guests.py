"""guests: virtual machines of a running system, as their users have them."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.adversary.world import World
from ukernel.abi.vm import VirtualMachine, VmStatus
from ukernel.lib.memory import Region

PERIODS = 10  # of 10 ms, in a line of the heartbeat
SNAPSHOT_PERIODS = 20
LATE = 30  # periods, that anything may be late on a busy machine
TICKS = 100_000  # of the guest's clock, in a period
PIECE = 20_000  # bytes of an image, of which there are some


class Machine:
    """A virtual machine as its user has it."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.at = 0
        self.text = ""

    @property
    def stub(self) -> VirtualMachine:
        return self.world.system.reach(VirtualMachine, self.name)

    def status(self) -> VmStatus:
        return self.stub.status()

    def look(self) -> None:
        """Take what it has shown meanwhile."""
        found = self.stub.output(self.at)
        assert found.at == self.at, "something is lost"
        self.at += len(found.data)
        self.text += found.data.decode()

    def shows(self, pattern: str) -> None:
        """Wait until it has shown that since `forget`."""

        def found() -> Any:
            self.look()
            return re.search(pattern, self.text)

        self.world.until(found, f"{self.name}: {pattern}")

    def forget(self) -> None:
        self.look()
        self.text = ""

    def counts(self) -> list[int]:
        """Of a heartbeat. Each is what its guest's own clock says: no tick is lost or doubled."""
        lines = re.findall(r"heartbeat (\d+) (\d+) \d+\n", self.text)
        for count, mtime in lines:
            assert 0 <= int(mtime) // TICKS - int(count) <= LATE
        return [int(count) for count, _ in lines]

    def beats(self, more: int = 2) -> int:
        """Wait for so many lines of the heartbeat from now on; the last count."""
        self.forget()
        self.shows(rf"(heartbeat \d+ \d+ \d+\n){{{more + 1}}}")
        return self.counts()[-1]

    def count_of_exits(self) -> int:
        return sum(each.times for each in self.status().exits)


def kill(world: World, name: str) -> None:
    life = world.system.task(name).life + 1
    world.system.signal(name, signal.SIGKILL)
    world.ready(name, life)


@contextmanager
def lent(machine: Machine) -> Iterator[tuple[VirtualMachine, Region]]:
    """Its monitor as the launcher asks it, and memory for pieces of its image."""
    system = machine.world.system
    assert system.kernel is not None
    memory = Region(system.kernel.connection, "piece", PIECE)
    yield system.reach(VirtualMachine, machine.name), memory
    memory.end()


def copy_of(machine: Machine) -> bytes:
    with lent(machine) as (monitor, memory):
        size, data = monitor.save(), b""
        while length := monitor.image(len(data), memory.lend(0, PIECE)):
            data += memory.view[:length]
        assert len(data) == size < 100_000  # of 2 MiB
        assert monitor.image(size // 2, memory.lend(0, 100)) == 100
        assert memory.view[:100] == data[size // 2 :][:100]
    return data


def put(machine: Machine, data: bytes) -> None:
    with lent(machine) as (monitor, memory):
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            memory.view[: len(piece)] = piece
            monitor.load(at, memory.show(0, len(piece)))
