"""The driver's side, against a device that the test plays: it is not trusted either."""

from __future__ import annotations

import pytest

from hwsim.iommu import Iommu
from tests.hwsim.harness import Line, Wire
from ukernel.abi import virtio
from ukernel.abi.virtio import Reg
from ukernel.lib.virtio.rng import Rng
from ukernel.lib.virtqueue import DeviceError, QueueFull, Segment, Virtqueue, negotiate

SIZE = 8
LAYOUT = virtio.queue_layout(SIZE)


class Device:
    """The used ring, for a test to write; the device behind the registers never runs."""

    def __init__(self) -> None:
        self.wire = Wire(Rng("rng0", Iommu("rng0"), Line()))
        negotiate(self.wire, 0)
        self.queue: Virtqueue[str] = Virtqueue(self.wire, 0, SIZE)
        memory = self.wire.domain.view(0x10_0000, LAYOUT.total, write=True)
        self.avail = memory[LAYOUT.avail : LAYOUT.avail + virtio.avail_bytes(SIZE)].cast("H")
        used = memory[LAYOUT.used : LAYOUT.used + 4 + 8 * SIZE]
        self.used, self.elements = used.cast("H"), used.cast("I")

    def head(self, number: int) -> int:
        return self.avail[virtio.AVAIL_RING + number % SIZE]

    def complete(self, head: int, written: int = 0) -> None:
        idx = self.used[virtio.RING_IDX]
        at = virtio.USED_RING + 2 * (idx % SIZE)
        self.elements[at], self.elements[at + 1] = head, written
        self.used[virtio.RING_IDX] = (idx + 1) & 0xFFFF


def test_chains_complete_in_any_order() -> None:
    device = Device()
    for name in "abc":
        device.queue.submit([Segment(0, 8, False), Segment(8, 8, True)], name)
    heads = [device.head(n) for n in range(3)]
    assert (device.queue.in_flight, device.queue.room) == (3, SIZE - 6)
    for at in (2, 0, 1):
        device.complete(heads[at], at)
    assert list(device.queue.completed()) == [("c", 2), ("a", 0), ("b", 1)]
    assert (device.queue.in_flight, device.queue.room) == (0, SIZE)


def test_indices_wrap() -> None:
    device = Device()
    for number in range(0x1_0000 + 3 * SIZE):
        device.queue.submit([Segment(0, 1, False)], str(number))
        device.complete(device.head(number))
        assert list(device.queue.completed()) == [(str(number), 0)]


def test_a_full_queue_refuses_and_takes_again() -> None:
    device = Device()
    three = [Segment(0, 1, False)] * 3
    device.queue.submit(three, "a")
    device.queue.submit(three, "b")
    with pytest.raises(QueueFull, match="3 descriptors wanted, 2 free"):
        device.queue.submit(three, "c")
    assert device.avail[virtio.RING_IDX] == 2, "nothing of the refused chain is visible"
    device.complete(device.head(0))
    assert list(device.queue.completed()) == [("a", 0)]
    device.queue.submit(three, "c")
    with pytest.raises(ValueError, match="a chain of 9"):
        device.queue.submit([Segment(0, 1, False)] * 9, "d")
    with pytest.raises(ValueError, match="a chain of 0"):
        device.queue.submit([], "d")


def test_completions_may_be_left_early() -> None:
    device = Device()
    for name in "ab":
        device.queue.submit([Segment(0, 1, False)], name)
    device.complete(device.head(0))
    device.complete(device.head(1))
    assert next(device.queue.completed()) == ("a", 0)
    assert list(device.queue.completed()) == [("b", 0)]


@pytest.mark.parametrize("head", [SIZE, 0xFFFF_FFFF, 0])
def test_a_device_that_completes_what_it_does_not_have(head: int) -> None:
    device = Device()
    device.queue.submit([Segment(0, 1, False)], "a")
    assert device.head(0) == SIZE - 1
    device.complete(head)
    with pytest.raises(DeviceError, match="which it does not have"):
        list(device.queue.completed())


def test_a_device_that_completes_twice() -> None:
    device = Device()
    device.queue.submit([Segment(0, 1, False)], "a")
    device.queue.submit([Segment(0, 1, False)], "b")
    device.complete(device.head(0))
    device.complete(device.head(0))
    with pytest.raises(DeviceError, match="which it does not have"):
        list(device.queue.completed())


def test_a_device_that_claims_too_many() -> None:
    device = Device()
    device.queue.submit([Segment(0, 1, False)], "a")
    device.used[virtio.RING_IDX] = 2
    with pytest.raises(DeviceError, match=r"used\.idx 2 with 1 chains"):
        list(device.queue.completed())


def test_a_device_that_claims_too_much() -> None:
    device = Device()
    device.queue.submit([Segment(0, 100, False), Segment(0, 4, True)], "a")
    device.complete(device.head(0), 5)
    with pytest.raises(DeviceError, match="5 bytes into a chain with 4"):
        list(device.queue.completed())


class Register(Wire):
    """A device with one register that does not tell what it should."""

    def __init__(self, register: int, value: int) -> None:
        super().__init__(Rng("rng0", Iommu("rng0"), Line()))
        honest = self.load
        self.load = lambda offset: value if offset == register else honest(offset)


@pytest.mark.parametrize(
    ("register", "value", "why"),
    [
        (Reg.MAGIC, 0, "no virtio device"),
        (Reg.VERSION, 1, "version 1, this driver speaks 2"),
        (Reg.STATUS, 128, "does not reset"),
        (Reg.DEVICE_FEATURES, 0, "does not offer VERSION_1"),
        (Reg.STATUS, 0, "refuses the features"),
    ],
)
def test_negotiation_says_why_it_failed(register: int, value: int, why: str) -> None:
    with pytest.raises(DeviceError, match=why):
        negotiate(Register(register, value), 0)


def test_queues_that_cannot_be() -> None:
    device = Device()
    with pytest.raises(DeviceError, match="queue 0 is in use"):
        Virtqueue[None](device.wire, 0, SIZE)
    with pytest.raises(DeviceError, match="no queue 1"):
        Virtqueue[None](device.wire, 1, SIZE)
    with pytest.raises(ValueError, match="no queue size"):
        Virtqueue[None](device.wire, 0, 6)


def test_a_queue_gets_no_larger_than_the_device_allows() -> None:
    wire = Wire(Rng("rng0", Iommu("rng0"), Line()))
    negotiate(wire, 0)
    assert Virtqueue[None](wire, 0, 1024).size == 64
