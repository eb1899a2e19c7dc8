"""volume: the file system as the shell uses it: whole files, whole trees, no outcome left open.

Every operation here can be repeated after the file system has died. Those of the interface that
cannot, `rename` and `remove`, are settled by looking. That is right for a single client: nobody
else works on these paths meanwhile, so what is there was there before or was done by us.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from ukernel.abi.errors import DeadUnknown
from ukernel.abi.services import (
    CREATE,
    DIRECTORY,
    PAGE,
    READ_ONLY,
    TRUNCATE,
    Entry,
    File,
    FileSystem,
    NoSuchFile,
    NotADirectory,
    Stat,
)
from ukernel.lib.memory import Region
from ukernel.lib.stub import release

BULK = 128 * 1024  # bytes of one read or write
ATTEMPTS = 16  # lives of the file system that one rename or remove may cost


class Source(Protocol):
    """Where `write` takes its bytes from: a file opened without a buffer."""

    def readinto(self, into: memoryview, /) -> int | None:
        """Fill `into`; the bytes read, 0 at the end."""


class Volume:
    """A FileSystem capability and one region to lend with its calls."""

    def __init__(self, fs: FileSystem, bulk: Region) -> None:
        self.fs = fs
        self.bulk = bulk

    def read(self, path: str) -> Iterator[memoryview]:
        """The bytes of a file, in pieces; each is valid until the next is asked for."""
        with self._opened(path, READ_ONLY) as file:
            offset, count = 0, BULK
            while count == BULK:
                count = file.read(offset, self.bulk.lend(0, BULK))
                yield self.bulk.view[:count]
                offset += count

    def write(self, path: str, source: Source) -> int:
        """Make `path` a file of the bytes of `source`, on the disk when this returns; how many."""
        with self._opened(path, CREATE | TRUNCATE) as file:
            offset = 0
            while count := source.readinto(self.bulk.view[:BULK]):
                offset += self._put(file, offset, count)
            file.sync()
        return offset

    def _put(self, file: File, offset: int, count: int) -> int:
        done = 0
        while done < count:
            done += file.write(offset + done, self.bulk.show(done, count - done))
        return count

    @contextmanager
    def _opened(self, path: str, mode: int) -> Iterator[File]:
        file = self.fs.open(path, mode)
        try:
            yield file
        finally:
            release(file)

    def stat(self, path: str) -> Stat:
        return self.fs.stat(path)

    def find(self, path: str) -> Stat | None:
        """What has this name; None when nothing has."""
        try:
            return self.fs.stat(path)
        except (NoSuchFile, NotADirectory):
            return None

    def mkdir(self, path: str) -> None:
        self.fs.mkdir(path)

    def entries(self, path: str) -> Iterator[Entry]:
        """The entries of a directory by name."""
        start, count = 0, PAGE
        while count == PAGE:
            page = self.fs.entries(path, start)
            yield from page
            count = len(page)
            start += count

    def walk(self, path: str) -> Iterator[tuple[str, Stat]]:
        """`path` and all below it, directories before what is in them."""
        found = self.stat(path)
        yield path, found
        if found.kind == DIRECTORY:
            for entry in list(self.entries(path)):
                yield from self.walk(join(path, entry.name))

    def rename(self, old: str, new: str) -> None:
        """Give `old` the name `new`, exactly once."""

        def done() -> bool:
            # The rename is one step on the disk: `old` is gone if and only if it was made.
            return self.find(old) is None and self.find(new) is not None

        _settled(lambda: self.fs.rename(old, new), done)

    def remove(self, path: str) -> None:
        """Remove a file or an empty directory, exactly once."""
        _settled(lambda: self.fs.remove(path), lambda: self.find(path) is None)


def _settled(do: Callable[[], None], done: Callable[[], bool]) -> None:
    """Do what may not be done twice: after a death with an unknown outcome, look, then decide.

    Looking is safe: the life that had the request is certainly dead, nothing of it is still to
    come, and a repeated request meets what was there before the first.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            do()
        except DeadUnknown:
            if done():
                return
            if attempt == ATTEMPTS:
                raise
        else:
            return


def join(directory: str, name: str) -> str:
    """`name` in `directory`, in the one spelling that the file system takes."""
    return f"{directory.rstrip('/')}/{name}"
