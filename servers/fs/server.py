"""server: files on a block device, as capabilities. A write is on the disk when it is answered.

Which files are open lies in a persistent region: the next life gets it back, so a client's
capability goes on working across a restart. A file is closed when nobody holds it any more.

Every sector on the disk carries its checksum (integrity.py): wrong data from the disk is read once
more and then is DeviceFailed, never somebody's bytes.
"""

from __future__ import annotations

import sys

from servers.fs.disk import BOUNCE, Disk
from servers.fs.extents import NotOurVolume
from servers.fs.handles import HandleTable
from servers.fs.paths import check_path
from servers.fs.volume import Volume
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.interface import Interface, Lent
from ukernel.abi.services import CREATE, TRUNCATE, Block, Entry, File, FileSystem, StaleHandle, Stat
from ukernel.lib.server import Server
from ukernel.lib.stub import begin, connect

HANDLES = 256 * 1024  # bytes of the table of open files


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
        block = connect(Block, str(self.args.get("disk", "disk")))
        disk = Disk(block, self.region("bounce", BOUNCE), begin)
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
        elif mode & TRUNCATE:
            self.volume.truncate(path, 0)
        else:
            self.volume.open(path)
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
        self.handles.remove(path)  # first: killed in between, no handle finds a later namesake
        self.volume.remove(path)

    def sync(self) -> None:
        self.volume.sync()
