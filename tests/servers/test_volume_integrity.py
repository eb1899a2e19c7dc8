"""Wrong data from the disk: seen or harmless, whichever sector it is, and never handed on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.fs.extents import NotOurVolume
from servers.fs.integrity import LINE
from servers.fs.volume import Volume
from tests.servers.disk import Disk, garbled
from tests.servers.model import Model, Tree, tree_of
from ukernel.abi.services import SECTOR, DeviceFailed

SECTORS = LINE + 18 * 16  # 18 blocks

Damage = Callable[[Disk, int], None]


@cache
def filled() -> tuple[Disk, Tree]:
    """A small volume with most of its blocks in use, some for the second time."""
    disk = Disk(SECTORS)
    volume, model = Volume.mount(disk, True), Model()
    dice = random.Random(1)
    for on in (volume, model):
        dice.seed(1)
        on.mkdir("/d")
        for path, size in (("/a", 20_000), ("/gone", 9_000), ("/d/b", 30_000), ("/d/small", 60)):
            on.create(path, True)
            on.write(path, 0, dice.randbytes(size))
        on.remove("/gone")
        on.write("/a", 7_000, dice.randbytes(6_000))
    return disk.after_power_cut(0), model.tree


def copy() -> Disk:
    return filled()[0].after_power_cut(0)


def mounted(disk: Disk) -> Volume:
    return Volume.mount(disk, True)  # whatever is wrong, it must not be taken for a blank disk


def look(disk: Disk) -> Tree | str:
    """What a client finds, or why it finds nothing."""
    try:
        return tree_of(mounted(disk))
    except DeviceFailed as error:
        return str(error)


def flip(disk: Disk, sector: int) -> None:
    disk.flip(sector, random.Random(sector).randrange(8 * SECTOR))


def zero(disk: Disk, sector: int) -> None:
    disk.durable[sector * SECTOR : (sector + 1) * SECTOR] = bytes(SECTOR)


def neighbour(disk: Disk, sector: int) -> None:
    """The disk has written its neighbour, or it, to the wrong place."""
    other = sector ^ 1
    disk.durable[sector * SECTOR : (sector + 1) * SECTOR] = disk.durable[other * SECTOR :][:SECTOR]


@pytest.mark.parametrize("damage", [flip, zero, neighbour])
def test_one_wrong_sector_is_seen_or_harmless(damage: Damage) -> None:
    tree, seen = filled()[1], 0
    for sector in range(SECTORS):
        disk = copy()
        damage(disk, sector)
        found = look(disk)
        if found != tree:
            assert str(found).startswith(f"sector {sector} holds other bytes")
            seen += 1
    assert seen > 56_000 // SECTOR  # the files are there, and the directories


def test_a_wrong_sector_takes_no_file_with_it_that_lies_elsewhere() -> None:
    tree = filled()[1]
    files = {path: content for path, content in tree.items() if content is not None}
    worst = 0
    for sector in range(SECTORS):
        disk = copy()
        flip(disk, sector)
        lost = set()
        try:
            volume = mounted(disk)
        except DeviceFailed:
            continue
        for path, content in files.items():
            try:
                assert volume.read(path, 0, len(content) + 1) == content
            except DeviceFailed:
                lost.add(path)
        worst = max(worst, len({path for path in lost if len(files[path]) > 1000}))
    assert worst == 1


def test_when_the_sector_is_right_again_so_is_the_volume() -> None:
    tree, failed = filled()[1], 0
    for sector in range(LINE, SECTORS):
        disk = copy()
        volume = mounted(disk)
        flip(disk, sector)
        try:
            tree_of(volume)
        except DeviceFailed:
            failed += 1
        flip(disk, sector)
        assert tree_of(volume) == tree
    assert failed > 50


def test_changes_to_a_damaged_volume_happen_or_do_not() -> None:
    before = filled()[1]
    for sector in range(LINE, SECTORS):
        for change in changes():
            after, disk = Model(before), copy()
            change(after)
            flip(disk, sector)
            expected = [after.tree]
            try:
                change(mounted(disk))
            except DeviceFailed:
                expected.append(before)
            found = look(disk)
            assert found in expected or str(found).startswith(f"sector {sector} ")


def changes() -> Iterator[Callable[[Volume | Model], object]]:
    yield lambda v: v.write("/a", 12_000, b"n" * 2_000)
    yield lambda v: v.create("/d/new", True)
    yield lambda v: v.rename("/d/b", "/d/small")
    yield lambda v: v.truncate("/d/b", 10_000)


@settings(max_examples=100, deadline=None)
@given(pair=st.lists(st.integers(LINE, SECTORS - 1), min_size=2, max_size=2, unique=True))
def test_two_sectors_that_changed_places_are_seen(pair: list[int]) -> None:
    disk = copy()
    one, other = (slice(n * SECTOR, (n + 1) * SECTOR) for n in pair)
    disk.durable[one], disk.durable[other] = disk.durable[other], disk.durable[one]
    found = look(disk)
    assert found == filled()[1] or str(found).startswith(tuple(f"sector {n} " for n in pair))


@pytest.mark.parametrize("seed", range(10))
def test_a_read_that_is_wrong_once_is_healed(seed: int) -> None:
    """Every read of the workload in turn, those of the mount too."""
    for number in range(100):
        disk, reads = copy(), 0

        def lie(first: int, true: bytes, number: int = number) -> bytes:
            nonlocal reads
            reads += 1
            return garbled(seed)(first, true) if reads == number + 1 else true

        disk.lie(lie, 100)
        assert tree_of(mounted(disk)) == filled()[1]
        if reads <= number:
            assert number > 4
            return
    pytest.fail("there was no end of reads")


@pytest.mark.parametrize("line", range(SECTORS // LINE + 1))
def test_a_line_that_reads_as_zeros_is_no_reason_to_format(line: int) -> None:
    disk = copy()
    before = bytes(disk.durable)

    def lie(first: int, true: bytes) -> bytes:
        zeroed = bytearray(true)
        for n in range(len(true) // SECTOR):
            if (first + n) // LINE == line:
                zeroed[n * SECTOR : (n + 1) * SECTOR] = bytes(SECTOR)
        return bytes(zeroed)

    disk.lie(lie, 1000)
    with pytest.raises((DeviceFailed, NotOurVolume)):
        tree_of(mounted(disk))
    assert disk.durable == before
    assert not disk.cached
