"""output: where what was fetched goes: a file of the file system, or standard output."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol

from ukernel.abi.errors import Answer, CallError
from ukernel.abi.services import CREATE, TRUNCATE, FileSystem
from ukernel.lib.memory import Region
from ukernel.lib.stub import release

PIECE = 128 * 1024  # bytes of one write: each is on the disk when it is answered
STDOUT = 1


class Output(Protocol):
    def write(self, data: bytes) -> None:
        """Take bytes that follow those before."""

    def close(self) -> None:
        """All is there."""

    def give_up(self) -> None:
        """Not all will come."""


class Stdout:
    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(STDOUT, data) :]

    def close(self) -> None:
        pass

    def give_up(self) -> None:
        pass


class FileOutput:
    """A file that is not there unless all of it is. Gathers pieces in a region."""

    def __init__(self, fs: FileSystem, path: str, region: Region) -> None:
        self._fs = fs
        self._path = path
        self._region = region
        self._file = fs.open(path, CREATE | TRUNCATE)
        self._written = self._gathered = 0

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            count = min(len(left), PIECE - self._gathered)
            self._region.view[self._gathered : self._gathered + count] = left[:count]
            self._gathered += count
            left = left[count:]
            if self._gathered == PIECE:
                self._flush()

    def _flush(self) -> None:
        done = 0
        while done < self._gathered:
            rest = self._region.show(done, self._gathered - done)
            done += self._file.write(self._written + done, rest)
        self._written += done
        self._gathered = 0

    def close(self) -> None:
        self._flush()
        release(self._file)

    def give_up(self) -> None:
        release(self._file)
        with suppress(Answer, CallError):
            self._fs.remove(self._path)
