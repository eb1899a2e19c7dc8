"""The disk through its driver: data, errors, and what a power cut leaves."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.cache import PAGE
from hwsim.image import Image, ImageError
from tests.hwsim.harness import BlkDriver, Machine, MachineMaker
from ukernel.abi import virtio
from ukernel.abi.services import SECTOR
from ukernel.abi.virtio import BLK_DISCARD_SEGMENT, BlkConfig, BlkStatus, BlkType

CACHES = [0, 4 * PAGE, 64 * PAGE]


def sector(value: int) -> bytes:
    return bytes([value]) * SECTOR


@pytest.mark.parametrize("cache", CACHES)
def test_what_was_written_is_read(machine: MachineMaker, cache: int) -> None:
    driver = BlkDriver(machine(cache=cache).blk)
    data = os.urandom(9 * SECTOR)
    driver.write(3, data)
    assert driver.read(3, 9) == data
    assert driver.read(2, 3) == sector(0) + data[: 2 * SECTOR]


@pytest.mark.parametrize("cache", CACHES)
def test_a_request_may_be_cut_anywhere(machine: MachineMaker, cache: int) -> None:
    driver = BlkDriver(machine(cache=cache).blk)
    data = os.urandom(20 * SECTOR)
    driver.write(5, data, cuts=[1, 700, 4097, 9000])
    assert driver.read(5, 20, cuts=[3, 511, 512, 5000]) == data


def test_many_requests_share_one_doorbell_and_one_interrupt(machine: MachineMaker) -> None:
    host = machine(cache=16 * PAGE)
    driver = BlkDriver(host.blk)
    for slot in range(10):
        driver.submit(BlkType.OUT, slot, sector(slot + 1), slot)
    driver.queue.kick()
    assert len(list(driver.queue.completed())) == 10
    assert (driver.wire.rings, host.line.raised) == (1, 1)
    assert driver.read(0, 10) == b"".join(sector(slot + 1) for slot in range(10))


def test_configuration(machine: MachineMaker) -> None:
    driver = BlkDriver(machine(sectors=100, cache=PAGE).blk)
    config = BlkConfig.unpack(driver.wire.config(0, virtio.BLK_CONFIG_BYTES))
    assert (config.capacity, config.block_bytes) == (100, SECTOR)
    wanted = virtio.F_VERSION_1 | virtio.BLK_F_FLUSH | virtio.BLK_F_DISCARD
    assert driver.features & wanted == wanted
    assert not driver.features & virtio.BLK_F_RO


def test_serial(machine: MachineMaker) -> None:
    status, written, data = BlkDriver(machine().blk).run(BlkType.GET_ID, data=20)
    assert (status, written, data.rstrip(b"\0")) == (BlkStatus.OK, 21, b"disk0")


@pytest.mark.parametrize(
    ("kind", "first", "data", "status"),
    [
        (BlkType.IN, 64, SECTOR, BlkStatus.IOERR),
        (BlkType.IN, 63, 2 * SECTOR, BlkStatus.IOERR),
        (BlkType.OUT, (1 << 64) - 1, sector(1), BlkStatus.IOERR),
        (BlkType.IN, 0, SECTOR - 1, BlkStatus.IOERR),
        (BlkType.OUT, 0, b"", BlkStatus.IOERR),
        (99, 0, SECTOR, BlkStatus.UNSUPP),
        (BlkType.DISCARD, 0, BLK_DISCARD_SEGMENT.pack(64, 1, 0), BlkStatus.IOERR),
        (BlkType.DISCARD, 0, BLK_DISCARD_SEGMENT.pack(0, 1, 1), BlkStatus.UNSUPP),
        (BlkType.DISCARD, 0, b"short", BlkStatus.IOERR),
    ],
)
def test_bad_requests_are_answered(
    machine: MachineMaker, kind: int, first: int, data: bytes | int, status: int
) -> None:
    driver = BlkDriver(machine(cache=8 * PAGE).blk)
    got, written, _ = driver.run(kind, first, data)
    assert got == status
    assert written == (0 if isinstance(data, int) else 1)
    driver.write(0, sector(1))
    assert driver.wire.hardware.faults.total == 0


def test_discard_reads_as_zeros_or_as_before(machine: MachineMaker) -> None:
    driver = BlkDriver(machine(cache=8 * PAGE).blk)
    driver.write(0, sector(7) * 16)
    segment = BLK_DISCARD_SEGMENT.pack(1, 12, 0)
    assert driver.run(BlkType.DISCARD, data=segment)[0] == BlkStatus.OK
    assert driver.read(0, 1) + driver.read(13, 3) == sector(7) * 4
    assert driver.read(1, 12) in (sector(0) * 12, sector(7) * 12)


def test_a_read_only_disk_refuses_writes(machine: MachineMaker, tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(sector(5) * 64)
    driver = BlkDriver(machine(read_only=True).blk)
    assert driver.features & virtio.BLK_F_RO
    assert driver.run(BlkType.OUT, 0, sector(1))[0] == BlkStatus.IOERR
    segment = BLK_DISCARD_SEGMENT.pack(0, 1, 0)
    assert driver.run(BlkType.DISCARD, 0, segment)[0] == BlkStatus.IOERR
    assert driver.read(0, 1) == sector(5)


def test_a_power_cut_loses_what_was_not_flushed(machine: MachineMaker) -> None:
    host = machine(cache=64 * PAGE)
    driver = BlkDriver(host.blk)
    driver.write(0, sector(1) * 10)
    driver.flush()
    driver.write(5, sector(2) * 10)
    host.power_cut()
    assert BlkDriver(machine().blk).read(0, 15) == sector(1) * 10 + sector(0) * 5


def test_a_device_reset_is_no_power_cut(machine: MachineMaker) -> None:
    host = machine(cache=64 * PAGE)
    BlkDriver(host.blk).write(0, sector(1))
    host.blk.reset()
    host.domain.assign("disk")
    assert BlkDriver(host.blk).read(0, 1) == sector(1)


def test_a_driver_without_flush_gets_write_through(machine: MachineMaker) -> None:
    host = machine(cache=64 * PAGE)
    driver = BlkDriver(host.blk)
    host.blk.accepted &= ~virtio.BLK_F_FLUSH
    driver.write(0, sector(1))
    host.power_cut()
    assert BlkDriver(machine().blk).read(0, 1) == sector(1)


class Broken(Image):
    """A medium whose writes fail."""

    full = True

    def write(self, offset: int, data: Sequence[memoryview]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "full")
        super().write(offset, data)


@pytest.mark.parametrize("cache", [0, 8 * PAGE])
def test_a_full_host_is_an_error_and_no_loss(machine: MachineMaker, cache: int) -> None:
    host = machine(cache=cache, sectors=1024)
    driver = BlkDriver(host.blk)
    host.image.__class__ = Broken
    outcomes = [driver.run(BlkType.OUT, 8 * n, sector(n + 1) * 8)[0] for n in range(12)]
    outcomes.append(driver.run(BlkType.FLUSH)[0])
    assert BlkStatus.IOERR in outcomes
    assert cache == 0 or outcomes[-1] == BlkStatus.IOERR
    assert isinstance(host.image, Broken)
    host.image.full = False
    driver.flush()
    for n, outcome in enumerate(outcomes[:-1]):
        if outcome == BlkStatus.OK:
            assert driver.read(8 * n, 8) == sector(n + 1) * 8


def test_a_new_image_has_holes(machine: MachineMaker, tmp_path: Path) -> None:
    machine(sectors=1 << 20)
    found = (tmp_path / "disk.img").stat()
    assert found.st_size == SECTOR << 20
    assert found.st_blocks < 16


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(3 * SECTOR))
    with pytest.raises(ImageError, match="has 1536 bytes, the disk 1024: set its size to 1536"):
        Image(path, 2 * SECTOR)
    with pytest.raises(ImageError, match="not a number of 512"):
        Image(path, 100)
    with pytest.raises(ImageError, match="cannot be opened"):
        Image(tmp_path / "absent", SECTOR, read_only=True)


def test_two_machines_on_one_image_are_refused(machine: MachineMaker) -> None:
    machine()
    with pytest.raises(ImageError, match="another machine runs on it"):
        machine()


SECTORS = 40
writes = st.tuples(
    st.just("write"),
    st.integers(0, SECTORS - 1),
    st.integers(1, 20),
    st.lists(st.integers(1, 9999)),
)
Step = tuple[str, int, int, list[int]]
steps: st.SearchStrategy[Step] = st.one_of(
    writes,
    writes,
    st.tuples(st.just("read"), st.integers(0, SECTORS - 1), st.integers(1, 20), st.just([5, 777])),
    st.tuples(st.sampled_from(["flush", "reset", "cut"]), st.just(0), st.just(0), st.just([])),
)


class Model:
    """Per sector: the value now, and every value that a power cut may leave."""

    def __init__(self) -> None:
        self.now = [0] * SECTORS
        self.may_survive = [{0} for _ in range(SECTORS)]

    def write(self, first: int, values: list[int]) -> None:
        for at, value in enumerate(values, first):
            self.now[at] = value
            self.may_survive[at].add(value)

    def flush(self) -> None:
        self.may_survive = [{value} for value in self.now]

    def expect_after_cut(self, found: list[int]) -> None:
        for at, value in enumerate(found):
            assert value in self.may_survive[at], f"sector {at} came back from the past"
        self.now = found
        self.flush()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(steps, max_size=40),
    st.sampled_from([0, 3 * PAGE, 6 * PAGE, 99 * PAGE]),
    st.one_of(st.none(), st.integers(0, 9)),
)
def test_disk_against_a_model(script: list[Step], cache: int, seed: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "disk.img"
        host = Machine(path, SECTORS, cache, seed)
        driver = BlkDriver(host.blk, slots=2)
        model, stamp = Model(), 0
        for what, first, wanted, cuts in script:
            count = min(wanted, SECTORS - first)
            if what == "write":
                values = [(stamp + n) % 255 + 1 for n in range(count)]
                stamp += count
                driver.write(first, b"".join(map(sector, values)), cuts)
                model.write(first, values)
            elif what == "read":
                expected = b"".join(map(sector, model.now[first : first + count]))
                assert driver.read(first, count, cuts) == expected
            elif what == "flush":
                driver.flush()
                model.flush()
            elif what == "reset":
                host.domain.assign("disk")
                driver = BlkDriver(host.blk, slots=2)
            else:
                host.power_cut()
                host = Machine(path, SECTORS, cache, seed)
                driver = BlkDriver(host.blk, slots=2)
                found = driver.read(0, SECTORS)
                sectors = [found[n * SECTOR : (n + 1) * SECTOR] for n in range(SECTORS)]
                assert all(len(set(one)) == 1 for one in sectors), "a sector was torn"
                model.expect_after_cut([one[0] for one in sectors])
        host.power_cut()


def test_a_full_cache_tears_and_reorders_by_seed(machine: MachineMaker) -> None:
    """The point of the seed: other seeds leave other remains, the same seed the same."""
    remains = []
    for run, seed in enumerate([1, 1, 2, 3, None]):
        host = machine(f"disk{run}.img", sectors=512, cache=16 * PAGE, seed=seed)
        driver = BlkDriver(host.blk)
        for n in range(60):
            driver.write(8 * n + 4, bytes([n + 1]) * 8 * SECTOR)
        host.power_cut()
        after = BlkDriver(machine(f"disk{run}.img", sectors=512).blk)
        remains.append(b"".join(after.read(n, 64) for n in range(0, 512, 64))[::SECTOR])
    assert remains[0] == remains[1]
    assert len(set(remains)) == 4
    pages = [remains[0][8 * n + 4 : 8 * n + 12] for n in range(60)]
    assert any(len(set(page)) > 1 for page in pages), "no request was torn"


def test_the_cache_is_bounded(machine: MachineMaker) -> None:
    host = machine(sectors=8192, cache=32 * PAGE, seed=4)
    driver = BlkDriver(host.blk)
    for n in range(0, 8192, 100):
        driver.write(n, sector(1) * 17)
        assert len(host.blk.disk._pages) <= 32  # type: ignore[attr-defined]


def test_a_flush_of_more_pages_than_one_system_call_takes(machine: MachineMaker) -> None:
    host = machine(sectors=8 * 1500, cache=1600 * PAGE)
    driver = BlkDriver(host.blk)
    for n in range(0, 8 * 1500, 100):
        driver.write(n, sector(n // 100 + 1) * 100)
    driver.flush()
    host.power_cut()
    after = BlkDriver(machine(sectors=8 * 1500).blk)
    for n in range(0, 8 * 1500, 100):
        assert after.read(n, 100) == sector(n // 100 + 1) * 100
