"""Rings made to hurt: each is a fault of its driver, an error state of its device, and no more."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.iommu import Iommu
from tests.hwsim.harness import BlkDriver, Line, Machine, MachineMaker, Wire, iommu_of
from ukernel.abi import virtio
from ukernel.abi.services import SECTOR
from ukernel.abi.virtio import (
    BLK_HEADER,
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    DESCRIPTOR,
    BlkStatus,
    BlkType,
    Reg,
    Status,
)
from ukernel.lib.virtio.console import Console
from ukernel.lib.virtio.queue import BATCH_BYTES, MAX_CHAIN_BYTES
from ukernel.lib.virtio.rng import Rng
from ukernel.lib.virtio.transport import VirtioMmio
from ukernel.lib.virtqueue import DeviceError, Segment, Virtqueue, check, negotiate, start

SIZE = 8
RING = 0x1000
DATA = 0x8000
LAYOUT = virtio.queue_layout(SIZE)


class HostileRing:
    """A queue written byte by byte, on a device that is up."""

    def __init__(self, device: VirtioMmio, index: int = 0) -> None:
        self.device = device
        self.wire = Wire(device)
        negotiate(self.wire, 0)
        self.memory = memoryview(bytearray(4096))
        self.data = memoryview(bytearray(4096))
        self.wire.domain.map(RING, 4096, True, self.memory)
        self.wire.domain.map(DATA, 4096, True, self.data)
        self.place(RING, RING + LAYOUT.avail, RING + LAYOUT.used, index)
        start(self.wire)

    def place(self, desc: int, avail: int, used: int, index: int = 0) -> None:
        store = self.device.store
        store(Reg.QUEUE_SEL, index)
        store(Reg.QUEUE_READY, 0)
        store(Reg.QUEUE_NUM, SIZE)
        for low, address in ((0x80, desc), (0x90, avail), (0xA0, used)):
            store(low, address & 0xFFFF_FFFF)
            store(low + 4, address >> 32)
        store(Reg.QUEUE_READY, 1)

    def describe(self, index: int, iova: int, length: int, flags: int, following: int = 0) -> None:
        DESCRIPTOR.pack_into(self.memory, index * DESCRIPTOR.size, iova, length, flags, following)

    def offer(self, *heads: int, idx: int | None = None) -> None:
        avail = self.memory[LAYOUT.avail : LAYOUT.avail + virtio.avail_bytes(SIZE)].cast("H")
        for number, head in enumerate(heads):
            avail[virtio.AVAIL_RING + number % SIZE] = head
        avail[virtio.RING_IDX] = len(heads) if idx is None else idx
        self.device.doorbell()

    def failed_with(self, why: str) -> None:
        assert self.device.load(Reg.STATUS) & Status.NEEDS_RESET
        assert self.device.load(Reg.INTERRUPT_STATUS) & virtio.Interrupt.CONFIG_CHANGE
        assert self.device.faults.total == 1
        assert why in self.device.faults.recent[0].why
        with pytest.raises(DeviceError, match="must be reset"):
            check(self.wire)
        self.device.doorbell()
        assert self.device.faults.total == 1, "a failed device does not go on failing"


@pytest.fixture
def ring() -> HostileRing:
    return HostileRing(Rng("rng0", Iommu("rng0"), Line(), seed=1))


def test_the_ring_itself_works(ring: HostileRing) -> None:
    ring.describe(3, DATA, 32, DESC_F_WRITE)
    ring.offer(3)
    assert any(ring.data[:32])
    assert not any(ring.data[32:])
    assert ring.device.faults.total == 0


def test_a_loop(ring: HostileRing) -> None:
    ring.describe(0, DATA, 1, DESC_F_WRITE | DESC_F_NEXT, 1)
    ring.describe(1, DATA, 1, DESC_F_WRITE | DESC_F_NEXT, 0)
    ring.offer(0)
    ring.failed_with("loops or is longer")


@pytest.mark.parametrize("head", [SIZE, 0xFFFF])
def test_a_head_out_of_range(ring: HostileRing, head: int) -> None:
    ring.offer(head)
    ring.failed_with(f"descriptor {head} in a queue of 8")


def test_a_next_out_of_range(ring: HostileRing) -> None:
    ring.describe(0, DATA, 1, DESC_F_WRITE | DESC_F_NEXT, SIZE)
    ring.offer(0)
    ring.failed_with("descriptor 8 in a queue of 8")


@pytest.mark.parametrize(
    ("iova", "length", "flags", "why"),
    [
        (DATA, 0, DESC_F_WRITE, "no length"),
        (DATA, MAX_CHAIN_BYTES + 1, DESC_F_WRITE, "bytes, at most"),
        (DATA, 0xFFFF_FFFF, DESC_F_WRITE, "bytes, at most"),
        ((1 << 64) - 1, 2, DESC_F_WRITE, "nothing is mapped"),
        (DATA, 4097, DESC_F_WRITE, "the mapping ends"),
        (0, 16, DESC_F_WRITE, "nothing is mapped"),
        (DATA, 16, DESC_F_WRITE | DESC_F_INDIRECT, "indirect"),
        (DATA, 16, 0, "must be writable"),
    ],
)
def test_a_bad_descriptor(ring: HostileRing, iova: int, length: int, flags: int, why: str) -> None:
    ring.describe(0, iova, length, flags)
    ring.offer(0)
    ring.failed_with(why)


def test_readable_after_writable(ring: HostileRing) -> None:
    ring.describe(0, DATA, 1, DESC_F_WRITE | DESC_F_NEXT, 1)
    ring.describe(1, DATA, 1, 0)
    ring.offer(0)
    ring.failed_with("readable after a writable")


def test_an_index_that_jumps(ring: HostileRing) -> None:
    ring.offer(0, idx=SIZE + 1)
    ring.failed_with("avail.idx claims 9 chains")


@pytest.mark.parametrize(
    ("desc", "avail", "used", "why"),
    [
        (0, RING + 0x200, RING + 0x400, "nothing is mapped"),
        (RING, 1 << 63, RING + 0x400, "nothing is mapped"),
        (RING, RING + 0x200, RING + 0xFFC, "the mapping ends"),
        (RING + 8, RING + 0x200, RING + 0x400, "not aligned to 16"),
        (RING, RING + 0x201, RING + 0x400, "not aligned to 2"),
        (RING, RING + 0x200, RING + 0x402, "not aligned to 4"),
    ],
)
def test_queue_addresses(ring: HostileRing, desc: int, avail: int, used: int, why: str) -> None:
    ring.place(desc, avail, used)
    ring.offer(0)
    ring.failed_with(why)


def test_a_receive_buffer_that_is_not_writable() -> None:
    console = Console("con0", Iommu("con0"), Line(), lambda _: None)
    ring = HostileRing(console)
    ring.describe(0, DATA, 16, 0)
    ring.offer(0)
    assert console.feed(b"typed") == 5
    ring.failed_with("may not write")


@pytest.mark.parametrize("length", [1, 15])
def test_a_block_request_without_a_header(machine: MachineMaker, length: int) -> None:
    ring = HostileRing(machine().blk)
    ring.describe(0, DATA, length, DESC_F_NEXT, 1)
    ring.describe(1, DATA, 1, DESC_F_WRITE)
    ring.offer(0)
    ring.failed_with("without a header")


def test_a_block_request_without_a_status_byte(machine: MachineMaker) -> None:
    ring = HostileRing(machine().blk)
    ring.describe(0, DATA, 16, 0)
    ring.offer(0)
    ring.failed_with("without a header or a status")


NOWHERE = 0x7000_0000
READ = [(DATA, 16, 0), (NOWHERE, SECTOR, DESC_F_WRITE), (DATA + 16, 1, DESC_F_WRITE)]
WRITE = [(DATA, 16, 0), (NOWHERE, SECTOR, 0), (DATA + 16, 1, DESC_F_WRITE)]
IN_PART = [
    (DATA, 16, 0),
    (DATA + 512, SECTOR, DESC_F_WRITE),
    (NOWHERE, SECTOR, DESC_F_WRITE),
    (DATA + 16, 1, DESC_F_WRITE),
]


class BlkRing(HostileRing):
    """Chains for a disk of zeros, whose header says what is to be done with sector 0."""

    def request(self, kind: int, chain: list[tuple[int, int, int]], number: int = 1) -> None:
        BLK_HEADER.pack_into(self.data, 0, kind, 0, 0)
        self.data[16] = 0xEE
        for index, (iova, length, flags) in enumerate(chain):
            more = DESC_F_NEXT if index + 1 < len(chain) else 0
            self.describe(index, iova, length, flags | more, index + 1)
        self.offer(*[0] * number)

    @property
    def used(self) -> tuple[int, int]:
        """used.idx, and used.len of the last element."""
        used = self.memory[LAYOUT.used : LAYOUT.used + 4 + 8 * SIZE]
        idx = used.cast("H")[virtio.RING_IDX]
        return idx, used.cast("I")[virtio.USED_RING + 2 * (idx - 1) + 1]


@pytest.fixture
def blk_ring(machine: MachineMaker) -> BlkRing:
    return BlkRing(machine().blk)


@pytest.mark.parametrize(
    ("kind", "chain", "written"),
    [(BlkType.IN, READ, 0), (BlkType.OUT, WRITE, 1), (BlkType.IN, IN_PART, 0)],
    ids=["read", "write", "in part"],
)
def test_data_outside_the_domain_ends_its_request_and_no_more(
    blk_ring: BlkRing, kind: int, chain: list[tuple[int, int, int]], written: int
) -> None:
    """A client that takes its memory back must not be able to end the life of a driver."""
    ring = blk_ring
    ring.data[512 : 512 + SECTOR] = b"u" * SECTOR
    ring.request(kind, chain)
    assert (ring.data[16], ring.used) == (BlkStatus.IOERR, (1, written))
    assert ring.data[512 : 512 + SECTOR] == b"u" * SECTOR, "nothing is done in part"
    assert not ring.device.load(Reg.STATUS) & Status.NEEDS_RESET
    assert ring.device.faults.total == 1
    assert "nothing is mapped" in ring.device.faults.recent[0].why
    ring.request(BlkType.IN, [READ[0], (DATA + 512, SECTOR, DESC_F_WRITE), READ[2]], 2)
    assert (ring.data[16], ring.used) == (BlkStatus.OK, (2, SECTOR + 1))
    assert ring.data[512 : 512 + SECTOR] == bytes(SECTOR), "of the disk, not of the write before"


@pytest.mark.parametrize(
    "chain",
    [
        [(NOWHERE, 16, 0), READ[1], READ[2]],
        [(DATA, 8, 0), (NOWHERE, 8, 0), READ[2]],
        [READ[0], (DATA + 512, SECTOR, DESC_F_WRITE), (NOWHERE, 1, DESC_F_WRITE)],
        [READ[0], (NOWHERE, SECTOR + 1, DESC_F_WRITE)],
    ],
    ids=["header", "half of the header", "status", "status behind data"],
)
def test_a_request_that_cannot_be_answered_is_an_error_state(
    blk_ring: BlkRing, chain: list[tuple[int, int, int]]
) -> None:
    blk_ring.request(BlkType.IN, chain)
    assert blk_ring.device.load(Reg.STATUS) & Status.NEEDS_RESET
    assert blk_ring.used[0] == 0


def test_a_refused_buffer_holds_no_memory(machine: MachineMaker) -> None:
    """Else what a client takes back would stay mapped as long as the device runs."""
    ring = BlkRing(machine().blk)
    memory = bytearray(4096)
    ring.wire.domain.map(0x2_0000, 4096, True, memory)
    lent = [READ[0], (0x2_0000, SECTOR, DESC_F_WRITE), READ[2]]
    ring.request(BlkType.IN, lent)
    ring.request(BlkType.IN, [*lent[:2], READ[1], READ[2]], 2)
    assert ring.data[16] == BlkStatus.IOERR
    ring.wire.domain.unmap(0x2_0000)
    memory.append(0)  # BufferError while anybody has a view of it


def test_a_batch_ends_so_that_others_get_their_turn() -> None:
    """Much work in one ring is done in several batches, asked for by `backlog`."""
    shown: list[int] = []
    console = Console("con0", Iommu("con0"), Line(), lambda data: shown.append(len(data)))
    wire = Wire(console)
    negotiate(wire, 0)
    queue: Virtqueue[int] = Virtqueue(wire, virtio.CONSOLE_TRANSMITQ, 64)
    start(wire)
    big = wire.dma(MAX_CHAIN_BYTES)
    for cookie in range(10):
        queue.submit([Segment(big.iova, MAX_CHAIN_BYTES, False)], cookie)
    queue.kick()
    batches = 1
    while console.backlog:
        assert sum(shown) == batches * BATCH_BYTES
        console.doorbell()
        batches += 1
    assert batches == 10
    assert [cookie for cookie, _ in queue.completed()] == list(range(10))


small = st.integers(0, SIZE + 1)
descriptors = st.tuples(
    st.one_of(
        st.integers(RING - 16, RING + 4096),
        st.integers(DATA - 16, DATA + 4096),
        st.integers(0, (1 << 64) - 1),
    ),
    st.one_of(st.integers(0, 600), st.integers(0, (1 << 32) - 1)),
    st.one_of(st.integers(0, 3), st.integers(0, 0xFFFF)),
    st.one_of(small, st.integers(0, 0xFFFF)),
)


def other(kind: str) -> VirtioMmio:
    if kind == "rng":
        return Rng("rng0", Iommu("rng0"), Line(), seed=1)
    return Console("con0", Iommu("con0"), Line(), lambda _: None)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(descriptors, min_size=SIZE, max_size=SIZE),
    st.lists(st.tuples(st.lists(small, max_size=12), st.integers(0, 0xFFFF)), max_size=4),
    st.one_of(st.none(), st.binary(min_size=LAYOUT.total, max_size=LAYOUT.total)),
    st.sampled_from(["blk", "rng", "console"]),
)
def test_any_ring_at_all(
    table: list[tuple[int, int, int, int]],
    offers: list[tuple[list[int], int]],
    noise: bytes | None,
    kind: str,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        attacked = Machine(Path(folder) / "a.img", cache=8192, seed=1)
        bystander = Machine(Path(folder) / "b.img")
        victim = attacked.blk if kind == "blk" else other(kind)
        iommu_of(victim).assign("mallory")
        outside = bytearray(b"\xa5" * 64)
        ring = HostileRing(victim)
        iommu_of(victim).map(DATA + 0x2000, 64, False, memoryview(outside))
        for index, descriptor in enumerate(table):
            ring.describe(index, *descriptor)
        if noise:
            ring.memory[: LAYOUT.total] = noise
        began = time.process_time()
        for heads, idx in offers:
            ring.offer(*heads, idx=idx if idx % 3 == 0 else None)
            if isinstance(victim, Console):
                victim.feed(b"input")
        assert time.process_time() - began < 2.0, "work is bounded"
        failed = bool(victim.load(Reg.STATUS) & Status.NEEDS_RESET)
        if kind == "blk":  # some of them end a request, and the device goes on
            assert not failed or victim.faults.total > 0
        else:
            assert failed == (victim.faults.total > 0)
        assert all(fault.driver == "mallory" for fault in victim.faults.recent)
        assert outside == b"\xa5" * 64
        driver = BlkDriver(bystander.blk)
        driver.write(0, b"b" * 512)
        assert driver.read(0, 1) == b"b" * 512
        assert bystander.blk.faults.total == 0
        attacked.power_cut()
        bystander.power_cut()
