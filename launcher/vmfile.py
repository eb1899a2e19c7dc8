"""vmfile: a virtual machine in a file: what it is, a checksum, and its image.

    magic, version, bytes of the description    8 bytes, u32, u32, little-endian
    description                                 JSON: name, engine, memory, size, blake2b
    zeros up to HEAD
    image                                       `size` bytes, as its monitor made them

A file is whole or not there: it is written under another name, and renamed when it is on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

MAGIC = b"UKERNVM\n"
VERSION = 1
START = struct.Struct("<8sII")
HEAD = 4096  # bytes before the image
CHUNK = 1 << 20


class BadFile(Exception):
    """This is no copy of a virtual machine that could be used; the text says why."""


class About(NamedTuple):
    """What a file says of the virtual machine in it."""

    name: str  # that it was copied from
    engine: str
    memory: int  # bytes
    size: int  # of the image
    blake2b: str  # of the image, hex


class Written(NamedTuple):
    """What is known of an image when it has been written."""

    name: str
    engine: str
    memory: int


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes `path` at the end, unless something is raised. It stands where the image
    begins. Raises OSError."""
    if path.exists() and not path.is_file():  # a device, say: a file would take its place
        raise FileExistsError(errno.EEXIST, "it is there, and no file", str(path))
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with half.open("w+b", buffering=0) as file:
            file.seek(HEAD)
            yield file
            os.fsync(file.fileno())
        half.rename(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def finish(file: BinaryIO, what: Written) -> About:
    """Put the description before the image that has been written."""
    size = file.seek(0, os.SEEK_END) - HEAD
    about = About(*what, size, _digest(file))
    text = json.dumps(about._asdict()).encode()
    file.seek(0)
    file.write((START.pack(MAGIC, VERSION, len(text)) + text).ljust(HEAD, b"\0"))
    return about


def check(file: BinaryIO, path: Path) -> About:
    """What is in an open file, which then stands where the image begins. Raises BadFile."""
    about = _described(file.read(HEAD), path)
    size = file.seek(0, os.SEEK_END) - HEAD
    if size != about.size:
        raise BadFile(f"{path}: its image has {size} bytes of {about.size}: it was cut off")
    if _digest(file) != about.blake2b:
        raise BadFile(f"{path}: its image is not what its checksum says: it was changed")
    file.seek(HEAD)
    return about


def _described(head: bytes, path: Path) -> About:
    if len(head) < HEAD or not head.startswith(MAGIC):
        raise BadFile(f"{path}: no copy of a virtual machine, as `ukernel vm snapshot` makes them")
    _, version, length = START.unpack_from(head)
    if version != VERSION:
        raise BadFile(f"{path}: its format is version {version}, and this reads {VERSION}")
    try:
        told = json.loads(head[START.size : START.size + length])
        about = About(**told)
    except (ValueError, TypeError):
        about = None
    kinds = [str, str, int, int, str]
    if about is None or [type(value) for value in about] != kinds:
        raise BadFile(f"{path}: its description cannot be read: it was changed")
    return about


def _digest(file: BinaryIO) -> str:
    """Of the image."""
    file.seek(HEAD)
    digest = hashlib.blake2b(digest_size=32)
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
