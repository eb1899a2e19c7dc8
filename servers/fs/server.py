"""server: files on a block device, as capabilities. A write is on the disk when it is answered.

Which files are open lies in a persistent region: the next life gets it back, so a client's
capability goes on working across a restart. A file is closed when nobody holds it any more.

Every sector on the disk carries its checksum (integrity.py): wrong data from the disk is read once
more and then is DeviceFailed, never somebody's bytes.
"""

from __future__ import annotations

import sys

from servers.fs.extents import NotOurVolume
from servers.fs.handles import HandleTable
from servers.fs.paths import check_path
from servers.fs.volume import Volume
from ukernel.abi.errors import CallError
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.interface import Interface, Lent
from ukernel.abi.services import (
    CREATE,
    SECTOR,
    TRUNCATE,
    Block,
    DeviceFailed,
    Entry,
    File,
    FileSystem,
    IsADirectory,
    StaleHandle,
    Stat,
)
from ukernel.abi.services import FILE as KIND_FILE
from ukernel.lib.memory import Region
from ukernel.lib.server import Server
from ukernel.lib.stub import connect

HANDLES = 256 * 1024  # bytes of the table of open files
BOUNCE = 128 * 1024  # bytes of one transfer to or from the disk


class Disk:
    """The disk's driver as the volume sees it: sectors, through one lent region."""

    def __init__(self, block: Block, bounce: Region) -> None:
        self.block = block
        self.bounce = bounce
        self.capacity = block.capacity()

    def read(self, first: int, count: int) -> bytes:
        parts = []
        for at, length in _pieces(count * SECTOR):
            try:
                self.block.read(first + at // SECTOR, self.bounce.lend(0, length))
            except CallError as error:
                raise DeviceFailed(str(error)) from error
            parts.append(bytes(self.bounce.view[:length]))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, first: int, data: bytes | bytearray | memoryview) -> None:
        for at, length in _pieces(len(data)):
            self.bounce.view[:length] = data[at : at + length]
            try:
                self.block.write(first + at // SECTOR, self.bounce.show(0, length))
            except CallError as error:
                raise DeviceFailed(str(error)) from error

    def flush(self) -> None:
        try:
            self.block.flush()
        except CallError as error:
            raise DeviceFailed(str(error)) from error


def _pieces(size: int) -> list[tuple[int, int]]:
    return [(at, min(BOUNCE, size - at)) for at in range(0, size, BOUNCE)]


class OpenFile(File):
    """What a client's capability invokes. It is its path; the volume keeps the rest."""

    def __init__(self, server: FileServer, badge: int) -> None:
        self.server = server
        self.badge = badge

    def _path(self) -> str:
        path = self.server.handles.path(self.badge)
        if path is None:
            raise StaleHandle("the file was removed")
        return path

    def read(self, offset: int, into: Lent) -> int:
        view = self.server.memory(into, write=True)
        data = self.server.volume.read(self._path(), offset, len(view))
        view[: len(data)] = data
        return len(data)

    def write(self, offset: int, data: Lent) -> int:
        return self.server.volume.write(self._path(), offset, bytes(self.server.memory(data)))

    def truncate(self, size: int) -> None:
        self.server.volume.truncate(self._path(), size)

    def stat(self) -> Stat:
        return self.server.volume.stat(self._path())

    def sync(self) -> None:
        self.server.volume.sync()


class FileServer(Server, FileSystem):
    def setup(self) -> None:
        disk = Disk(connect(Block, "disk"), self.region("bounce", BOUNCE))
        try:
            self.volume = Volume.mount(disk, bool(self.args.get("format_if_blank", False)))
        except NotOurVolume as error:
            print(error, file=sys.stderr)
            sys.exit(NO_RESTART)
        self.handles = HandleTable(self.region("handles", HANDLES, persistent=True).view)
        self.handles.keep_only(self.held_badges())

    def stopping(self) -> None:
        self.volume.unmount()

    def unheld(self, badge: int) -> None:
        super().unheld(badge)
        self.handles.forget(badge)

    def restore(self, badge: int) -> Interface | None:
        return OpenFile(self, badge)

    def open(self, path: str, mode: int) -> File:
        check_path(path)
        if mode & CREATE:
            self.volume.create(path, bool(mode & TRUNCATE))
        found = self.volume.stat(path)
        if found.kind != KIND_FILE:
            raise IsADirectory(path)
        if mode & TRUNCATE and found.size:
            self.volume.truncate(path, 0)
        opened = OpenFile(self, self.handles.add(path))
        self.export(opened, opened.badge)
        return opened

    def mkdir(self, path: str) -> None:
        check_path(path)
        self.volume.mkdir(path)

    def entries(self, path: str, start: int) -> list[Entry]:
        check_path(path)
        return self.volume.entries(path, start)

    def stat(self, path: str) -> Stat:
        check_path(path)
        return self.volume.stat(path)

    def rename(self, old: str, new: str) -> None:
        check_path(old)
        check_path(new)
        self.volume.rename(old, new)
        self.handles.rename(old, new)

    def remove(self, path: str) -> None:
        check_path(path)
        if self.volume.stat(path).kind == KIND_FILE:
            self.handles.remove(path)  # first: killed in between, no handle finds a later namesake
        self.volume.remove(path)

    def sync(self) -> None:
        self.volume.sync()
