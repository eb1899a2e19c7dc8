"""full_host: what is acknowledged on a disk whose image has no room, here on a host that is full.

As a program it needs root: in a mount namespace of its own it puts a small file system where the
tests' runtime directory is, image, logs and all, and fills it up. It prints what came of it.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

from launcher.kernel import SystemDown
from tests.adversary.world import Intruder, World, system_of
from ukernel.abi.services import CREATE, READ_ONLY, DeviceFailed, FileSystem, NoSpace
from ukernel.lib.memory import Region

CLONE_NEWNS = 0x20000  # linux/sched.h
MS_REC, MS_PRIVATE = 0x4000, 1 << 18  # linux/mount.h
ROOM = "size=4m,nr_inodes=100"  # less than the image may grow to, by 1 MiB at a time
FILES = """
  disk: {run: servers.disk, serves: block, devices: [disk0]}
  fs: {run: servers.fs, serves: file, calls: [disk], state: disk, args: {format_if_blank: true}}
  late: {run: servers.echo, start: demand}
  attacker: {run: servers.client, calls: [fs], start: demand}
hardware: {disk0: {model: virtio-blk, image: disk.img, size: 8MiB}}
"""
SIZE = 64 << 10  # bytes of a file
KEPT = 4  # files that are there before
ROUNDS = 32  # enough to go where the image has no room yet


class Ledger:
    """What each file may hold: what was acknowledged last, or what was refused since."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self.refused: dict[str, list[bytes]] = {}
        self.refusals = 0
        self._random = random.Random(38)

    def use(self, client: Intruder) -> None:
        self._files = client.stub(FileSystem, "fs")
        self._box = Region(client, "box", SIZE)

    def write(self, path: str) -> None:
        """Write a whole file; an error is as good an answer as any."""
        self._box.view[:] = data = self._random.randbytes(SIZE)
        try:
            self._files.open(path, CREATE).write(0, self._box.show(0, SIZE))
        except (DeviceFailed, NoSpace):
            self.refused.setdefault(path, []).append(data)
            self.refusals += 1
        else:
            self.acknowledged[path] = data
            self.refused.pop(path, None)

    def check(self) -> None:
        """Read every file that was acknowledged: right, or refused too."""
        for path, data in self.acknowledged.items():
            try:
                self._files.open(path, READ_ONLY).read(0, self._box.lend(0, SIZE))
            except DeviceFailed:
                self.refusals += 1
                continue
            assert bytes(self._box.view) in [data, *self.refused.get(path, [])], path


def endure(folder: Path, fill: Callable[[World], None], free: Callable[[World], None]) -> Ledger:
    """Write files before, while and after the host is full, through a power cut meanwhile."""
    ledger = Ledger()
    with closing(World(system_of(folder, FILES))) as world:
        ledger.use(world.intrude())
        for number in range(KEPT):
            ledger.write(f"/{number}")
        assert not ledger.refusals
        fill(world)
        for number in range(ROUNDS):
            ledger.write(f"/{number % (2 * KEPT)}")
        ledger.check()
        world.check()
        world.system.signal("machine", signal.SIGKILL)
        with suppress(SystemDown):
            world.until(lambda: False, "the power cut")
        world.system.down()
    with closing(World(system_of(folder, FILES))) as world:
        ledger.use(world.intrude())
        ledger.check()
        fill(world)
        world.system.lives.start(world.system.task("late"))
        world.ready("late", 1)
        free(world)
        before = ledger.refusals
        for number in range(KEPT):
            ledger.write(f"/{number}")
        ledger.check()
        assert ledger.refusals == before, "there is room again"
        world.check()
    return ledger


def _own_file_system(directory: Path) -> None:
    """A small one at `directory`, for this process and its children alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    for failed in (
        libc.unshare(CLONE_NEWNS),
        libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None),
        libc.mount(b"tmpfs", str(directory).encode(), b"tmpfs", 0, ROOM.encode()),
    ):
        if failed:
            raise OSError(ctypes.get_errno(), "a file system of one's own")


def main() -> None:
    directory = Path(os.environ["XDG_RUNTIME_DIR"])
    _own_file_system(directory)
    filler = directory / "filler"

    def fill(_: World) -> None:
        with suppress(OSError), filler.open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        with suppress(OSError):
            for number in count():
                Path(f"{filler}.{number}").touch()
        room = os.statvfs(directory)
        assert (room.f_bavail, room.f_favail) == (0, 0)

    def free(_: World) -> None:
        for path in directory.glob("filler*"):
            path.unlink()

    ledger = endure(directory, fill, free)
    print(json.dumps([ledger.refusals, len(ledger.acknowledged)]))


if __name__ == "__main__":
    main()
