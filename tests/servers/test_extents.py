"""Extents: what is a volume, what is blank, and no zeros where something was written."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest

from servers.fs import extents as module
from servers.fs.extents import COPIES, EXTENT, MAGIC, Extents, NotOurVolume
from servers.fs.integrity import LINE, PAYLOAD, SealedDisk, seal
from tests.servers.disk import BadSector, Disk, PowerCut
from ukernel.abi.services import SECTOR, DeviceFailed

SECTORS = LINE + 3 * EXTENT + 200  # an extent that ends early
ALL = (1 << LINE) - 1
DATA = bytes(range(254)) * 2  # one sector


def made(disk: Disk) -> Extents:
    return Extents(SealedDisk(disk))


def new() -> tuple[Disk, Extents]:
    disk = Disk(SECTORS)
    extents = made(disk)
    extents.save()
    return disk, extents


def test_a_blank_disk_is_left_blank_and_reads_as_zeros() -> None:
    disk = Disk(SECTORS)
    assert made(disk).read(EXTENT, LINE, ALL) == (bytes(LINE * PAYLOAD), 0)
    assert not disk.cached


@pytest.mark.parametrize("first", [0, EXTENT - 1, EXTENT, 3 * EXTENT + 199])
def test_what_was_written_is_there_and_zeros_around_it(first: int) -> None:
    disk, extents = new()
    extents.write(first, DATA)
    extents.flush()
    for seen in (extents, made(disk), made(disk.after_power_cut(0))):
        line, at = divmod(first, LINE)
        count = min(LINE, seen.capacity - line * LINE)
        expected = bytes(at * PAYLOAD) + DATA + bytes((count - at - 1) * PAYLOAD)
        assert seen.read(line * LINE, count, (1 << count) - 1) == (expected, 0)


def test_a_run_over_several_extents() -> None:
    disk, extents = new()
    data = DATA * (2 * EXTENT)
    extents.write(EXTENT // 2, data)
    again = made(disk)
    found = b"".join(again.read(n, LINE, ALL)[0] for n in range(0, 3 * EXTENT, LINE))
    start = EXTENT // 2 * PAYLOAD
    assert found == bytes(start) + data + bytes(3 * EXTENT * PAYLOAD - start - len(data))


def test_only_the_first_write_to_an_extent_costs_more() -> None:
    disk, extents = new()
    for expected in (5, 1, 1):  # seal, flush, header, flush; and the write itself
        start = disk.operations
        extents.write(EXTENT + 3, DATA)
        assert disk.operations - start == expected


def test_an_extent_behind_a_used_one_is_begun_with_those_that_follow() -> None:
    disk, extents = new()
    costs = []
    for first in (0, EXTENT, 2 * EXTENT, 3 * EXTENT + 199):
        start = disk.operations
        extents.write(first, DATA)
        costs.append(disk.operations - start)
    assert costs == [5, 7, 1, 1]  # the second seals three extents
    extents.flush()
    for first in (0, EXTENT, 2 * EXTENT, 3 * EXTENT + 199):
        assert made(disk).read(first, 1, 1) == (DATA, 0)
        assert made(disk).read(first // LINE * LINE, 1, 1)[1] == 0


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_extents_may_be_begun_in_any_order(order: tuple[int, ...]) -> None:
    disk, extents = new()
    for number in order:
        extents.write(number * EXTENT + 7, DATA)
    extents.flush()
    for number in order:
        assert made(disk).read(number * EXTENT + 7, 1, 1) == (DATA, 0)


def test_zeros_are_not_believed_in_an_extent_that_is_used() -> None:
    disk, extents = new()
    extents.write(5, DATA)
    extents.flush()
    disk.durable[LINE * SECTOR :] = bytes(len(disk.durable) - LINE * SECTOR)
    for wanted in (5, 6):
        with pytest.raises(DeviceFailed, match=f"sector {LINE + wanted} "):
            made(disk).read(0, LINE, 1 << wanted)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fault", [PowerCut, BadSector])
def test_no_failure_makes_wrong_sectors(seed: int, fault: type[Exception]) -> None:
    """At every device operation: all that reads as written or as zeros, and can be written."""
    for at in range(1, 30):
        disk, extents = new()
        disk.fail_at(at, fault, for_good=fault is PowerCut)
        try:
            for n in range(3):
                extents.write(n * EXTENT, DATA)
            extents.flush()
        except fault:
            pass
        else:
            assert disk.operations < at + 10
            return
        disk.heal()
        extents = extents if fault is BadSector else made(disk.after_power_cut(seed))
        for n in range(3):
            found, wrong = extents.read(n * EXTENT, LINE, ALL)
            assert found in (bytes(LINE * PAYLOAD), DATA.ljust(LINE * PAYLOAD, b"\0"))
            assert wrong == 0
            extents.write(n * EXTENT, DATA)
            assert extents.read(n * EXTENT, 1, 1) == (DATA, 0)
    pytest.fail("never without a failure")


@pytest.mark.parametrize("copy", range(COPIES))
def test_one_damaged_header_does_no_harm_and_is_written_anew(copy: int) -> None:
    disk, extents = new()
    extents.write(EXTENT, DATA)
    extents.flush()
    sound = bytes(disk.durable)
    disk.flip(copy, 300)
    assert made(disk).read(EXTENT, LINE, ALL)[0].startswith(DATA)
    assert disk.durable == sound


@pytest.mark.parametrize("copy", range(COPIES))
def test_of_two_versions_of_the_header_both_count(copy: int) -> None:
    """As a power cut between its two sectors leaves it, with the damage of one copy later."""
    disk, extents = new()
    window = slice(copy * SECTOR, (copy + 1) * SECTOR)
    before = disk.after_power_cut(0).durable[window]
    extents.write(EXTENT, DATA)
    extents.flush()
    disk.durable[window] = before
    made(disk)
    disk.flip(1 - copy, 7)
    assert made(disk).read(EXTENT, LINE, ALL)[0].startswith(DATA)


def test_both_headers_damaged_is_a_failed_disk_and_not_a_foreign_one() -> None:
    disk, _ = new()
    for copy in range(COPIES):
        disk.flip(copy, 1000)
    with pytest.raises(DeviceFailed, match="sector 0 "):
        made(disk)


def test_a_large_disk_has_large_extents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAP_BYTES", 1)  # so that large is more than 8 extents
    disk = Disk(LINE + 19 * EXTENT)
    extents = made(disk)
    extents.write(disk.capacity - LINE - 1, DATA)
    extents.write(0, DATA)
    again = made(disk)
    assert again.read(disk.capacity - 2 * LINE, LINE, ALL)[0].endswith(DATA)
    assert again.read(0, 1, 1) == (DATA, 0)


REFUSED: dict[str, tuple[Callable[[Disk], None], str]] = {
    "something at the start": (lambda d: put(d, 1, b"precious"), "does not begin as one"),
    "something behind zeros": (lambda d: put(d, LINE + 1, b"precious"), "does not begin as one"),
    "a littlefs without checksums": (
        lambda d: put(d, 16, b"\x02\0\0\0\xf0\x0f\xff\xf7littlefs"),
        "former version, without checksums.*delete the image",
    ),
    "a header of another kind": (
        lambda d: put(d, 0, seal(MAGIC.replace(b"2", b"3").ljust(PAYLOAD, b"\0"), 0)),
        "begins with b'ukernel volume 3'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_volume_is_refused_and_never_touched(case: str) -> None:
    disk = Disk(SECTORS)
    make, why = REFUSED[case]
    make(disk)
    before = bytes(disk.durable)
    with pytest.raises(NotOurVolume, match=why):
        made(disk)
    assert disk.durable == before
    assert not disk.cached


def put(disk: Disk, sector: int, data: bytes | bytearray) -> None:
    disk.durable[sector * SECTOR : sector * SECTOR + len(data)] = data


@pytest.mark.parametrize("sectors", [SECTORS - LINE, SECTORS + LINE])
def test_a_volume_made_for_another_size_is_refused(sectors: int) -> None:
    disk, _ = new()
    other = Disk(sectors)
    put(other, 0, disk.after_power_cut(0).durable[: 2 * SECTOR])
    with pytest.raises(NotOurVolume, match=f"{SECTORS * SECTOR} bytes, not {sectors * SECTOR}"):
        made(other)


def test_the_header_fills_its_sector() -> None:
    assert module._HEADER.size == PAYLOAD
