"""commands: what the shell can do: each takes its options and tells what it did, as JSON would."""

from __future__ import annotations

import hashlib
import os
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from servers.shell.parser import UsageError
from servers.shell.volume import Volume, join
from ukernel.abi.errors import Answer
from ukernel.abi.services import (
    DIRECTORY,
    FILE,
    AlreadyExists,
    IsADirectory,
    NoSuchFile,
    NotADirectory,
    NotEmpty,
    StaleHandle,
    Stat,
)

Result = dict[str, Any]  # what --json shows of a command
KINDS = {FILE: "file", DIRECTORY: "directory"}
STDIN, STDOUT = 0, 1

# --- the commands -------------------------------------------------------------------------------


def ls(volume: Volume, options: Namespace) -> Result:
    path = options.path
    found = volume.stat(path)
    if found.kind == DIRECTORY:
        rows = [(e.name, e.kind, e.size) for e in volume.entries(path)]
    else:
        rows = [(path, *found)]
    return {"entries": [{"name": n, "kind": KINDS[k], "size": s} for n, k, s in rows]}


def cat(volume: Volume, options: Namespace) -> Result:
    return {"bytes": sum(_pour(volume, path, _raw(STDOUT, "wb")) for path in options.paths)}


def put(volume: Volume, options: Namespace) -> Result:
    local, remote = options.local, _target(options.remote, options.local)
    if local == "-":
        return {"files": 1, "bytes": volume.write(remote, _raw(STDIN, "rb"))}
    files = size = 0
    for source, target in _tree(Path(local), remote, options.recursive):
        if source.is_dir():
            volume.mkdir(target)
            continue
        with source.open("rb", buffering=0) as file:
            size += volume.write(target, file)
        files += 1
    return {"files": files, "bytes": size}


def _tree(local: Path, remote: str, recursive: bool) -> Iterable[tuple[Path, str]]:
    """What to copy and to where, directories before what is in them."""
    yield local, remote
    if local.is_dir():
        if not recursive:
            raise UsageError(f"{local} is a directory: put -r copies it")
        for below in sorted(local.rglob("*")):
            yield below, join(remote, below.relative_to(local).as_posix())


def get(volume: Volume, options: Namespace) -> Result:
    if options.local == "-":
        return {"bytes": _pour(volume, options.remote, _raw(STDOUT, "wb"))}
    volume.stat(options.remote)  # nothing is made outside for what is not there
    with open(_target(options.local, options.remote), "wb", buffering=0) as file:
        return {"bytes": _pour(volume, options.remote, file)}


def rm(volume: Volume, options: Namespace) -> Result:
    count = 0
    for path in options.paths:
        every = [p for p, _ in volume.walk(path)] if options.recursive else [path]
        for each in reversed(every):
            if each != "/" or not options.recursive:  # the root itself stays
                volume.remove(each)
                count += 1
    return {"removed": count}


def mkdir(volume: Volume, options: Namespace) -> Result:
    for path in options.paths:
        volume.mkdir(path)
    return {"paths": options.paths}


def mv(volume: Volume, options: Namespace) -> Result:
    new = _target(options.new, options.old)
    volume.rename(options.old, new)
    return {"old": options.old, "new": new}


def stat(volume: Volume, options: Namespace) -> Result:
    return {"paths": {path: _described(volume.stat(path)) for path in options.paths}}


def _described(found: Stat) -> Result:
    return {"kind": KINDS[found.kind], "size": found.size}


def sha256(volume: Volume, options: Namespace) -> Result:
    return {"sha256": {path: _digest(volume, path) for path in options.paths}}


def _digest(volume: Volume, path: str) -> str:
    digest = hashlib.sha256()
    for piece in volume.read(path):
        digest.update(piece)
    return digest.hexdigest()


def _pour(volume: Volume, path: str, out: IO[bytes]) -> int:
    size = 0
    for piece in volume.read(path):
        while piece:  # an unbuffered file may take less than it is given
            taken = out.write(piece)
            size += taken
            piece = piece[taken:]  # noqa: PLW2901
    return size


def _target(path: str, source: str) -> str:
    """`dir/` means the name of the source in that directory; anything else is the full name."""
    return join(path, PurePosixPath(source).name) if path.endswith("/") else path


def _raw(fd: int, mode: str) -> Any:
    return os.fdopen(fd, mode, buffering=0, closefd=False)


# --- how it is told -----------------------------------------------------------------------------


def _show_ls(result: Result, options: Namespace) -> Iterable[str]:
    for entry in result["entries"]:
        name = entry["name"] + ("/" if entry["kind"] == "directory" else "")
        yield f"{entry['kind'][0]} {entry['size']:>12} {name}" if options.long else name


def _show_stat(result: Result, options: Namespace) -> Iterable[str]:
    return (f"{path}: {r['kind']}, {r['size']} bytes" for path, r in result["paths"].items())


def _show_sha256(result: Result, options: Namespace) -> Iterable[str]:
    return (f"{digest}  {path}" for path, digest in result["sha256"].items())


COMMANDS: dict[str, Callable[[Volume, Namespace], Result]] = {
    "ls": ls, "cat": cat, "put": put, "get": get, "rm": rm, "mkdir": mkdir, "mv": mv,
    "stat": stat, "sha256": sha256,
}  # fmt: skip
SHOWN = defaultdict[str, Callable[[Result, Namespace], Iterable[str]]](
    lambda: lambda result, options: (),  # done: no more is said
    {"ls": _show_ls, "stat": _show_stat, "sha256": _show_sha256},
)
PHRASES: dict[type[Answer], str] = {
    NoSuchFile: "no such file",
    NotADirectory: "not a directory",
    IsADirectory: "is a directory",
    AlreadyExists: "already exists",
    NotEmpty: "the directory is not empty",
    StaleHandle: "the file was removed meanwhile",
}


def explain(error: Exception) -> str:
    """One line for people: which file, what is wrong."""
    if isinstance(error, Answer) and type(error) in PHRASES:
        return f"{error}: {PHRASES[type(error)]}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
