"""Who tells whom: no wake-up is lost, and few are needed (virtio 1.2 §2.7.7, §2.7.10)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.iommu import Iommu
from tests.hwsim.harness import BlkDriver, MachineMaker, Wire
from tests.hwsim.interleaving import DEVICE, DRIVER, STEPS, TURN, Cores, Words
from ukernel.abi import virtio
from ukernel.abi.virtio import INDEX_MASK, RING_IDX, BlkType, passes
from ukernel.lib import driver as driver_loop
from ukernel.lib import virtqueue as driver_side
from ukernel.lib.driver import Driver
from ukernel.lib.virtio import queue as device_side
from ukernel.lib.virtio.rng import Rng
from ukernel.lib.virtqueue import Segment, Virtqueue, negotiate, start

SIZE = 8
REQUESTS = 12

SLOW = (*range(STEPS), *[0, TURN] * STEPS)  # stores stay in their buffers for long

words = st.integers(0, INDEX_MASK)


@given(words, words, st.integers(0, 1 << 15))
def test_passes(event: int, old: int, steps: int) -> None:
    """An index that went from `old` in single steps asks at the step after `event`."""
    assert passes(event, old, (old + steps) & INDEX_MASK) == ((event - old) & INDEX_MASK < steps)


class Bench(Driver):
    """A driver whose loop is the real one, in `Cores`."""

    def __init__(self, cores: Cores, at: int, features: int, bursts: Iterable[int]) -> None:
        self.cores = cores
        self.bursts = iter([*bursts, *[1] * REQUESTS])
        self.rng = Rng("rng0", Iommu("rng0"), lambda: cores.ring(DRIVER), seed=1)
        self.wire = Wire(self.rng)
        self.wire.ring_doorbell = lambda: cores.ring(DEVICE)  # type: ignore[method-assign]
        agreed = negotiate(self.wire, features)
        self.queue: Virtqueue[int] = Virtqueue(self.wire, virtio.RNG_QUEUE, SIZE, agreed)
        self.room = self.wire.dma(4096)
        start(self.wire)
        self.got: list[int] = []
        self._requests = self._queues = (self.queue,)
        self._share(at)

    def _share(self, at: int) -> None:
        """Both sides see the rings through `cores`, and have done `at` requests already."""
        live = self.rng._live(self.rng._queues[0])
        assert live is not None
        avail: Any = Words(self.cores, "avail")
        used: Any = Words(self.cores, "used")
        self.queue._avail = live._avail = avail
        self.queue._used_idx = live._used_ring = used
        self.queue._added = self.queue._kicked = self.queue._seen = at
        live._seen = live._used = live._interrupt_at = at
        memory = self.cores.memory
        memory["avail", RING_IDX] = memory["used", RING_IDX] = at
        memory["avail", virtio.used_event_at(SIZE)] = at
        memory["used", virtio.avail_event_at(SIZE)] = at

    def take(self) -> int:
        before = len(self.got)
        self.got += [cookie for cookie, _ in self.queue.completed()]
        return len(self.got) - before

    def drive(self) -> None:
        """As the loop of a server does: what has come, then `before_waiting`, then a sleep."""
        sent = 0
        while len(self.got) < REQUESTS:
            self.queue.quiet()
            self.take()
            for _ in range(min(next(self.bursts, 1), REQUESTS - sent, self.queue.room)):
                self.queue.submit([Segment(self.room.iova, 1, True)], sent)
                sent += 1
            self.before_waiting()
            if self.queue.in_flight:
                self.cores.sleep()

    def work(self) -> None:
        """As the machine does."""
        self.rng.doorbell()
        while self.rng.backlog:
            self.rng.doorbell()


def play(
    schedule: Iterable[int], at: int, features: int, bursts: Iterable[int], *, fenced: bool = True
) -> Bench:
    cores = Cores(schedule)
    bench = Bench(cores, at, features, bursts)
    with pytest.MonkeyPatch.context() as patch:
        fence: Callable[[], None] = cores.fence if fenced else lambda: None
        patch.setattr(driver_side, "fence", fence)
        patch.setattr(device_side, "fence", fence)
        patch.setattr(driver_loop, "ring", lambda _: cores.ring(DRIVER))
        cores.run(bench.drive, bench.work)
    return bench


FEATURES = [0, virtio.F_EVENT_IDX]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.sampled_from(SLOW), max_size=200),
    st.sampled_from([0, INDEX_MASK - 3]),
    st.sampled_from(FEATURES),
    st.lists(st.integers(1, SIZE), max_size=REQUESTS),
)
def test_no_completion_is_left_unseen(
    schedule: list[int], at: int, features: int, bursts: list[int]
) -> None:
    bench = play(schedule, at, features, bursts)
    assert sorted(bench.got) == list(range(REQUESTS)), "both sides sleep"


@pytest.mark.parametrize("features", FEATURES)
def test_what_the_fences_are_for(features: int) -> None:
    """Without them the same code sleeps for ever, sooner or later: the model sees it."""
    dice = random.Random(1)

    def lost() -> bool:
        schedule = dice.choices(SLOW, k=200)
        bench = play(schedule, 0, features, [1], fenced=False)
        return len(bench.got) < REQUESTS

    assert any(lost() for _ in range(300))


def test_one_doorbell_and_one_interrupt_for_many(machine: MachineMaker) -> None:
    host = machine()
    driver = BlkDriver(host.blk)
    for number in range(1, 4):
        for slot in range(16):
            driver.submit(BlkType.IN, slot, 512, slot)
        driver.queue.kick()
        driver.queue.kick()
        assert driver.wire.rings == host.line.raised == number
        assert len(list(driver.queue.completed())) == 16


def test_a_driver_that_is_awake_is_not_interrupted(machine: MachineMaker) -> None:
    host = machine()
    driver = BlkDriver(host.blk)
    driver.queue.quiet()
    driver.submit(BlkType.IN, 0, 512)
    driver.queue.kick()
    assert (driver.queue.listen(), host.line.raised) == (False, 0), "one came meanwhile"
    assert len(list(driver.queue.completed())) == 1
    assert driver.queue.listen()
    driver.submit(BlkType.IN, 0, 512)
    driver.queue.kick()
    assert host.line.raised == 1


def test_a_device_that_looks_anyway_is_not_rung_for(machine: MachineMaker) -> None:
    """What is submitted while the device is at work, it finds by itself."""
    host = machine()
    driver = BlkDriver(host.blk)
    read = host.blk.disk.read
    more = iter(range(1, 4))

    def read_and_submit(offset: int, into: list[memoryview]) -> None:
        read(offset, into)
        for slot in more:
            driver.submit(BlkType.IN, slot, 512, slot)
            driver.queue.kick()
            return

    host.blk.disk.read = read_and_submit  # type: ignore[method-assign, assignment]
    driver.submit(BlkType.IN, 0, 512)
    driver.queue.kick()
    assert (driver.wire.rings, host.line.raised) == (1, 1)
    assert len(list(driver.queue.completed())) == 4
