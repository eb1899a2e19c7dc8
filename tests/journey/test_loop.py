"""Disks that are files: whatever dies below them, no byte is wrong. Real processes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from launcher.config import load
from launcher.system import System
from tests.adversary.world import Intruder, World, linked
from tests.conftest import own_runtime_dir
from tests.journey.guests import Machine, kill
from ukernel.abi.errors import Denied, Protocol
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.services import CREATE, SECTOR, Block, DeviceFailed, FileSystem, OutOfRange
from ukernel.abi.vm import RUNNING
from ukernel.lib.memory import Region
from ukernel.lib.stub import begin

AT_ONCE = "restart: {max_restarts: 1000, backoff: {first_ms: 0}}"
LATER = "start: demand"
SYSTEM = f"""
system: loops
hardware:
  disk0: {{model: virtio-blk, image: d.img, size: 8MiB}}
servers:
  echo: {{run: servers.echo, serves: echo}}
  witness: {{run: tests.adversary.tasks.witness, calls: [echo]}}
  disk: {{run: servers.disk, serves: block, devices: [disk0], {AT_ONCE}}}
  fs:
    run: servers.fs
    serves: file
    calls: [{{disk: {{via: channel}}}}]
    state: persistent
    args: {{format_if_blank: true}}
    {AT_ONCE}
  loop:
    run: servers.loop
    serves: block
    calls: [{{fs: {{via: channel}}}}]
    window: 64
    args: {{/vms/check.img: 64KiB, /b.img: 16KiB, /c.img: 4KiB}}
    {AT_ONCE}
  other: {{run: servers.loop, calls: [fs], args: {{/b.img: 32KiB}}, {LATER}}}
  dir: {{run: servers.loop, calls: [fs], args: {{/vms: 32KiB}}, {LATER}}}
  huge: {{run: servers.loop, calls: [fs], args: {{/huge: 1GiB}}, {LATER}}}
  none: {{run: servers.loop, calls: [fs], {LATER}}}
  user: {{run: servers.client, calls: [fs], {LATER}}}
  b: {{run: servers.client, calls: [{{loop: {{badge: 2}}}}], {LATER}}}
  c: {{run: servers.client, calls: [{{loop: {{badge: 3}}}}], {LATER}}}
  whole: {{run: servers.client, calls: [loop], {LATER}}}
  nobody: {{run: servers.client, calls: [{{loop: {{badge: 4}}}}], {LATER}}}
vms:
  check: {{image: diskcheck, memory: 1MiB, share: 30, disk: {{server: loop, badge: 1}}}}
"""
KILLS = 6
MISTAKES = {
    "other": "args./b.img: the file has 16KiB, and 32KiB are due: say the size that it has",
    "dir": "args./vms: IsADirectory",
    "huge": "args./huge: NoSpace",
    "none": "args: say `{/vm-a.img: 8MiB}`",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("loops")
    (folder / "system.yaml").write_text(SYSTEM)
    with own_runtime_dir():
        made = World(System(load(folder / "system.yaml")))
        yield made
        made.check()
        made.close()


class Holder:
    """Who has one of the disks, and memory to lend."""

    def __init__(self, world: World, name: str) -> None:
        self.task: Intruder = world.intrude(name)
        self.memory = Region(self.task, "mine", 32 << 10)

    def disk(self) -> Any:
        return linked(self.task, Block, self.task.named["loop"])


@pytest.fixture
def b(world: World) -> Iterator[Holder]:
    made = Holder(world, "b")
    yield made
    world.bury(made.task)


def test_no_byte_is_wrong_while_file_system_and_disk_are_killed(world: World) -> None:
    check = Machine(world, "check")
    for victim in ("fs", "disk") * (KILLS // 2):
        check.forget()
        check.shows(r"diskcheck \d+ sectors 128 ")
        kill(world, victim)
    kill(world, "loop")
    check.forget()
    check.shows(r"(diskcheck \d+ sectors 128 wrong 0 errors 0\n){2}")
    status = check.status()
    assert (status.state, status.faults, status.resets) == (RUNNING, 0, 0)
    assert world.slot("check").life == 1
    assert world.slot("fs").life == KILLS // 2 + 1


def test_a_disk_is_zeros_at_first_and_keeps_what_is_written(world: World, b: Holder) -> None:
    disk, view = b.disk(), b.memory.view
    assert disk.capacity() == (16 << 10) // SECTOR
    view[:] = b"\xff" * len(view)
    assert world.alongside(lambda: disk.read(0, b.memory.lend(0, 16 << 10))) == 16 << 10
    assert not any(view[: 16 << 10])
    view[:SECTOR] = b"\x07" * SECTOR
    writes = [begin(disk.write, sector, b.memory.show(0, SECTOR)) for sector in range(32)]
    kill(world, "fs")
    assert world.alongside(lambda: [write.result() for write in writes]) == [SECTOR] * 32
    world.alongside(disk.flush)
    disk.discard(0, 32)
    kill(world, "loop")
    assert world.alongside(lambda: disk.read(0, b.memory.lend(0, 16 << 10))) == 16 << 10
    assert bytes(view[: 16 << 10]) == b"\x07" * (16 << 10)


def test_nobody_reaches_what_is_not_his(world: World, b: Holder) -> None:
    whole, nobody = Holder(world, "whole"), Holder(world, "nobody")
    for first, length in ((32, SECTOR), (31, 2 * SECTOR), ((1 << 64) - 1, SECTOR), (0, 100)):
        with pytest.raises(OutOfRange):
            b.disk().read(first, b.memory.lend(0, length))
        with pytest.raises(OutOfRange):
            b.disk().write(first, b.memory.show(0, length))
    with pytest.raises(Denied, match="loop is called for one file"):
        whole.disk().capacity()
    with pytest.raises(Protocol, match="knows no object with badge 4"):
        nobody.disk().capacity()
    with pytest.raises(Denied):
        b.task.kernel("loop").mint(4, 1)  # CALL
    with pytest.raises(Denied, match="may not use fs"):
        b.task.capability("fs")


def test_a_file_that_is_removed_fails_until_one_of_its_size_is_there(world: World) -> None:
    """What the disk's holder sees is an error of the device, and never another's bytes."""
    c, user = Holder(world, "c"), world.intrude("user")
    disk, fs = c.disk(), user.stub(FileSystem, "fs")

    def read() -> int:
        found: int = world.alongside(lambda: disk.read(0, c.memory.lend(0, SECTOR)))
        return found

    assert read() == SECTOR
    fs.remove("/c.img")
    with pytest.raises(DeviceFailed, match=r"/c\.img: NoSuchFile"):
        read()
    again = fs.open("/c.img", CREATE)
    again.truncate(SECTOR)
    before = world.slot("loop").caps
    for _ in range(8):
        with pytest.raises(DeviceFailed, match=r"/c\.img is another file now, of 512 bytes"):
            read()
    assert world.slot("loop").caps <= before + 2, "what was opened is closed again"
    again.truncate(4 << 10)
    assert read() == SECTOR


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_a_disk_is_said_with_its_line(world: World, name: str) -> None:
    with tempfile.TemporaryFile() as said:
        task = world.system.run_task(name, [], (0, 1, said.fileno()))
        world.until(lambda: task.process is None, "its end")
        said.seek(0)
        text = said.read().decode()
    assert task.status == NO_RESTART
    assert text.startswith(MISTAKES[name])
    assert text.endswith(f"({world.system.file.where('servers', name)})\n")
