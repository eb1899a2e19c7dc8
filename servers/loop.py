"""loop: files of a file system as disks. Which of them a caller has is said by its badge.

    loop: {run: servers.loop, serves: block, calls: [{fs: {via: channel}}],
           args: {/vm-a.img: 8MiB, /vm-b.img: 4MiB}}
    vm:   {calls: [{loop: {badge: 2}}], ...}          # /vm-b.img, and no other file

A file that is not there is made, zeros of its size; one of another size is refused, since it is
somebody's. Lent memory is passed on: data goes between the file system and the client. Nothing is
kept here, so a restart is a start. What a death of the file system cuts short is asked for again,
and a handle that it does not know any more is opened again: as long as the file is the same size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from ukernel.abi.errors import Answer, CallError, DeadNotRun, DeadUnknown
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.interface import Lent
from ukernel.abi.services import (
    CREATE,
    READ_ONLY,
    SECTOR,
    BadName,
    Block,
    DeviceFailed,
    File,
    FileSystem,
    IsADirectory,
    NoSpace,
    NotADirectory,
    OutOfRange,
    StaleHandle,
    Stat,
)
from ukernel.abi.sizes import bytes_of, text_of
from ukernel.lib import relay
from ukernel.lib.disks import Disks
from ukernel.lib.relay import Relay
from ukernel.lib.stub import UnderWay, begin, connect, release

AT_ONCE = 2  # requests of one file at the file system, which does one at a time


class BadFiles(Exception):
    """These cannot be disks; the text says which and why."""


def sizes(args: Mapping[str, Any]) -> dict[str, int]:
    """The files and their bytes, of `{/vm-a.img: 8MiB}`, in this order. Raises BadFiles."""
    if not args:
        raise BadFiles("args: say `{/vm-a.img: 8MiB}`, the path and the size of each file")
    found = {}
    for path, size in args.items():
        length = bytes_of(size) or 0
        if not path.startswith("/"):
            raise BadFiles(f"args.{path}: a path is absolute, such as /{path}")
        if length <= 0 or length % SECTOR:
            raise BadFiles(f"args.{path} is {size!r}: a multiple of {SECTOR} bytes is due")
        found[path] = length
    return found


def prepared(fs: FileSystem, path: str, size: int) -> File:
    """The file, `size` bytes long: made, if it is not there yet. Raises BadFiles, DeviceFailed.

    The file system does each step as a whole: killed in between, an empty file is left, which is
    taken for none.
    """
    try:
        fs.mkdir(path.rpartition("/")[0] or "/")
        file = fs.open(path, CREATE)
        if (has := file.stat().size) == 0:
            file.truncate(size)
        elif has != size:
            raise BadFiles(
                f"args.{path}: the file has {text_of(has)}, and {text_of(size)} are due: say the "
                "size that it has, name another file, or remove it"
            )
    except (BadName, IsADirectory, NotADirectory, NoSpace, OutOfRange) as error:
        raise BadFiles(f"args.{path}: {type(error).__name__}: {error}") from None
    return file


class FileDisk(Block):
    """The sectors of the file `path` of `fs`, which is open as `file`."""

    def __init__(self, loop: relay.Loop, fs: FileSystem, path: str, size: int, file: File) -> None:
        self._loop = loop
        self._fs = fs
        self._path = path
        self._size = size
        self._file = file
        self._opened: File | None = None  # anew, but not looked at yet
        self._relay = Relay(loop, AT_ONCE, self._refused)

    def capacity(self) -> int:
        return self._size // SECTOR

    def read(self, first: int, into: Lent) -> int:
        at, taken = self._offset(first, into.length), self._all_of(into)
        return self._relay.ask(lambda: begin(self._file.read, at, into), taken).later

    def write(self, first: int, data: Lent) -> int:
        at, taken = self._offset(first, data.length), self._all_of(data)
        return self._relay.ask(lambda: begin(self._file.write, at, data), taken).later

    def flush(self) -> None:
        return self._relay.ask(lambda: begin(self._file.sync)).later

    def discard(self, first: int, count: int) -> None:
        """They read as before: a file keeps its size."""
        self._offset(first, count * SECTOR)

    def _offset(self, first: int, length: int) -> int:
        """Where it is in the file. Raises OutOfRange for what is not all of the disk."""
        if length % SECTOR or length == 0:
            raise OutOfRange(f"{length} bytes are not a number of sectors of {SECTOR}")
        if first * SECTOR + length > self._size:
            had = self._size // SECTOR
            raise OutOfRange(f"sector {first} and {length} bytes: the disk has {had}")
        return first * SECTOR

    def _all_of(self, lent: Lent) -> Callable[[int], int]:
        """A check that all of it was moved: somebody else may have cut the file."""

        def taken(moved: int) -> int:
            if moved != lent.length:
                raise DeviceFailed(f"{self._path} ends before {self._size} bytes")
            return moved

        return taken

    def _refused(self, error: Answer | CallError) -> DeviceFailed | None:
        """What is wrong with a file is wrong with the device; a stale handle is opened again."""
        if isinstance(error, StaleHandle):
            self._open()
            return None
        return error if isinstance(error, DeviceFailed) else self._failed(error)

    def _failed(self, error: Answer | CallError) -> DeviceFailed:
        return DeviceFailed(f"{self._path}: {type(error).__name__}: {error}")

    # --- a handle that leads nowhere any more ---------------------------------------------------

    def _open(self) -> None:
        """Open the file again; what waits goes on then."""
        if not self._relay.held:
            self._relay.held = True
            self._step(lambda: begin(self._fs.open, self._path, READ_ONLY), self._look_at)

    def _look_at(self, file: File) -> None:
        self._opened = file
        self._step(lambda: begin(file.stat), self._take)

    def _take(self, found: Stat) -> None:
        if found.size != self._size:
            self._give_up(DeviceFailed(f"{self._path} is another file now, of {found.size} bytes"))
        elif self._opened is not None:
            self._opened, self._file = self._file, self._opened
            self._end_opening()

    def _give_up(self, why: DeviceFailed) -> None:
        """Whoever waits is told; the next request tries again."""
        self._relay.give_up(why)
        self._end_opening()

    def _end_opening(self) -> None:
        if self._opened is not None:
            release(self._opened)  # which is not used, or not any more
        self._opened = None
        self._relay.held = False
        self._relay.go_on()

    def _step(self, start: Callable[[], UnderWay[Any]], then: Callable[[Any], None]) -> None:
        """A call on the way to the open file; again, when the file system dies of something."""

        def done(call: UnderWay[Any]) -> None:
            try:
                found = call.result()
            except (DeadNotRun, DeadUnknown):
                self._step(start, then)
            except (Answer, CallError) as error:
                self._give_up(self._failed(error))
            else:
                then(found)

        try:
            self._loop.when(start(), done)
        except (Answer, CallError) as error:
            self._give_up(self._failed(error))


class Loop(Disks):
    each = "file"

    def setup(self) -> None:
        fs_name = next(name for name in self.connection.named if name != "self")
        fs = connect(FileSystem, fs_name, timeout_s=None)
        try:
            wanted = sizes(self.args)
            files = {path: prepared(fs, path, size) for path, size in wanted.items()}
        except BadFiles as error:
            print(f"{error} ({self.connection.info.origin})", file=sys.stderr)
            sys.exit(NO_RESTART)
        self.disks = [FileDisk(self, fs, path, wanted[path], file) for path, file in files.items()]


if __name__ == "__main__":
    Loop.run()
