"""Volume: what it refuses, what it survives, and how often it bothers the disk."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from servers.fs import mount
from servers.fs.extents import NotOurVolume
from servers.fs.integrity import PAYLOAD
from servers.fs.mount import OPEN_FILES
from servers.fs.volume import FEWEST_SECTORS, Volume
from tests.servers.disk import BadSector, Disk, PowerCut
from tests.servers.model import Model, tree_of
from ukernel.abi.services import (
    DIRECTORY,
    PAGE,
    SECTOR,
    BadName,
    DeviceFailed,
    IsADirectory,
    NoSpace,
    OutOfRange,
    Stat,
)

SECTORS = 8192
KIB = 1024


@pytest.fixture
def disk() -> Disk:
    return Disk(SECTORS)


@pytest.fixture
def volume(disk: Disk) -> Volume:
    return Volume.mount(disk, True)


def test_a_blank_disk_is_formatted_only_on_request(disk: Disk) -> None:
    with pytest.raises(NotOurVolume, match="format_if_blank: true"):
        Volume.mount(disk, False)
    assert not any(disk.durable)


def test_what_is_not_ours_is_never_touched(disk: Disk) -> None:
    disk.durable[700:708] = b"precious"
    before = bytes(disk.durable)
    with pytest.raises(NotOurVolume, match="delete the image"):
        Volume.mount(disk, True)
    assert disk.durable == before
    assert not disk.cached


def test_a_volume_of_another_size_is_refused(disk: Disk, volume: Volume) -> None:
    volume.unmount()
    shorter = Disk(SECTORS // 2)
    shorter.durable[:] = disk.durable[: len(shorter.durable)]
    with pytest.raises(NotOurVolume, match="size it had"):
        Volume.mount(shorter, True)


def test_a_disk_that_is_too_small_says_how_large() -> None:
    with pytest.raises(NotOurVolume, match=f"needs {FEWEST_SECTORS * SECTOR}:"):
        Volume.mount(Disk(FEWEST_SECTORS - 1), True)
    volume = Volume.mount(Disk(FEWEST_SECTORS), True)
    volume.create("/a", True)
    assert volume.write("/a", 0, b"a" * 10_000) == 10_000


def test_a_gap_reads_as_zeros_even_where_old_data_was(volume: Volume) -> None:
    volume.create("/a", True)
    volume.write("/a", 0, b"x" * 50_000)
    volume.truncate("/a", 10)
    volume.write("/a", 40_000, memoryview(b"end"))
    assert volume.read("/a", 0, 99_999) == b"x" * 10 + bytes(39_990) + b"end"
    assert volume.read("/a", 40_003, 10) == b""
    assert volume.read("/a", 2**40, 10) == b""


def test_more_files_than_are_kept_open(volume: Volume) -> None:
    names = [f"/{n}" for n in range(3 * OPEN_FILES)]
    for name in names:
        volume.create(name, True)
        volume.write(name, 0, name.encode() * 500)
    assert all(volume.read(name, 0, 9999) == name.encode() * 500 for name in names)


def test_entries_come_sorted_and_in_pages(volume: Volume) -> None:
    names = [f"{n:04}" for n in range(PAGE + 20)]
    volume.mkdir("/d")
    for name in reversed(names):
        volume.create(f"/d/{name}", False)
    assert [entry.name for entry in volume.entries("/d", 0)] == names[:PAGE]
    assert [entry.name for entry in volume.entries("/d", PAGE)] == names[PAGE:]
    assert volume.entries("/d", PAGE + 20) == []


def test_the_root_stays(volume: Volume) -> None:
    assert volume.stat("/") == Stat(DIRECTORY, 0)
    volume.mkdir("/")
    for refused in (volume.remove, lambda p: volume.rename(p, "/a"), lambda p: volume.rename(p, p)):
        with pytest.raises(BadName):
            refused("/")
    with pytest.raises(IsADirectory):
        volume.create("/", True)


def test_sizes_beyond_what_there_can_be(volume: Volume) -> None:
    volume.create("/a", True)
    with pytest.raises(OutOfRange):
        volume.write("/a", 2**31 - 1, b"x")
    with pytest.raises(OutOfRange):
        volume.truncate("/a", 2**63)
    with pytest.raises(NoSpace):
        volume.truncate("/a", 2**31 - 1)
    assert volume.stat("/a").size == 0


@pytest.mark.parametrize("size", [100, 5000, 100_000])
def test_a_full_volume_keeps_every_file_as_it_was(size: int) -> None:
    disk = Disk(1024)
    volume = Volume.mount(disk, True)
    volume.create("/kept", True)
    volume.write("/kept", 0, b"kept" * 10_000)
    count = fill(volume, size)
    with pytest.raises(NoSpace):
        volume.write("/kept", 100, b"lost" * 500_000)
    assert volume.read("/kept", 0, 99_999) == b"kept" * 10_000
    volume = Volume.mount(disk.after_power_cut(1), False)
    assert volume.read("/kept", 0, 99_999) == b"kept" * 10_000
    assert all(volume.stat(f"/{n}").size == size for n in range(count))
    for n in range(count):
        volume.remove(f"/{n}")
    volume.write("/kept", 0, b"more")
    assert volume.read("/kept", 0, 8) == b"morekept"


def fill(volume: Volume, size: int) -> int:
    """Write files until there is no space; how many there are whole."""
    for count in range(100_000):
        try:
            volume.create(f"/{count}", True)
            volume.write(f"/{count}", 0, b"f" * size)
        except NoSpace:
            return count
    raise AssertionError("never full")


OPERATIONS: dict[str, Callable[[Volume | Model], object]] = {
    "create": lambda v: v.create("/new", True),
    "write": lambda v: v.write("/a", 5, b"x" * 50_000),
    "write and copy": lambda v: v.write("/one block", 0, b"x"),
    "truncate": lambda v: v.truncate("/a", 1),
    "read": lambda v: v.read("/a", 0, 500_000),
    "stat": lambda v: v.stat("/d/f"),
    "entries": lambda v: v.entries("/d", 0),
    "mkdir": lambda v: v.mkdir("/d/e"),
    "rename": lambda v: v.rename("/a", "/d/a"),
    "remove": lambda v: v.remove("/a"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("at", range(1, 16))
def test_the_devices_own_exception_comes_out(disk: Disk, operation: str, at: int) -> None:
    """And nothing that littlefs made of the failure stays: the tree is the old or the new one."""
    volume, model = Volume.mount(disk, True), Model()
    for on in (volume, model):
        on.mkdir("/d")
        on.create("/d/f", True)
        on.create("/a", True)
        on.write("/a", 0, bytes(range(1, 251)) * 2000)
        on.create("/one block", True)
        on.write("/one block", 0, b"1" * 5000)
    volume, after = Volume.mount(disk, False), Model(model.tree)
    OPERATIONS[operation](after)
    disk.fail_at(at, BadSector)
    start = disk.operations
    try:
        OPERATIONS[operation](volume)
    except BadSector:
        assert tree_of(volume) in (model.tree, after.tree)
    else:
        assert disk.operations - start < at
        disk.heal()
        assert tree_of(volume) == after.tree


def test_an_open_file_does_not_keep_its_old_name(volume: Volume) -> None:
    volume.create("/a", True)
    volume.write("/a", 0, b"old")
    volume.rename("/a", "/b")
    volume.create("/a", True)
    assert volume.stat("/a").size == 0
    assert volume.read("/b", 0, 9) == b"old"


def test_a_short_read_is_a_failed_device(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = Volume.mount(disk, True)
    volume.unmount()
    monkeypatch.setattr(disk, "read", lambda first, count: b"short")
    with pytest.raises(DeviceFailed, match="5 bytes read"):
        Volume.mount(disk, False)


def test_what_is_seen_once_is_not_lost_later(disk: Disk, volume: Volume) -> None:
    """The server dies between a write and its flush; its next life shows the file; power cut."""
    disk.fail_at(2, PowerCut)
    with pytest.raises(PowerCut):
        volume.create("/a", True)
    disk.heal()
    Volume.mount(disk, False).create("/a", False)
    assert Volume.mount(disk.after_power_cut(3), False).stat("/a").size == 0


def test_a_volume_whose_directories_were_changed_in_whole_sectors(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a former version did; either goes on where the other stopped."""
    model = Model()
    for turn in range(4):
        monkeypatch.setattr(mount, "COMMIT", (PAYLOAD, PAYLOAD // 4)[turn % 2])
        disk = disk.after_power_cut(turn)
        volume = Volume.mount(disk, turn == 0)
        assert tree_of(volume) == model.tree
        for on in (volume, model):
            for n in range(40):
                on.create(f"/{turn}{n}", True)
                on.write(f"/{turn}{n}", 0, b"%d" % n * 100 * turn)
            if turn:
                on.remove(f"/{turn - 1}7")
        volume.unmount()


def test_few_device_operations(disk: Disk, volume: Volume) -> None:
    """Each costs a trip through three processes. A regression here is a slow file system."""
    volume.create("/all", True)
    assert fill(volume, 100_000)  # so that no extent is used for the first time below
    for entry in volume.entries("/", 0):
        volume.remove(f"/{entry.name}")
    costs: dict[str, int] = {}

    def cost(name: str, action: Callable[[], object]) -> None:
        start = disk.operations
        action()
        costs[name] = disk.operations - start

    cost("create", lambda: volume.create("/f", True))
    cost("write 200 B", lambda: volume.write("/f", 0, b"x" * 200))
    cost("write 1 KiB", lambda: volume.write("/f", 0, bytes(KIB)))
    cost("write 16 KiB", lambda: volume.write("/f", 0, bytes(16 * KIB)))
    cost("write 64 KiB", lambda: volume.write("/f", 0, bytes(64 * KIB)))
    cost("write 1 MiB", lambda: volume.write("/f", 0, bytes(KIB * KIB)))
    volume = Volume.mount(disk, False)
    cost("read 1 MiB", lambda: volume.read("/f", 0, KIB * KIB))
    cost("read it again", lambda: volume.read("/f", 0, KIB * KIB))
    cost("stat", lambda: volume.stat("/f"))
    limits = {
        "create": 2,
        "write 200 B": 2,
        "write 1 KiB": 5,
        "write 16 KiB": 5,
        "write 64 KiB": 5,
        "write 1 MiB": 8,
        "read 1 MiB": 20,
        "read it again": 0,
        "stat": 0,
    }
    assert {name: n for name, n in costs.items() if n > limits[name]} == {}
