"""jobs: the work, by name. The same calls in the same order wherever the file server is.

prepare   what the others need: directories, and the files that `metadata` looks at
files     small files: create, write, read back and check, remove
write     one large file, `amount` MiB, in pieces of 128 KiB
read      the large file from begin to end, `amount` times, every piece checked
metadata  stat, entries, rename, mkdir, remove, `amount` rounds
call      empty calls of another server: what a call costs on this way
trap      system calls that change nothing: what a word with the kernel costs
"""

from __future__ import annotations

from collections.abc import Callable
from time import sleep
from typing import NamedTuple

from servers.load import content
from servers.load.stopwatch import Stopwatch
from ukernel.abi.services import (
    CREATE,
    DIRECTORY,
    FILE,
    READ_ONLY,
    Echo,
    File,
    FileSystem,
    NoSuchFile,
    Stat,
)
from ukernel.lib.memory import Region
from ukernel.lib.stub import release

HOME, LARGE, NAMES = "/load", "/load/large", "/load/names"
SMALL = 4096  # bytes
PIECE = content.LARGEST  # bytes of one read or write of the large file
MIB = 1 << 20
ENTRIES = 32  # of the directory that is listed
STATS = 4  # of one round
PING = b"u" * 64
PAUSE_S = 0.002  # longer than anybody may spin


class Tools(NamedTuple):
    """What a job works with."""

    fs: FileSystem
    echo: Echo
    trap: Callable[[], object]
    window: Region  # at least PIECE bytes, lent with each read and write
    watch: Stopwatch


def prepare(tools: Tools, amount: int) -> None:
    time, fs = tools.watch.time, tools.fs
    time("mkdir", fs.mkdir, NAMES)
    for number in range(ENTRIES):
        file = time("create", fs.open, _name(number), CREATE)
        _write(tools, file, 0, content.small(number, 1, SMALL))
        time("close", release, file)


def files(tools: Tools, amount: int) -> None:
    time, fs = tools.watch.time, tools.fs
    for number in range(1, amount + 1):
        path, expected = f"{HOME}/small-{number}", content.small(number, number, SMALL)
        file = time("create", fs.open, path, CREATE)
        _write(tools, file, 0, expected)
        time("close", release, file)
        file = time("open", fs.open, path, READ_ONLY)
        _read(tools, file, 0, expected)
        time("close", release, file)
        time("remove", fs.remove, path)
        tools.watch.unit()


def write(tools: Tools, amount: int) -> None:
    time, fs = tools.watch.time, tools.fs
    file = time("create", fs.open, LARGE, CREATE)
    for number in range(amount * MIB // PIECE):
        _write(tools, file, number * PIECE, content.piece(number))
        tools.watch.unit()
    time("sync", file.sync)
    time("close", release, file)


def read(tools: Tools, amount: int) -> None:
    time, fs = tools.watch.time, tools.fs
    pieces = fs.stat(LARGE).size // PIECE
    file = time("open", fs.open, LARGE, READ_ONLY)
    for _ in range(amount):
        for number in range(pieces):
            _read(tools, file, number * PIECE, content.piece(number))
            tools.watch.unit()
    time("close", release, file)


def metadata(tools: Tools, amount: int) -> None:
    time, check, fs = tools.watch.time, tools.watch.check, tools.fs
    names = sorted(_name(number).rpartition("/")[2] for number in range(ENTRIES))
    for number in range(amount):
        path, old, new = f"{HOME}/dir-{number}", _name(number % ENTRIES), f"{NAMES}/moved"
        time("mkdir", fs.mkdir, path)
        for at in range(STATS):
            found = time("stat", fs.stat, _name((number + at) % ENTRIES))
            check("stat", found == Stat(FILE, SMALL))
        listed = time("entries", fs.entries, NAMES, 0)
        check("entries", [entry.name for entry in listed] == names)
        time("rename", fs.rename, old, new)
        gone = not time("stat", _there, fs, old)
        check("rename", gone and time("stat", fs.stat, new) == Stat(FILE, SMALL))
        time("rename", fs.rename, new, old)
        check("mkdir", time("stat", fs.stat, path).kind == DIRECTORY)
        time("remove", fs.remove, path)
        tools.watch.unit()


def call(tools: Tools, amount: int) -> None:
    time, check, echo = tools.watch.time, tools.watch.check, tools.echo.echo
    for _ in range(amount):
        check("call", time("call", echo, PING) == PING)
        tools.watch.unit()


def rested(tools: Tools, amount: int) -> None:
    for _ in range(amount):
        sleep(PAUSE_S)
        tools.watch.check("rested", tools.watch.time("rested", tools.echo.echo, PING) == PING)
        tools.watch.unit()


def trap(tools: Tools, amount: int) -> None:
    for _ in range(amount):
        tools.watch.time("trap", tools.trap)
        tools.watch.unit()


JOBS: dict[str, Callable[[Tools, int], None]] = {
    job.__name__: job for job in (prepare, files, write, read, metadata, call, rested, trap)
}


def _name(number: int) -> str:
    return f"{NAMES}/{number:04}"


def _there(fs: FileSystem, path: str) -> bool:
    try:
        fs.stat(path)
    except NoSuchFile:
        return False
    return True


def _write(tools: Tools, file: File, offset: int, data: bytes) -> None:
    window, watch = tools.window, tools.watch
    window.view[: len(data)] = data
    count = watch.time("write", file.write, offset, window.show(0, len(data)))
    watch.moved("write", count)
    watch.check("write", count == len(data))


def _read(tools: Tools, file: File, offset: int, expected: bytes) -> None:
    window, watch = tools.window, tools.watch
    count = watch.time("read", file.read, offset, window.lend(0, len(expected)))
    watch.moved("read", count)
    watch.check("read", bytes(window.view[:count]) == expected)
