"""network: streams and files in this process, with the memory that would be lent to others."""

from __future__ import annotations

from typing import cast

from ukernel.abi.interface import Lent
from ukernel.abi.network import ConnectionReset, Stream
from ukernel.abi.services import (
    DIRECTORY,
    FILE,
    PAGE,
    Entry,
    File,
    FileSystem,
    IsADirectory,
    NoSuchFile,
    StaleHandle,
    Stat,
)
from ukernel.lib.memory import Region

Memory = dict[bytes, memoryview]


class FakeRegion:
    """Memory that is lent by its token."""

    def __init__(self, memory: Memory, size: int) -> None:
        self.view = memoryview(bytearray(size))
        self.token = bytes([len(memory)])
        memory[self.token] = self.view

    def lend(self, offset: int, length: int) -> Lent:
        return Lent(self.token, offset, length)

    show = lend


def region(memory: Memory, size: int) -> Region:
    return cast(Region, FakeRegion(memory, size))


def window(memory: Memory, lent: Lent) -> memoryview:
    found = memory[lent.token]
    assert lent.offset + lent.length <= len(found)
    return found[lent.offset : lent.offset + lent.length]


class FakeStream:
    """A connection whose other end is the test. Takes at most `room` bytes, and never waits."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.arrived = b""
        self.ended = False  # nothing more arrives
        self.taken = bytearray()
        self.room = 1 << 40
        self.did: list[str] = []

    def send(self, at: int, data: Lent) -> int:
        if "reset" in self.did:
            raise ConnectionReset("by the test")
        assert at == len(self.taken)
        piece = window(self.memory, data)[: self.room]
        assert data.length, "nothing was to be sent"
        self.taken += piece
        self.room -= len(piece)
        return len(self.taken)

    def recv(self, at: int, into: Lent) -> int:
        piece = self.arrived[at : at + into.length]
        assert piece or self.ended, "it would wait"
        window(self.memory, into)[: len(piece)] = piece
        return len(piece)

    def shutdown(self, directions: int) -> None:
        self.did.append("shutdown")

    def abort(self) -> None:
        self.did.append("abort")

    @property
    def stub(self) -> Stream:
        return cast(Stream, self)


class FakeFile:
    def __init__(self, fs: FakeFs, path: str) -> None:
        self.fs = fs
        self.path = path
        self.birth = fs.births.get(path, 0)

    @property
    def content(self) -> bytes:
        if self.fs.births.get(self.path, 0) != self.birth:
            raise StaleHandle(self.path)
        return self.fs.files[self.path]

    def read(self, offset: int, into: Lent) -> int:
        piece = self.content[offset : offset + into.length]
        window(self.fs.memory, into)[: len(piece)] = piece
        self.fs.reads += 1
        return len(piece)

    def stat(self) -> Stat:
        return Stat(FILE, len(self.content))


class FakeFs:
    """Files by their paths; a directory is what there is something in."""

    def __init__(self, memory: Memory, files: dict[str, bytes]) -> None:
        self.memory = memory
        self.files = files
        self.births: dict[str, int] = {}
        self.opened: list[str] = []
        self.reads = 0

    def replace(self, path: str, content: bytes | None) -> None:
        """Another file of this name, or none."""
        self.births[path] = self.births.get(path, 0) + 1
        del self.files[path]
        if content is not None:
            self.files[path] = content

    def open(self, path: str, mode: int) -> File:
        assert mode == 0
        if path in self.files:
            self.opened.append(path)
            return cast(File, FakeFile(self, path))
        raise IsADirectory(path) if self._below(path) else NoSuchFile(path)

    def entries(self, path: str, start: int) -> list[Entry]:
        if not self._below(path):
            raise NoSuchFile(path)
        found = {}
        for name in self._below(path):
            part, slash, _ = name[len(path.rstrip("/")) + 1 :].partition("/")
            kind = DIRECTORY if slash else FILE
            found[part] = Entry(part, kind, 0 if slash else len(self.files[name]))
        return sorted(found.values())[start : start + PAGE]

    def _below(self, path: str) -> list[str]:
        return [name for name in self.files if name.startswith(path.rstrip("/") + "/")]

    @property
    def stub(self) -> FileSystem:
        return cast(FileSystem, self)
