"""DMA goes where it was mapped, and every refusal is remembered with its culprit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hwsim.iommu import Iommu
from ukernel.lib.virtio.dma import REMEMBERED_FAULTS, DmaFault, Fault


def domain() -> tuple[Iommu, bytearray]:
    memory = bytearray(range(256)) * 16
    iommu = Iommu("disk0")
    iommu.assign("disk")
    iommu.map(0x1000, 4096, True, memory)
    return iommu, memory


def test_a_view_is_the_memory() -> None:
    iommu, memory = domain()
    iommu.view(0x1010, 4, write=True)[:] = b"abcd"
    assert memory[16:20] == b"abcd"
    assert iommu.view(0x1000, 4096, write=True).nbytes == 4096


@pytest.mark.parametrize(
    ("iova", "length"),
    [(0, 1), (0xFFF, 1), (0xFFF, 2), (0x2000, 1), (0x1FFF, 2), (1 << 64, 1), ((1 << 64) - 1, 2)],
)
def test_one_byte_outside_is_refused(iova: int, length: int) -> None:
    iommu, _ = domain()
    with pytest.raises(DmaFault) as caught:
        iommu.view(iova, length, write=False)
    assert (caught.value.iova, caught.value.length) == (iova, length)
    assert iommu.faults.total == 1
    assert iommu.faults.recent[0].driver == "disk"


def test_read_only_mappings_are_not_written() -> None:
    iommu, _ = domain()
    iommu.map(0x8000, 16, False, memoryview(bytes(16)))
    assert iommu.view(0x8000, 16, write=False)
    with pytest.raises(DmaFault, match="read-only"):
        iommu.view(0x8000, 1, write=True)


@pytest.mark.parametrize("iova", [0x1000, 0x1FFF, 0x0FF1, 0xFFFF_FFFF_FFFF_FFFF, -16])
def test_mappings_that_cannot_be(iova: int) -> None:
    iommu, _ = domain()
    with pytest.raises(ValueError, match="disk0"):
        iommu.map(iova, 16, True, bytearray(16))


@pytest.mark.parametrize(
    "take_back", [lambda i: i.unmap(0x1000), Iommu.reset, lambda i: i.assign("next")]
)
def test_nothing_stays_reachable(take_back: Callable[[Iommu], None]) -> None:
    iommu, _ = domain()
    iommu.view(0x1000, 1, write=False)
    before = iommu.generation
    take_back(iommu)
    assert iommu.generation > before
    with pytest.raises(DmaFault):
        iommu.view(0x1000, 1, write=False)


def test_unmap_takes_one() -> None:
    iommu, _ = domain()
    iommu.map(0x5000, 16, True, bytearray(16))
    iommu.unmap(0x5000)
    iommu.unmap(0x7777)
    assert iommu.view(0x1000, 16, write=False)


def test_the_log_counts_all_and_keeps_the_last() -> None:
    told: list[Fault] = []
    iommu = Iommu("disk0", told.append)
    iommu.assign("first")
    for at in range(REMEMBERED_FAULTS + 5):
        with pytest.raises(DmaFault):
            iommu.view(at, 1, write=False)
    iommu.assign("second")
    with pytest.raises(DmaFault):
        iommu.view(0, 8, write=True)
    assert iommu.faults.total == len(told) == REMEMBERED_FAULTS + 6
    assert len(iommu.faults.recent) == REMEMBERED_FAULTS
    last = iommu.faults.recent[-1]
    assert last == Fault("disk0", "second", "DMA of 8 bytes at 0x0: nothing is mapped there")
    assert told[0].driver == "first"
