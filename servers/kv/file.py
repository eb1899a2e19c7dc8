"""file: the log of a journal as a file. It stands on the disk when `append` returns.

The file system writes as a whole or not at all, and so does `rename`, by which a compacted log
takes the place of the other. The file system may die at any time: what may be repeated is, by the
stubs; what became of `rename` and `remove` shows when one looks. Nothing is lent to the file
system by the first call of `load`: when that is answered, any write that timed out is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from ukernel.abi import wire
from ukernel.abi.errors import Answer, CallError, DeadUnknown
from ukernel.abi.interface import Lent
from ukernel.abi.services import (
    CREATE,
    READ_ONLY,
    TRUNCATE,
    BadName,
    DeviceFailed,
    File,
    FileSystem,
    IsADirectory,
    NoSpace,
    NoSuchFile,
    NotADirectory,
)
from ukernel.lib.stub import release

BULK = wire.MAX_BODY + 4096  # bytes of one transfer; a record, which came in a message, fits
DRAFT = ".new"  # behind the name of the journal: a log that is to replace it


class WrongPath(Exception):
    """No file can have this name, whoever asks; the text says why."""


class Bulk(Protocol):
    """Memory of BULK bytes to lend: a Region."""

    view: memoryview

    def lend(self, offset: int, length: int) -> Lent: ...

    def show(self, offset: int, length: int) -> Lent: ...


class FileStore:
    """Keeps a log in the file `path`, in a directory that is made when absent."""

    def __init__(self, fs: FileSystem, path: str, bulk: Bulk) -> None:
        self._fs = fs
        self._path = path
        self._bulk = bulk
        self._file: File | None = None
        self._size = 0  # of the file, when it was read

    def load(self) -> bytes:
        with self._failures():
            self._remove(self._path + DRAFT)
            try:
                file = self._open()
            except NoSuchFile:
                self._fs.mkdir(self._path.rpartition("/")[0] or "/")
                return b""
            log = self._read(file)
        self._size = len(log)
        return log

    def cut(self, size: int) -> None:
        if size == self._size:
            return
        with self._failures():
            try:
                self._opened().truncate(size)
            except NoSpace as error:
                raise DeviceFailed(str(error)) from error

    def append(self, at: int, record: bytes) -> None:
        with self._failures():
            self._write(self._opened(), at, record)

    def replace(self, log: bytes) -> None:
        draft = self._path + DRAFT
        with self._failures():
            try:
                self._write_new(draft, log)
                self._rename(draft, self._path)
            except NoSpace:
                self._remove(draft)
                raise
            self._open()

    def _write_new(self, path: str, log: bytes) -> None:
        file = self._fs.open(path, CREATE | TRUNCATE)
        try:
            self._write(file, 0, log)
        finally:
            release(file)

    def _read(self, file: File) -> bytes:
        log = bytearray()
        while count := file.read(len(log), self._bulk.lend(0, BULK)):
            log += self._bulk.view[:count]
        return bytes(log)

    def _write(self, file: File, at: int, data: bytes) -> None:
        for start in range(0, len(data), BULK):
            piece = data[start : start + BULK]
            self._bulk.view[: len(piece)] = piece
            file.write(at + start, self._bulk.show(0, len(piece)))

    def _open(self) -> File:
        """Open the journal anew: an earlier capability may stand for a file that it replaced."""
        before, self._file = self._file, None
        if before is not None:
            release(before)
        self._file = self._fs.open(self._path, READ_ONLY)
        return self._file

    def _opened(self) -> File:
        return self._file or self._open()

    def _rename(self, old: str, new: str) -> None:
        while True:
            try:
                self._fs.rename(old, new)
            except DeadUnknown:
                if not self._exists(old):
                    return
            else:
                return

    def _remove(self, path: str) -> None:
        while self._exists(path):
            try:
                self._fs.remove(path)
            except (DeadUnknown, NoSuchFile):
                continue

    def _exists(self, path: str) -> bool:
        try:
            self._fs.stat(path)
        except NoSuchFile:
            return False
        return True

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """What a store may raise, and WrongPath."""
        try:
            yield
        except NoSpace:
            raise
        except (BadName, IsADirectory, NotADirectory) as error:
            raise WrongPath(f"{type(error).__name__}: {error}") from error
        except (Answer, CallError) as error:
            text = f"journal {self._path}: {type(error).__name__}: {error}"
            raise DeviceFailed(text) from error
