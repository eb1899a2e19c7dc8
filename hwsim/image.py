"""image: the medium of a disk, a file of exactly its size. What is written here survives.

The power cut that the machine simulates is the death of its process, so a write that the host's
page cache has taken counts as being on the medium.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from ukernel.abi.services import SECTOR

KEEP_SIZE_PUNCH_HOLE = 1 | 2  # linux/falloc.h
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class ImageError(Exception):
    """The image cannot be this disk; the text names the file, the reason and the remedy."""


class Image:
    """An open, locked image. Offsets and lengths in bytes; a transfer that fails raises OSError."""

    def __init__(self, path: str | Path, size: int, read_only: bool = False) -> None:
        """Open `path`, or make it, full of holes, when it is absent or empty."""
        if size <= 0 or size % SECTOR:
            raise ImageError(f"{path}: a disk of {size} bytes is not a number of {SECTOR} bytes")
        self.size = size
        self.read_only = read_only
        mode = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
        try:
            self._fd = os.open(path, mode | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ImageError(f"{path}: cannot be opened: {error.strerror}") from error
        try:
            self._claim(path)
        except ImageError:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._fd)

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill `into`."""
        wanted = sum(map(len, into))
        if os.preadv(self._fd, into, offset) != wanted:
            raise OSError(errno.EIO, "the image was cut short")

    def write(self, offset: int, data: Sequence[memoryview]) -> None:
        """Write all of `data`."""
        wanted = sum(map(len, data))
        if os.pwritev(self._fd, data, offset) != wanted:
            raise OSError(errno.ENOSPC, "the host has no room for the image")

    def discard(self, offset: int, length: int) -> bool:
        """Make a hole, which reads as zeros; False where the host's file system cannot."""
        return int(_fallocate(self._fd, KEEP_SIZE_PUNCH_HOLE, offset, length)) == 0

    def _claim(self, path: str | Path) -> None:
        """One machine at a time, or two would undo each other's writes; then the size."""
        kind = fcntl.LOCK_SH if self.read_only else fcntl.LOCK_EX
        try:
            fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
        except OSError as error:
            raise ImageError(f"{path}: another machine runs on it: stop that one first") from error
        found = os.fstat(self._fd).st_size
        if found == 0 and not self.read_only:
            self._allocate(path)
        elif found != self.size:
            raise ImageError(
                f"{path}: has {found} bytes, the disk {self.size}: set its size to "
                f"{found}, or name another image"
            )

    def _allocate(self, path: str | Path) -> None:
        try:
            os.ftruncate(self._fd, self.size)
        except OSError as error:
            raise ImageError(f"{path}: cannot have {self.size} bytes: {error.strerror}") from error
