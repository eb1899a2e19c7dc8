"""Devices that break, one at a time: what their driver sees, and what is left when it is mended."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.faults import Defects, possible
from hwsim.hardware import Hardware
from hwsim.iommu import Iommu
from hwsim.timer import Timer
from tests.hwsim.harness import PAGE, BlkDriver, Line, Machine, MachineMaker, Region, Wire
from tests.hwsim.test_console_rng import Terminal
from ukernel.abi.faults import (
    IO_ERROR,
    LOST_INTERRUPT,
    NO_ROOM,
    SPURIOUS_INTERRUPT,
    STUCK,
    TORN_WRITE,
    WRONG_DATA,
    NoSuchFault,
)
from ukernel.abi.services import SECTOR
from ukernel.abi.timer import TIMER_ARM, TIMER_FIRED, TimerReg
from ukernel.abi.virtio import RNG_QUEUE, BlkStatus, BlkType, Interrupt, Reg, Status
from ukernel.lib.virtio.queue import DeviceQueue
from ukernel.lib.virtio.rng import Rng
from ukernel.lib.virtqueue import DeviceError, Segment, Virtqueue, check, negotiate, start

RING = 0x10_0000  # where the harness maps what a driver asks for first
OLD, NEW = b"o" * SECTOR, b"n" * SECTOR


class Bench:
    """A device under test: its defects, and what they want done in a moment."""

    def __init__(self, device: Hardware) -> None:
        self.deferred: list[Callable[[], None]] = []
        self.defects = Defects(device, self.deferred.append)

    def plan(self, fault: str, count: int = 0, probability: float = 1.0, seed: int = 1) -> None:
        self.defects.plan(fault, count, probability, seed)

    def landed(self, fault: str) -> int:
        return self.defects.landed[fault]

    def a_moment_passes(self) -> None:
        while self.deferred:
            self.deferred.pop(0)()


class Disk(Bench):
    """A disk of 64 sectors of OLD, and its driver."""

    def __init__(self, host: Machine) -> None:
        super().__init__(host.blk)
        self.host = host
        self.driver = BlkDriver(host.blk)
        self.driver.write(0, OLD * 64)

    def write(self, first: int, data: bytes) -> int:
        return self.driver.run(BlkType.OUT, first, data)[0]

    def reset(self) -> None:
        """A new driver."""
        self.host.blk.reset()
        self.host.domain.assign("disk")
        self.driver = BlkDriver(self.host.blk)

    def submit(self, first: int, slot: int) -> None:
        self.driver.submit(BlkType.OUT, first, NEW, slot)
        self.driver.queue.kick()

    def completed(self) -> list[int]:
        return [done.status[0] for done, _ in self.driver.queue.completed()]


@pytest.fixture
def disk(machine: MachineMaker) -> Disk:
    return Disk(machine())


def test_an_io_error_does_nothing_and_passes(disk: Disk) -> None:
    disk.plan(IO_ERROR, count=3)
    assert disk.write(0, NEW) == BlkStatus.IOERR
    assert disk.driver.run(BlkType.IN, 0, SECTOR)[:2] == (BlkStatus.IOERR, 0)
    assert disk.driver.run(BlkType.FLUSH)[0] == BlkStatus.IOERR
    assert disk.driver.read(0, 1) == OLD
    assert disk.landed(IO_ERROR) == 3


def test_no_room_concerns_writes_only(disk: Disk) -> None:
    disk.plan(NO_ROOM, count=2)
    assert disk.driver.read(0, 1) == OLD
    assert [disk.write(0, NEW) for _ in range(3)] == [BlkStatus.IOERR] * 2 + [BlkStatus.OK]
    assert disk.landed(NO_ROOM) == 2


def test_a_torn_write_leaves_whole_sectors_of_both_versions(disk: Disk) -> None:
    disk.plan(TORN_WRITE)
    torn = set()
    for first in range(0, 64, 8):
        assert disk.write(first, NEW * 8) == BlkStatus.IOERR
        data = disk.driver.read(first, 8)
        sectors = [data[at : at + SECTOR] for at in range(0, len(data), SECTOR)]
        assert set(sectors) == {OLD, NEW}
        torn.add(tuple(sectors))
    assert len(torn) > 1, "always the same sectors"
    assert disk.landed(TORN_WRITE) == 8


def test_one_sector_is_never_torn(disk: Disk) -> None:
    disk.plan(TORN_WRITE)
    for first in range(16):
        assert disk.write(first, NEW) == BlkStatus.IOERR
    found = {disk.driver.read(first, 1) for first in range(16)}
    assert found == {OLD, NEW}


@pytest.mark.parametrize("cuts", [[], [1, 700, 1024]])
def test_wrong_data_is_another_value_in_one_byte(disk: Disk, cuts: list[int]) -> None:
    disk.plan(WRONG_DATA, count=1)
    data = disk.driver.read(0, 4, cuts)
    assert sum(byte != OLD[0] for byte in data) == 1
    assert disk.driver.read(0, 4, cuts) == OLD * 4
    assert disk.landed(WRONG_DATA) == 1


def test_a_stuck_request_keeps_nobody_else_waiting(disk: Disk) -> None:
    disk.plan(STUCK, count=1)
    for slot in range(3):
        disk.submit(slot, slot)
    assert disk.completed() == [BlkStatus.OK] * 2
    assert (disk.driver.queue.in_flight, disk.landed(STUCK)) == (1, 1)
    assert disk.driver.read(0, 3) == OLD + NEW * 2


def test_mending_ends_stuck_requests_with_an_error(disk: Disk) -> None:
    disk.plan(STUCK)
    for slot in range(3):
        disk.submit(slot, slot)
    before = disk.host.line.raised
    disk.defects.mend()
    assert (disk.completed(), disk.host.line.raised) == ([BlkStatus.IOERR] * 3, before + 1)
    assert disk.driver.read(0, 3) == OLD * 3
    assert disk.write(0, NEW) == BlkStatus.OK


def test_a_reset_forgets_what_was_stuck_but_not_what_is_planned(disk: Disk) -> None:
    disk.plan(STUCK, count=2)
    disk.submit(0, 0)
    disk.reset()
    disk.submit(1, 1)
    disk.reset()
    raised = disk.host.line.raised
    disk.defects.mend()
    assert (disk.completed(), disk.host.line.raised) == ([], raised)
    assert (disk.write(0, NEW), disk.landed(STUCK)) == (BlkStatus.OK, 2)


@pytest.mark.parametrize("gone", ["ring", "request"])
def test_memory_that_was_unmapped_while_a_request_was_stuck_is_not_touched(
    disk: Disk, gone: str
) -> None:
    disk.plan(STUCK, count=1)
    disk.submit(0, 0)
    queue, heads = disk.driver.queue, disk.driver.heads
    disk.host.domain.unmap(RING if gone == "ring" else heads.iova)
    disk.defects.mend()
    assert heads.view[16] == 0xEE, "the status byte is not as the driver left it"
    assert list(queue.completed()) == []
    with pytest.raises(DeviceError, match="must be reset"):
        check(disk.driver.wire)


def test_a_driver_notices_what_is_stuck_by_its_own_ticks(disk: Disk) -> None:
    queue = disk.driver.queue
    assert queue.tick() == 0
    disk.plan(STUCK, count=1)
    disk.submit(0, 0)
    assert [queue.tick(), queue.tick()] == [1, 2]
    disk.submit(1, 1)
    assert disk.completed() == [BlkStatus.OK]
    assert queue.tick() == 3
    disk.defects.mend()
    assert disk.completed() == [BlkStatus.IOERR]
    assert queue.tick() == 0


def test_a_lost_interrupt_loses_no_completion(disk: Disk) -> None:
    before = disk.host.line.raised
    disk.plan(LOST_INTERRUPT, count=2)
    for slot in range(3):
        disk.submit(slot, slot)
        assert disk.completed() == [BlkStatus.OK], "a driver that looks by itself has it all"
    assert disk.host.line.raised == before + 1
    assert disk.landed(LOST_INTERRUPT) == 2


def test_a_spurious_interrupt_comes_when_nothing_was_done(disk: Disk) -> None:
    before = disk.host.line.raised
    disk.plan(SPURIOUS_INTERRUPT, count=1)
    disk.submit(0, 0)
    assert (disk.completed(), disk.host.line.raised) == ([BlkStatus.OK], before + 1)
    disk.a_moment_passes()
    assert (disk.completed(), disk.host.line.raised) == ([], before + 2)
    disk.submit(1, 1)
    disk.a_moment_passes()
    assert disk.host.line.raised == before + 3


def test_several_faults_at_once_and_a_tally_of_each(disk: Disk) -> None:
    disk.plan(IO_ERROR, count=1)
    disk.plan(TORN_WRITE, count=1)
    disk.plan(WRONG_DATA, count=1)
    assert [disk.write(0, NEW * 2) for _ in range(3)] == [BlkStatus.IOERR] * 2 + [BlkStatus.OK]
    assert disk.driver.read(0, 2) != NEW * 2
    assert disk.defects.landed == {IO_ERROR: 1, TORN_WRITE: 1, WRONG_DATA: 1}
    disk.plan(IO_ERROR, count=5)
    assert disk.write(0, NEW) == BlkStatus.IOERR
    disk.defects.mend()
    assert disk.write(0, NEW) == BlkStatus.OK
    assert disk.landed(IO_ERROR) == 2, "counted from the first plan, and kept when it is mended"


def test_what_is_planned_and_does_not_happen_is_told_of(disk: Disk) -> None:
    disk.plan(IO_ERROR, probability=0.0)
    assert disk.write(0, NEW) == BlkStatus.OK
    assert dict(disk.defects.landed) == {IO_ERROR: 0}


def test_the_seed_decides_which_requests(disk: Disk) -> None:
    def run(seed: int) -> list[int]:
        disk.plan(IO_ERROR, probability=0.5, seed=seed)
        return [disk.write(0, NEW) for _ in range(64)]

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert 16 < run(3).count(BlkStatus.IOERR) < 48


def test_a_count_is_of_requests_not_of_hits(disk: Disk) -> None:
    disk.plan(IO_ERROR, count=10, probability=0.5, seed=4)
    outcomes = [disk.write(0, NEW) for _ in range(40)]
    assert 0 < outcomes.count(BlkStatus.IOERR) < 10
    assert set(outcomes[10:]) == {BlkStatus.OK}


def test_a_mended_device_runs_what_it_ran_before(disk: Disk) -> None:
    blk = disk.host.blk
    before = blk.disk, blk.interrupt, blk.requests
    assert blk.requests is DeviceQueue.batch
    for fault in possible(blk):
        disk.plan(fault)
    assert blk.disk is not before[0]
    disk.defects.mend()
    assert (blk.disk, blk.interrupt, blk.requests) == before


class Entropy(Bench):
    """An entropy source and its queue."""

    def __init__(self) -> None:
        self.line = Line()
        self.wire = Wire(Rng("rng0", Iommu("rng0"), self.line, seed=1))
        super().__init__(self.wire.hardware)
        negotiate(self.wire, 0)
        self.queue: Virtqueue[Region] = Virtqueue(self.wire, RNG_QUEUE, 8)
        start(self.wire)

    def ask(self) -> None:
        buffer = self.wire.dma(PAGE)
        self.queue.submit([Segment(buffer.iova, 16, True)], buffer)
        self.queue.kick()


def test_without_a_status_a_stuck_request_ends_late() -> None:
    source = Entropy()
    source.plan(STUCK, count=1)
    source.ask()
    source.ask()
    assert [written for _, written in source.queue.completed()] == [16]
    source.defects.mend()
    assert [written for _, written in source.queue.completed()] == [16]


def test_output_that_was_stuck_is_shown_late_and_input_is_never_stuck() -> None:
    terminal = Terminal()
    bench = Bench(terminal.console)
    bench.plan(STUCK)
    buffer = terminal.wire.dma(16)
    buffer.view[:5] = b"hello"
    terminal.transmit.submit([Segment(buffer.iova, 5, False)], None)
    terminal.transmit.kick()
    terminal.give_buffer(16)
    terminal.console.feed(b"typed")
    assert (terminal.received(), terminal.shown) == ([b"typed"], b"")
    bench.defects.mend()
    assert (list(terminal.transmit.completed()), terminal.shown) == ([(None, 0)], b"hello")
    assert bench.landed(STUCK) == 1


def test_the_timer_rings_unheard_or_for_nothing() -> None:
    line = Line()
    timer = Timer("clock", Iommu("clock"), line, lambda: 0)
    bench = Bench(timer)
    bench.plan(LOST_INTERRUPT, count=1)
    timer.store(TimerReg.CONTROL, TIMER_ARM)
    timer.expire(1)
    assert (line.raised, timer.load(TimerReg.STATUS)) == (0, TIMER_FIRED)
    bench.plan(SPURIOUS_INTERRUPT, count=1)
    timer.store(TimerReg.CONTROL, TIMER_ARM)
    timer.expire(1)
    bench.a_moment_passes()
    assert line.raised == 2
    bench.defects.mend()
    assert timer.interrupt is line


def test_the_registers_tell_the_truth_about_a_lost_interrupt() -> None:
    source = Entropy()
    source.plan(LOST_INTERRUPT)
    source.ask()
    assert (source.line.raised, source.landed(LOST_INTERRUPT)) == (0, 1)
    assert source.wire.load(Reg.INTERRUPT_STATUS) == Interrupt.USED_BUFFER
    assert source.wire.load(Reg.STATUS) & Status.DRIVER_OK


OF_MEDIUM = (IO_ERROR, TORN_WRITE, WRONG_DATA, NO_ROOM)


@pytest.mark.parametrize("fault", [*OF_MEDIUM, "rust"])
def test_only_a_disk_has_a_medium(fault: str) -> None:
    with pytest.raises(NoSuchFault, match=f"rng0 cannot break by '{fault}', only by stuck, "):
        Entropy().plan(fault)


@pytest.mark.parametrize("fault", [*OF_MEDIUM, STUCK, ""])
def test_a_timer_has_nothing_but_its_line(fault: str) -> None:
    bench = Bench(Timer("clock", Iommu("clock"), Line(), lambda: 0))
    with pytest.raises(NoSuchFault, match="only by lost_interrupt, spurious_interrupt"):
        bench.plan(fault)
    assert not bench.defects.landed


def test_a_disk_refuses_what_is_no_fault(disk: Disk) -> None:
    with pytest.raises(NoSuchFault, match="disk0 cannot break by 'rust'"):
        disk.plan("rust")


SECTORS = 64
Plans = dict[str, tuple[int, float]]
plans = st.dictionaries(
    st.sampled_from([IO_ERROR, TORN_WRITE, NO_ROOM, LOST_INTERRUPT, SPURIOUS_INTERRUPT]),
    st.tuples(st.integers(0, 5), st.floats(0.0, 1.0)),
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "flush", "reset", "mend", "cut"]),
        st.integers(0, SECTORS - 8),
        st.integers(1, 8),
    ),
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(plans, steps, st.integers(0, 99), st.sampled_from([0, 4 * PAGE]))
def test_a_broken_disk_lies_about_nothing_but_what_it_says(
    broken: Plans, script: list[tuple[str, int, int]], seed: int, cache: int
) -> None:
    """Every sector holds what was last acknowledged for it, or what a failed write after that
    would have written; after a power cut the same holds of what was flushed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "disk.img"
        disk = Disk(Machine(path, SECTORS, cache, seed))
        disk.driver.flush()
        may = [{OLD} for _ in range(SECTORS)]
        may_survive = [{OLD} for _ in range(SECTORS)]
        for fault, (count, probability) in broken.items():
            disk.plan(fault, count, probability, seed)
        for stamp, (what, first, count) in enumerate(script):
            if what == "write":
                data = stamp.to_bytes(2, "big") * (SECTOR // 2)
                outcome = disk.write(first, data * count)
                for at in range(first, first + count):
                    may[at] = {data} if outcome == BlkStatus.OK else may[at] | {data}
                    may_survive[at].add(data)
            elif what == "flush":
                if disk.driver.run(BlkType.FLUSH)[0] == BlkStatus.OK:
                    may_survive = [set(values) for values in may]
            elif what == "reset":
                disk.reset()
            elif what == "mend":
                disk.defects.mend()
            else:
                disk.host.power_cut()
                fresh = Machine(path, SECTORS, cache, seed)
                disk.host, disk.driver = fresh, BlkDriver(fresh.blk)
                disk.defects = Defects(fresh.blk, disk.deferred.append)
                may = [set(values) for values in may_survive]
        disk.defects.mend()
        found = disk.driver.read(0, SECTORS)
        for at in range(SECTORS):
            assert found[at * SECTOR : (at + 1) * SECTOR] in may[at], f"sector {at}"
        disk.host.power_cut()
