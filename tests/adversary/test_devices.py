"""56 to 58 and 60: hostile drivers, against the running machine. Each is a task with a device."""

from __future__ import annotations

import contextlib
import os
import select
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pytest

from tests.adversary.conftest import WorldMaker, shared_world
from tests.adversary.world import Intruder, World
from ukernel.abi import virtio, wire
from ukernel.abi.errors import CallError, Code, Denied, StaleLife
from ukernel.abi.services import Entropy
from ukernel.abi.virtio import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, DESCRIPTOR, Reg, Status
from ukernel.lib.bell import RUNG
from ukernel.lib.device import Device
from ukernel.lib.memory import Region
from ukernel.lib.stub import kernel
from ukernel.lib.virtqueue import DeviceError, Segment, Virtqueue, check, negotiate, start

SYSTEM = """
  rng: {run: servers.rng, serves: entropy, devices: [rng0], start: demand}
  other: {run: servers.rng, serves: entropy, devices: [rng1]}
  client: {run: servers.client, calls: [rng, other], start: demand}
hardware:
  rng0: {model: virtio-rng, seed: 1}
  rng1: {model: virtio-rng, seed: 2}
"""
SIZE = 8
LAYOUT = virtio.queue_layout(SIZE)
LENGTH = 32


class Mapped(NamedTuple):
    """A region of its own, which the device reaches too."""

    view: memoryview
    iova: int
    token: bytes


class Edges:
    """What comes on an interrupt line from now on."""

    def __init__(self, line: int) -> None:
        self._epoll = select.epoll()
        self._epoll.register(line, RUNG)
        self.come(0)  # that the line exists

    def come(self, within_s: float) -> bool:
        """Whether there was one, or is one soon."""
        return bool(self._epoll.poll(within_s))


class Rogue:
    """A driver that writes its ring byte by byte, on a device that it really has."""

    def __init__(self, world: World, slot: str = "rng", device: str = "rng0") -> None:
        self.world = world
        self.slot, self.name = slot, device
        self.task = world.intrude(slot)
        self.device = Device(self.task, device)
        negotiate(self.device, 0)
        self.edges = Edges(self.device.interrupt)
        self.ring = self.mapped("ring")
        self.data = self.mapped("data")
        self.place(self.ring.iova, self.ring.iova + LAYOUT.avail, self.ring.iova + LAYOUT.used)
        start(self.device)

    def mapped(self, name: str) -> Mapped:
        region = Region(self.task, name, 4096)
        iova = kernel(self.task, self.device.token).dma_map(region.token, True)
        return Mapped(region.view, iova, region.token)

    def place(self, desc: int, avail: int, used: int) -> None:
        store = self.device.store
        store(Reg.QUEUE_SEL, 0)
        store(Reg.QUEUE_READY, 0)
        store(Reg.QUEUE_NUM, SIZE)
        for low, address in (
            (Reg.QUEUE_DESC_LOW, desc),
            (Reg.QUEUE_DRIVER_LOW, avail),
            (Reg.QUEUE_DEVICE_LOW, used),
        ):
            store(low, address & 0xFFFF_FFFF)
            store(low + 4, address >> 32)
        store(Reg.QUEUE_READY, 1)
        assert self.device.load(Reg.QUEUE_READY), "stores are posted, the doorbell is not"

    def describe(
        self, index: int, iova: int, length: int = LENGTH, flags: int = DESC_F_WRITE, after: int = 0
    ) -> None:
        DESCRIPTOR.pack_into(self.ring.view, index * DESCRIPTOR.size, iova, length, flags, after)

    def offer(self, head: int = 0, idx: int = 1) -> None:
        """Make one chain available, or claim that there are `idx`, and ring."""
        struct.pack_into("<HHH", self.ring.view, LAYOUT.avail, 0, idx, head)
        self.device.ring_doorbell()

    def wait_interrupt(self) -> None:
        assert self.edges.come(10), "the device raises its line"

    @property
    def used(self) -> int:
        idx: int = struct.unpack_from("<H", self.ring.view, LAYOUT.used + 2)[0]
        return idx

    def has_used(self, count: int) -> bool:
        return self.used == count

    def failed_with(self, why: str, faults: int = 1) -> None:
        """The device is in its error state, and the fault has its driver's name."""
        self.wait_interrupt()
        assert self.device.load(Reg.STATUS) & Status.NEEDS_RESET
        with pytest.raises(DeviceError, match="must be reset"):
            check(self.device)
        self.world.told("fault", self.task.who, f"device {self.name}: {why}")
        assert self.world.slot(self.slot).faults == faults
        assert f"{self.name}: driver {self.slot}: {why}" in self.world.logs()["machine"]
        self.offer(idx=2)
        self.device.load(Reg.STATUS)
        assert self.world.slot(self.slot).faults == faults, "a failed device does not go on failing"


@pytest.fixture
def rogue(make_world: WorldMaker) -> Rogue:
    return Rogue(make_world(SYSTEM))


def others_are_unaffected(rogue: Rogue) -> None:
    """The other device and its driver, and then the next life of the rogue's own slot."""
    world = rogue.world
    client = world.intrude("client")
    assert len(client.stub(Entropy, "other").read(64)) == 64
    assert (world.slot("other").faults, world.slot("machine").life) == (0, 1)
    world.bury(rogue.task)
    world.system.lives.start(world.system.task(rogue.slot))
    world.ready(rogue.slot, rogue.task.life + 1)
    assert len(client.stub(Entropy, rogue.slot).read(64)) == 64
    world.bury(client)


def test_the_rogue_can_also_behave(rogue: Rogue) -> None:
    rogue.describe(0, rogue.data.iova)
    rogue.offer()
    rogue.wait_interrupt()
    assert (rogue.used, rogue.world.slot("rng").faults) == (1, 0)
    assert any(rogue.data.view[:LENGTH])
    others_are_unaffected(rogue)


OUTSIDE: dict[str, Callable[[Rogue], tuple[int, int]]] = {
    "address_zero": lambda r: (0, LENGTH),
    "past_the_end": lambda r: (r.data.iova + 4096 - LENGTH + 1, LENGTH),
    "before_the_start": lambda r: (r.data.iova - 1, LENGTH),
    "between_two_regions": lambda r: (r.ring.iova + 4096, LENGTH),
    "another_page": lambda r: (r.data.iova + (1 << 40), LENGTH),
    "top_of_the_address_space": lambda r: ((1 << 64) - LENGTH, LENGTH),
    "around_the_address_space": lambda r: ((1 << 64) - 1, LENGTH),
    "our_own_address": lambda r: (id(r.data.view), LENGTH),
}


def test_56_rings_outside_the_grant(rogue: Rogue) -> None:
    """The queue itself is memory too: where it lies is checked as any address is."""
    ring = rogue.ring.iova
    rogue.place(ring, ring + LAYOUT.avail, ring + 4096)
    rogue.offer()
    rogue.failed_with("DMA of")
    others_are_unaffected(rogue)


def test_56_memory_of_another_task_is_not_mapped(rogue: Rogue) -> None:
    client = rogue.world.intrude("client")
    of_client = kernel(client).region("private", 4096, False)
    own = kernel(rogue.task, rogue.device.token)
    with pytest.raises(Denied):
        own.dma_map(of_client, True)
    shown = kernel(rogue.task, kernel(rogue.task).region("r", 4096, False)).mint(1, 0)
    with pytest.raises(Denied, match="write not held"):
        own.dma_map(shown, True)
    rogue.world.told("denied", rogue.task.who)


def test_56_what_was_taken_back_is_outside(rogue: Rogue) -> None:
    """A region that its owner deletes is gone from the device's view of memory at once."""
    kernel(rogue.task, rogue.data.token).delete()
    rogue.device.load(Reg.STATUS)
    rogue.describe(0, rogue.data.iova)
    rogue.offer()
    rogue.failed_with(f"DMA of {LENGTH} bytes at {rogue.data.iova:#x}")
    assert not any(rogue.data.view)
    others_are_unaffected(rogue)


def loop(r: Rogue) -> None:
    r.describe(0, r.data.iova, flags=DESC_F_WRITE | DESC_F_NEXT, after=1)
    r.describe(1, r.data.iova, flags=DESC_F_WRITE | DESC_F_NEXT, after=0)


def to_itself(r: Rogue) -> None:
    r.describe(0, r.data.iova, flags=DESC_F_WRITE | DESC_F_NEXT, after=0)


RINGS: dict[str, tuple[Callable[[Rogue], None], int, int, str]] = {
    "loop": (loop, 0, 1, "queue 0: the chain at 0 loops"),
    "loop_to_itself": (to_itself, 0, 1, "queue 0: the chain at 0 loops"),
    "absurd_length": (
        lambda r: r.describe(0, r.data.iova, 0xFFFF_FFFF), 0, 1, "queue 0: descriptor 0 brings"
    ),
    "length_zero": (
        lambda r: r.describe(0, r.data.iova, 0), 0, 1, "queue 0: descriptor 0 has no length"
    ),
    "head_out_of_range": (lambda r: None, SIZE, 1, "queue 0: descriptor 8 in a queue of 8"),
    "head_far_out_of_range": (lambda r: None, 0xFFFF, 1, "queue 0: descriptor 65535"),
    "next_out_of_range": (
        lambda r: r.describe(0, r.data.iova, flags=DESC_F_WRITE | DESC_F_NEXT, after=0xFFFF),
        0, 1, "queue 0: descriptor 65535",
    ),
    "more_available_than_there_is_room": (lambda r: None, 0, SIZE + 1, "queue 0: avail.idx"),
    "available_index_far_ahead": (lambda r: None, 0, 0xFFFF, "queue 0: avail.idx"),
    "indirect": (
        lambda r: r.describe(0, r.data.iova, flags=DESC_F_INDIRECT), 0, 1, "queue 0: descriptor 0"
    ),
}  # fmt: skip


# A rogue for each case, with a device of its own, in one machine: none of them may harm it.
ROGUES = {case: (f"rogue-{n}", f"dev{n}") for n, case in enumerate([*OUTSIDE, *RINGS])}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    row = "  {}: {{run: servers.rng, serves: entropy, devices: [{}], start: demand}}\n"
    slots = "".join(row.format(*names) for names in ROGUES.values())
    devices = "".join(f"  {device}: {{model: virtio-rng}}\n" for _, device in ROGUES.values())
    called = ", ".join(slot for slot, _ in ROGUES.values())
    system = SYSTEM.replace("[rng, other]", f"[{called}, other]").replace(
        "hardware:", slots + "hardware:"
    )
    with shared_world(tmp_path_factory.mktemp("many"), system + devices) as world:
        yield world


@pytest.fixture
def one_of_many(many: World, case: str) -> Iterator[Rogue]:
    """Its machine is checked when its test is over."""
    yield Rogue(many, *ROGUES[case])
    many.check()


@pytest.mark.parametrize("case", OUTSIDE)
def test_56_dma_outside_the_grant(one_of_many: Rogue, case: str) -> None:
    rogue = one_of_many
    iova, length = OUTSIDE[case](rogue)
    before = bytes(rogue.ring.view), bytes(rogue.data.view)
    rogue.describe(0, iova, length)
    rogue.offer()
    rogue.failed_with(f"DMA of {length} bytes at {iova:#x}")
    assert bytes(rogue.data.view) == before[1], "not even in part"
    others_are_unaffected(rogue)


@pytest.mark.parametrize("case", RINGS)
def test_60_hostile_ring(one_of_many: Rogue, case: str) -> None:
    rogue = one_of_many
    prepare, head, idx, why = RINGS[case]
    prepare(rogue)
    rogue.offer(head, idx)
    rogue.failed_with(why)
    others_are_unaffected(rogue)


def test_60_every_register_with_every_kind_of_value(rogue: Rogue) -> None:
    """No store, load or configuration read harms the machine, whatever is in it."""
    for offset in [*range(0, 0x110, 2), 0x1000, (1 << 32) - 1]:
        for value in (0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF):
            rogue.device.store(offset, value)
        rogue.device.load(offset)
    for offset, length in ((0, 0), (0, 1 << 20), ((1 << 32) - 1, (1 << 32) - 1)):
        assert len(rogue.device.config(offset, length)) <= 1 << 20
    for opcode in range(8):
        reply = rogue.task.ask(
            wire.CALL, token=rogue.device.token, opcode=opcode, body=wire.pack([1 << 40, -1])
        )
        assert reply.status == Code.E_PROTO
    others_are_unaffected(rogue)


def test_60_the_machines_own_operations_are_the_kernels(rogue: Rogue) -> None:
    """A driver cannot map what the kernel did not: its calls carry its badge, not the kernel's."""
    map_it = wire.pack([0, 0x1000, 4096, True, 1])
    reply = rogue.task.ask(wire.CALL, token=rogue.device.token, opcode=90, body=map_it)
    assert reply.status == Code.E_PROTO
    with pytest.raises(Denied):
        kernel(rogue.task, rogue.device.token).mint(4, (1 << 64) - 1)
    rogue.describe(0, 0x1000)
    rogue.offer()
    rogue.failed_with("DMA of", faults=2)


def test_58_what_a_former_driver_holds_leads_nowhere(rogue: Rogue) -> None:
    """Life 1 keeps its process, connection, eventfds and memory, and goes on after its end."""
    world, old = rogue.world, rogue
    old.describe(0, old.data.iova)
    world.bury(old.task)
    world.system.lives.start(world.system.task("rng"))
    world.ready("rng", 2)
    client = world.intrude("client")
    assert len(client.stub(Entropy, "rng").read(LENGTH)) == LENGTH
    unbound = world.counter("unbound")
    old.device.store(Reg.STATUS, 0)
    old.task.put(wire.CALL, token=old.device.token, opcode=1, body=wire.pack([Reg.STATUS]))
    old.offer()
    world.until(lambda: world.counter("unbound") == unbound + 2, "both to be a stranger's")
    assert len(client.stub(Entropy, "rng").read(LENGTH)) == LENGTH, "its device was not reset"
    assert old.used == 0
    assert not any(old.data.view), "the device writes no memory of a former driver"
    assert not old.edges.come(0), "nor raises its line"
    os.eventfd_write(old.device.interrupt, 1)
    assert len(client.stub(Entropy, "rng").read(LENGTH)) == LENGTH
    row = world.slot("rng")
    assert (row.life, row.faults) == (2, 0)


def test_58_tokens_of_a_former_driver_are_stale(rogue: Rogue) -> None:
    """The next life of the slot does not get in with the device capability of the last one."""
    world, old = rogue.world, rogue
    world.bury(old.task)
    new = world.intrude("rng")
    for use in (kernel(new, old.device.token).lines, kernel(new, old.device.token).describe):
        with pytest.raises(StaleLife):
            use()
    with pytest.raises(StaleLife):
        kernel(new, old.device.token).dma_map(old.data.token, True)
    with pytest.raises(CallError):
        kernel(new, new.named["rng0"]).dma_map(old.data.token, True)
    load = wire.pack([Reg.STATUS])
    reply = new.ask(wire.CALL, token=old.device.token, opcode=1, body=load)
    assert reply.status == Code.E_STALE_LIFE
    world.told("denied", new.who, "earlier life")
    assert Device(new, "rng0").load(Reg.STATUS) == 0, "for the new life, the device is reset"


def test_58_a_stopped_driver_that_wakes_after_its_replacement(make_world: WorldMaker) -> None:
    """Requests that life 1 had in the ring are not done for life 2, nor in its memory."""
    world = make_world(SYSTEM)
    old = Rogue(world)
    old.describe(0, old.data.iova)
    struct.pack_into("<HHH", old.ring.view, LAYOUT.avail, 0, 1, 0)  # made, and not yet rung
    world.bury(old.task)
    new = Successor(world)
    queue = new.queue
    old.device.ring_doorbell()
    queue.submit([Segment(new.data.iova, LENGTH, True)], 7)
    queue.kick()
    assert new.edges.come(10)
    assert list(queue.completed()) == [(7, LENGTH)]
    assert any(new.data.view[:LENGTH])
    assert not any(old.data.view)
    assert old.used == 0
    assert new.data.iova not in (old.data.iova, old.ring.iova), "no bus address is used twice"


class Successor:
    """The next life of the slot, which drives its device well."""

    def __init__(self, world: World) -> None:
        self.task: Intruder = world.intrude("rng")
        self.device = Device(self.task, "rng0")
        negotiate(self.device, 0)
        self.edges = Edges(self.device.interrupt)
        self.queue: Virtqueue[int] = Virtqueue(self.device, 0, SIZE)
        self.data = self.device.dma(4096)
        start(self.device)


def fill(line: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(line)
    os.eventfd_write(line, (1 << 64) - 2)


def test_57_lines_that_are_full_or_empty_when_they_should_not_be(rogue: Rogue) -> None:
    """A driver holds both ends of its lines: what it does to them is no harm to the machine."""
    device = rogue.device
    os.set_blocking(device.interrupt, True)  # for the machine too
    fill(device.interrupt)
    for number in range(1, 4):  # nothing can be added to it any more
        rogue.describe(0, rogue.data.iova)
        rogue.offer(idx=number)
        rogue.world.until(partial(rogue.has_used, number), "its work")
    os.eventfd_read(device.interrupt)
    for number in range(4, 7):  # it cannot be raised any more
        rogue.describe(0, rogue.data.iova)
        rogue.offer(idx=number)
        rogue.world.until(partial(rogue.has_used, number), "its work")
    for _ in range(20_000):  # rung, and taken back before the machine sees it, or after
        os.eventfd_write(device.doorbell, 1)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(device.doorbell)
    fill(device.doorbell)
    assert device.load(Reg.STATUS) & Status.DRIVER_OK
    assert rogue.world.slot("rng").faults == 0
    others_are_unaffected(rogue)
