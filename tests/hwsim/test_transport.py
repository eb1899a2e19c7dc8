"""The register window keeps to virtio 1.2 §4.2, whatever is loaded and stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.iommu import Iommu
from tests.hwsim.harness import BlkDriver, Line, MachineMaker, Wire, iommu_of
from ukernel.abi import virtio
from ukernel.abi.virtio import BlkType, Interrupt, Reg, Status
from ukernel.lib.virtio.rng import Rng
from ukernel.lib.virtqueue import Segment, Virtqueue, negotiate, start

READY = Status.ACKNOWLEDGE | Status.DRIVER


def rng() -> Rng:
    return Rng("rng0", Iommu("rng0"), Line(), seed=1)


def test_identity() -> None:
    device = rng()
    found = [device.load(reg) for reg in (Reg.MAGIC, Reg.VERSION, Reg.DEVICE_ID, Reg.VENDOR_ID)]
    assert found == [virtio.MAGIC, 2, 4, virtio.VENDOR]
    assert device.load(Reg.MAGIC).to_bytes(4, "little") == b"virt"
    assert device.load(Reg.SHM_LEN_LOW) == 0xFFFF_FFFF


def test_features_come_in_halves() -> None:
    device = rng()
    halves = []
    for half in (0, 1, 2):
        device.store(Reg.DEVICE_FEATURES_SEL, half)
        halves.append(device.load(Reg.DEVICE_FEATURES))
    assert halves == [virtio.F_EVENT_IDX, 1, 0]


@pytest.mark.parametrize(
    ("accepted", "agreed"),
    [(virtio.F_VERSION_1, True), (0, False), (virtio.F_VERSION_1 | virtio.BLK_F_RO, False)],
)
def test_features_ok_only_for_a_subset_with_version_1(accepted: int, agreed: bool) -> None:
    device = rng()
    device.store(Reg.STATUS, READY)
    for half in (0, 1):
        device.store(Reg.DRIVER_FEATURES_SEL, half)
        device.store(Reg.DRIVER_FEATURES, accepted >> 32 * half)
    device.store(Reg.STATUS, READY | Status.FEATURES_OK)
    assert bool(device.load(Reg.STATUS) & Status.FEATURES_OK) is agreed
    device.store(Reg.STATUS, READY | Status.FEATURES_OK | Status.DRIVER_OK)
    assert bool(device.load(Reg.STATUS) & Status.DRIVER_OK) is agreed


def test_agreed_features_do_not_change_and_status_bits_do_not_go() -> None:
    device = rng()
    negotiate(Wire(device), 0)
    device.store(Reg.DRIVER_FEATURES_SEL, 1)
    device.store(Reg.DRIVER_FEATURES, 0)
    device.store(Reg.STATUS, Status.DRIVER_OK)
    assert device.load(Reg.STATUS) == READY | Status.FEATURES_OK | Status.DRIVER_OK
    device.store(Reg.STATUS, Status.NEEDS_RESET)
    assert not device.load(Reg.STATUS) & Status.NEEDS_RESET
    device.store(Reg.STATUS, 0)
    assert device.load(Reg.STATUS) == 0


def test_queue_registers() -> None:
    device = rng()
    assert device.load(Reg.QUEUE_NUM_MAX) == 64
    device.store(Reg.QUEUE_READY, 1)
    assert not device.load(Reg.QUEUE_READY), "a queue without a size"
    for size in (0, 3, 128):
        device.store(Reg.QUEUE_NUM, size)
        device.store(Reg.QUEUE_READY, 1)
        assert not device.load(Reg.QUEUE_READY), f"size {size}"
    device.store(Reg.QUEUE_NUM, 64)
    device.store(Reg.QUEUE_READY, 1)
    assert device.load(Reg.QUEUE_READY)
    device.store(Reg.QUEUE_SEL, 1)
    assert device.load(Reg.QUEUE_NUM_MAX) == 0
    device.store(Reg.QUEUE_NUM, 8)
    device.store(Reg.QUEUE_READY, 1)
    assert not device.load(Reg.QUEUE_READY), "a queue that there is not"


def test_configuration_ends_where_it_ends(machine: MachineMaker) -> None:
    blk = machine().blk
    assert blk.config(0, 8) == (64).to_bytes(8, "little")
    assert blk.load(Reg.CONFIG) == 64
    assert blk.config(0, 0xFFFF_FFFF) == blk.config_space
    assert blk.config(virtio.BLK_CONFIG_BYTES, 4) == b""
    assert blk.load(Reg.CONFIG + 0xFFFF) == 0


def test_no_work_before_driver_ok() -> None:
    device = rng()
    wire = Wire(device)
    negotiate(wire, 0)
    queue: Virtqueue[int] = Virtqueue(wire, virtio.RNG_QUEUE, 8)
    buffer = wire.dma(16)
    queue.submit([Segment(buffer.iova, 16, True)], 1)
    queue.kick()
    assert not list(queue.completed())
    assert not any(buffer.view)
    start(wire)
    wire.store(Reg.QUEUE_NOTIFY, virtio.RNG_QUEUE)
    assert list(queue.completed()) == [(1, 16)]


def test_interrupts_are_edges_and_the_register_says_why() -> None:
    device = rng()
    wire = Wire(device)
    negotiate(wire, 0)
    queue: Virtqueue[int] = Virtqueue(wire, virtio.RNG_QUEUE, 8)
    start(wire)
    buffer = wire.dma(16)
    for _ in range(2):
        queue.submit([Segment(buffer.iova, 16, True)], 1)
        queue.kick()
    assert isinstance(device.interrupt, Line)
    assert device.interrupt.raised == 2, "an edge each, acknowledged or not"
    assert device.load(Reg.INTERRUPT_STATUS) == Interrupt.USED_BUFFER
    device.store(Reg.INTERRUPT_ACK, Interrupt.USED_BUFFER)
    assert device.load(Reg.INTERRUPT_STATUS) == 0
    device.doorbell()
    assert device.interrupt.raised == 2, "nothing new, no interrupt"


def test_a_reset_device_leaves_the_old_memory_alone(machine: MachineMaker) -> None:
    host = machine()
    driver = BlkDriver(host.blk)
    driver.submit(BlkType.IN, 0, 512)
    driver.memory.view[:512] = b"x" * 512
    host.blk.reset()
    driver.queue.kick()
    host.blk.notify(0)
    host.blk.store(Reg.QUEUE_NOTIFY, 0)
    assert not list(driver.queue.completed())
    assert bytes(driver.memory.view[:512]) == b"x" * 512


@pytest.mark.parametrize("how", ["assign", "unmap"])
def test_a_queue_whose_memory_was_taken_back_is_a_fault(machine: MachineMaker, how: str) -> None:
    """The device must not go on through views that it looked up before."""
    host = machine()
    driver = BlkDriver(host.blk)
    driver.read(0, 1)
    driver.submit(BlkType.IN, 0, 512)
    before = bytes(driver.memory.view)
    if how == "assign":
        host.domain.assign("disk")
    else:
        host.domain.unmap(0x10_0000)
    driver.queue.kick()
    assert not list(driver.queue.completed())
    assert bytes(driver.memory.view) == before
    assert host.blk.load(Reg.STATUS) & Status.NEEDS_RESET
    assert host.blk.faults.recent[-1].driver == "disk"


@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from(list(Reg)), st.integers(0, 1 << 32)),
            st.one_of(st.integers(0, 255), st.integers(0, (1 << 32) - 1)),
        ),
        max_size=60,
    )
)
def test_no_register_access_raises(accesses: list[tuple[int, int]]) -> None:
    device = rng()
    iommu_of(device).map(0, 4096, True, bytearray(4096))
    for offset, value in accesses:
        device.store(offset, value)
        assert 0 <= device.load(offset) <= 0xFFFF_FFFF
    wire = Wire(device)
    assert negotiate(wire, 0) == virtio.F_VERSION_1, "a reset mends everything"


@pytest.mark.parametrize("faulty", [False, True])
def test_memory_taken_back_is_let_go(faulty: bool) -> None:
    """Else the machine could not unmap what a dead driver had."""
    device = rng()
    wire = Wire(device)
    memory = bytearray(4096)
    negotiate(wire, 0)
    Virtqueue[int](wire, virtio.RNG_QUEUE, 8)
    iommu_of(device).map(0, 4096, True, memory)
    device.store(Reg.QUEUE_READY, 0)
    for low in (Reg.QUEUE_DESC_LOW, Reg.QUEUE_DRIVER_LOW, Reg.QUEUE_DEVICE_LOW):
        device.store(low, 0x800 if low == Reg.QUEUE_DEVICE_LOW else 0)
        device.store(low + 4, 0)
    device.store(Reg.QUEUE_READY, 1)
    start(wire)
    memory[2] = 0xFF if faulty else 0  # avail.idx, where the test put it
    wire.ring_doorbell()
    assert bool(device.load(Reg.STATUS) & Status.NEEDS_RESET) is faulty
    if not faulty:
        device.reset()
    iommu_of(device).assign("next")
    memory.append(0)  # BufferError while anybody has a view of it
