"""server: does jobs when it is told to, and says what they took. It knows no placement.

Every call here is made through an ordinary stub of an ordinary link of the system file. What it
was promised about its small files outlives it (journal.py).
"""

from __future__ import annotations

import time

from servers.load import content
from servers.load.jobs import HOME, JOBS, SMALL, Tools
from servers.load.journal import FILES, SIZE, Journal
from servers.load.stopwatch import Stopwatch
from ukernel.abi.errors import Answer, CallError
from ukernel.abi.services import (
    CREATE,
    READ_ONLY,
    Done,
    Echo,
    FileSystem,
    Kept,
    Load,
    LoadFailed,
    NoSuchFile,
    Timed,
)
from ukernel.lib.server import Server
from ukernel.lib.stub import connect, kernel, release

PROBE = 64 * 1024  # bytes of a read that is to see the end of a small file


class LoadServer(Server, Load):
    def setup(self) -> None:
        self.fs = connect(FileSystem, str(self.args["fs"]))
        self.echo = connect(Echo, str(self.args["echo"]))
        self.window = self.region("window", content.LARGEST)
        self.journal = Journal(self.region("journal", SIZE, persistent=True).view)

    def work(self, job: str, amount: int) -> list[Timed]:
        if job not in JOBS:
            raise LoadFailed(f"no job {job!r}: there are {', '.join(JOBS)}")
        watch = Stopwatch(self.progress)
        trap = kernel(self.connection, self.connection.named["self"]).describe
        try:
            JOBS[job](Tools(self.fs, self.echo, trap, self.window, watch), amount)
        except (Answer, CallError) as error:
            raise LoadFailed(f"{job}: {_described(error)}") from error
        return watch.rows(job)

    def burst(self, writes: int) -> list[Done]:
        watch = Stopwatch(self.progress)
        return [watch.time("write", self._write_next) for _ in range(writes)]

    def _write_next(self) -> Done:
        """The next small file; those of a burst take turns."""
        file = self.journal.writes() % FILES
        generation = self.journal.begin(file)
        begun_ns, error = time.monotonic_ns(), ""
        try:
            self._store(file, content.small(file, generation, SMALL))
        except (Answer, CallError) as refused:
            error = _described(refused)
        else:
            self.journal.keep(file, generation)
        return Done(begun_ns, time.monotonic_ns(), error)

    def _store(self, file: int, data: bytes) -> None:
        handle = self.fs.open(_path(file), CREATE)
        self.window.view[: len(data)] = data
        handle.write(0, self.window.show(0, len(data)))
        release(handle)

    def kept(self) -> Kept:
        journal = self.journal
        written = [file for file in range(FILES) if journal.begun(file)]
        lost = wrong = 0
        for file in written:
            self.progress()
            try:
                found = self._load(file)
            except (Answer, CallError) as error:
                raise LoadFailed(f"{_path(file)}: {_described(error)}") from error
            generation = content.generation_of(file, found)
            if not found or 0 < generation < journal.kept(file):
                lost += journal.kept(file) > 0  # without an acknowledgement nothing was promised
            elif not generation or generation > journal.begun(file):
                wrong += 1
        return Kept(len(written), lost, wrong)

    def _load(self, file: int) -> bytes:
        """What is in a small file, empty when it is not there."""
        try:
            handle = self.fs.open(_path(file), READ_ONLY)
        except NoSuchFile:
            return b""
        count = handle.read(0, self.window.lend(0, PROBE))
        release(handle)
        return bytes(self.window.view[:count])


def _path(file: int) -> str:
    return f"{HOME}/kept-{file}"


def _described(error: Exception) -> str:
    text, name = str(error), type(error).__name__
    return text if isinstance(error, CallError) else f"{name}: {text}"
