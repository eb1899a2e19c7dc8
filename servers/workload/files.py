"""files: whole files, written over and over with ever new bytes and now and then read back.

A file is /CLIENT/NUMBER and has `size` bytes. A write is one `File.write`, which the file system
does as a whole or not at all. It never truncates: that would be a second change, and to cut what
was acknowledged and then fail to write would lose it. So an empty file is one that was made and
not yet written, and counts as none.

Some files stay open for a long time, across the deaths of the file system.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from servers.workload.client import VERIFY, Client, Setting, close, value_or_why
from servers.workload.history import DOUBTFUL_CHANGE, OK
from servers.workload.memory import Windows
from ukernel.abi.errors import DeadlinePassed
from ukernel.abi.services import CREATE, PAGE, READ_ONLY, Entry, File, FileSystem, NoSuchFile
from ukernel.lib.memory import Region

KEPT = 4  # files that stay open
READS = 0.15  # share of the operations that read back
REWRITES = 0.25  # share that write to a file that is open already
CLOSES = 0.02  # share after which one of them is closed, and the next that is written stays open
WINDOWS = 4
NOTHING = ""  # the value of a file that is not there, or is empty


class FilesRun(Client):
    interface = FileSystem
    defaults = Client.defaults | VERIFY | {"files": 64, "size": 16 * 1024}  # size: bytes

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.fs: FileSystem = setting.server
        self.directory = f"/{self.name}"
        self.size = self.number("size")
        self.windows = Windows(self.memory, self.size + 1, WINDOWS)  # 1: to see the end
        self.kept: dict[str, File] = {}
        self.acknowledged: dict[str, None] = {}  # files that must be there
        self.written = 0
        self.ready = False  # the directory is there

    # --- the run --------------------------------------------------------------------------------

    def step(self) -> bool:
        dice = self.dice.random()
        if dice < READS and self.acknowledged:
            return self._read(self.dice.choice(list(self.acknowledged)))
        if dice < READS + REWRITES and self.kept:
            return self._write(self.dice.choice(list(self.kept)))
        if dice > 1 - CLOSES and self.kept:
            close(self.kept.pop(self.dice.choice(list(self.kept))))
        done = self._write(f"{self.directory}/{self.written % self.number('files')}")
        self.written += 1
        return done

    def _write(self, path: str) -> bool:
        content = self.dice.randbytes(self.size)

        def write() -> str:
            self._make_directory()
            with self._lent() as window, self._opened(path, CREATE) as file:
                window.view[: len(content)] = content
                file.write(0, window.show(0, len(content)))
            return ""

        value = hashlib.sha256(content).hexdigest()
        outcome = self.history.attempt("write", path, write, value=value, doubtful=DOUBTFUL_CHANGE)
        if outcome == OK:
            self.acknowledged[path] = None
        return outcome == OK

    def _read(self, path: str) -> bool:
        return self.history.attempt("read", path, lambda: self._sum(path)) == OK

    def _sum(self, path: str) -> str:
        """The SHA-256 of a file, however long it is; one call if it is as long as it should be."""
        digest, offset = hashlib.sha256(), 0
        try:
            with self._lent() as window, self._opened(path, READ_ONLY) as file:
                count = length = len(window.view)
                while count == length:
                    count = file.read(offset, window.lend(0, length))
                    digest.update(window.view[:count])
                    offset += count
        except NoSuchFile:
            return NOTHING
        return digest.hexdigest() if offset else NOTHING

    def _make_directory(self) -> None:
        if not self.ready:
            self.fs.mkdir(self.directory)
            self.ready = True

    # --- what it holds --------------------------------------------------------------------------

    @contextmanager
    def _lent(self) -> Iterator[Region]:
        """A window for one operation."""
        window = self.windows.take()
        try:
            yield window
        except DeadlinePassed:
            self.windows.spoil(window)
            raise

    @contextmanager
    def _opened(self, path: str, mode: int) -> Iterator[File]:
        """The file, for as long as this takes or longer. After a failure it is closed."""
        stays = path in self.kept or (mode == CREATE and len(self.kept) < KEPT)
        file = self.kept.pop(path, None) or self.fs.open(path, mode)
        try:
            yield file
            if stays:
                self.kept[path] = file
        finally:
            if path not in self.kept:
                close(file)

    # --- what is there --------------------------------------------------------------------------

    def found(self) -> dict[str, str]:
        """Every file that is not empty; of one that cannot be read, why."""
        paths = [f"{self.directory}/{entry.name}" for entry in self._entries()]
        values = {path: value_or_why(partial(self._sum, path)) for path in paths}
        return {path: value for path, value in values.items() if value != NOTHING}

    def _entries(self) -> Iterator[Entry]:
        with suppress(NoSuchFile):
            start, page = 0, self.fs.entries(self.directory, 0)
            while page:
                yield from page
                start += PAGE
                page = self.fs.entries(self.directory, start) if len(page) == PAGE else []
