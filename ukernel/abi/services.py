"""services: the interfaces of the system's own servers.

Each class is the whole definition: the server implements it, `connect` returns a stub of it,
`ukernel manual NAME` prints it. A file, like any object handed to a client, is a capability.
"""

from __future__ import annotations

from typing import NamedTuple

from ukernel.abi.errors import Answer
from ukernel.abi.interface import Interface, Lent, op, u8, u32, u64

SECTOR = 512  # bytes; virtio 1.2 §5.2.4: capacity and addresses of a block device count these

FILE = 1
DIRECTORY = 2

READ_ONLY = 0
CREATE = 1  # make the file when it is not there
TRUNCATE = 2  # cut it to nothing first
PAGE = 128  # directory entries per call of `FileSystem.entries`


class OutOfRange(Answer):
    """The address or length lies outside the object."""


class DeviceFailed(Answer):
    """The device reported an error for this request."""


class ReadOnly(Answer):
    """The object cannot be written."""


class NoSuchFile(Answer):
    """Nothing has this name."""


class NotADirectory(Answer):
    """A part of the path is a file."""


class IsADirectory(Answer):
    """The operation works on files only."""


class AlreadyExists(Answer):
    """The name is taken."""


class NotEmpty(Answer):
    """The directory still has entries."""


class NoSpace(Answer):
    """The volume is full."""


class BadName(Answer):
    """A path is absolute, has no empty part, and no part longer than 255 bytes."""


class StaleHandle(Answer):
    """The file behind this capability was removed."""


class Echo(Interface):
    """Gives back what it gets: the shortest useful server, and the one that the bench calls."""

    @op(1, idempotent=True)
    def echo(self, data: bytes) -> bytes:
        """The same bytes."""


class Block(Interface):
    """A disk in sectors of 512 bytes. A write is durable after the `flush` that follows it."""

    answers = (OutOfRange, DeviceFailed, ReadOnly)

    @op(1, idempotent=True)
    def capacity(self) -> u64:
        """Sectors on the disk."""

    @op(2, idempotent=True)
    def read(self, first: u64, into: Lent) -> u32:
        """Fill `into`, whole sectors, from sector `first`; the bytes read."""

    @op(3, idempotent=True)
    def write(self, first: u64, data: Lent) -> u32:
        """Write `data`, whole sectors, at sector `first`; the bytes written."""

    @op(4, idempotent=True)
    def flush(self) -> None:
        """Make every write answered before this call survive a power cut."""

    @op(5, idempotent=True)
    def discard(self, first: u64, count: u64) -> None:
        """Say that these sectors hold nothing of use; they read as zeros or as before."""


class Stat(NamedTuple):
    kind: u8
    size: u64


class Entry(NamedTuple):
    name: str
    kind: u8
    size: u64


class File(Interface):
    """An open file. The capability is the file: to close it, delete the capability."""

    answers = (StaleHandle, NoSpace, OutOfRange, DeviceFailed)

    @op(1, idempotent=True)
    def read(self, offset: u64, into: Lent) -> u32:
        """Fill `into` from `offset`; the bytes read, fewer only at the end of the file."""

    @op(2, idempotent=True)
    def write(self, offset: u64, data: Lent) -> u32:
        """Write `data` at `offset`; when this is answered, the bytes are on the disk."""

    @op(3, idempotent=True)
    def truncate(self, size: u64) -> None:
        """Cut or extend with zeros to `size` bytes."""

    @op(4, idempotent=True)
    def stat(self) -> Stat:
        """Kind and size."""

    @op(5, idempotent=True)
    def sync(self) -> None:
        """Make everything written to this file survive a power cut."""


class FileSystem(Interface):
    """Directories and files. Paths are absolute, parts divided by `/`."""

    answers = (
        NoSuchFile,
        NotADirectory,
        IsADirectory,
        AlreadyExists,
        NotEmpty,
        NoSpace,
        BadName,
        DeviceFailed,
    )

    @op(1, idempotent=True)
    def open(self, path: str, mode: u32) -> File:
        """A capability to the file; `mode` is READ_ONLY (0) or CREATE (1) and TRUNCATE (2) ORed."""

    @op(2, idempotent=True)
    def mkdir(self, path: str) -> None:
        """Make the directory and those above it; well if it is there already."""

    @op(3, idempotent=True)
    def entries(self, path: str, start: u32) -> list[Entry]:
        """Up to 128 entries of a directory in the order of their names, from number `start`."""

    @op(4, idempotent=True)
    def stat(self, path: str) -> Stat:
        """Kind and size of what has this name."""

    @op(5)
    def rename(self, old: str, new: str) -> None:
        """Give `old` the name `new`, in one step even across a power cut; replaces a file."""

    @op(6)
    def remove(self, path: str) -> None:
        """Remove a file or an empty directory."""

    @op(7, idempotent=True)
    def sync(self) -> None:
        """Make everything answered before survive a power cut."""


class Console(Interface):
    """A terminal line."""

    answers = (DeviceFailed,)

    @op(1)
    def write(self, data: bytes) -> u32:
        """Show `data`; the bytes shown."""

    @op(2)
    def read(self, most: u32) -> bytes:
        """What was typed, at least one byte; waits until there is something."""


class Timer(Interface):
    """The machine's clock: nanoseconds that start with the machine and never go back."""

    @op(1, idempotent=True)
    def now(self) -> u64:
        """What the clock shows."""

    @op(2, idempotent=True)
    def sleep_until(self, when: u64) -> u64:
        """Wait until the clock shows `when`; what it showed on waking."""


class Entropy(Interface):
    """Random bytes from the machine's generator."""

    answers = (DeviceFailed,)

    @op(1, idempotent=True)
    def read(self, count: u32) -> bytes:
        """`count` random bytes, at most 4096."""


class Access(NamedTuple):
    """One register access of a burst."""

    offset: u32
    store: bool
    value: u32  # to store; ignored by a load


class Registers(Interface):
    """A device's register window (virtio 1.2 §4.2.2): 32-bit registers, byte-wide configuration.

    `store` is posted as on PCI Express: sent one-way, in order, and seen by every later `load`.
    """

    @op(1, idempotent=True)
    def load(self, offset: u32) -> u32:
        """The register at `offset`."""

    @op(2, posted=True)
    def store(self, offset: u32, value: u32) -> None:
        """Set the register at `offset`."""

    @op(3, idempotent=True)
    def config(self, offset: u32, length: u32) -> bytes:
        """Bytes of the device's configuration space."""

    @op(4)
    def burst(self, accesses: list[Access]) -> list[u32]:
        """Loads and stores in their order, in one message; the values of the loads."""


class NoSuchKey(Answer):
    """Nothing is kept under this name."""


class KeyValue(Interface):
    """A small table that survives its server. A change names itself by an operation id that its
    caller chose: said again, after a crash for instance, it is done once and answered the same."""

    answers = (NoSuchKey, NoSpace, DeviceFailed)

    @op(1, idempotent=True)
    def get(self, key: str) -> bytes:
        """What was put under `key`."""

    @op(2, idempotent=True)
    def put(self, key: str, value: bytes, operation: bytes) -> None:
        """Keep `value` under `key`."""

    @op(3, idempotent=True)
    def add(self, key: str, amount: u32, operation: bytes) -> u64:
        """Add to the number under `key`, which begins with 0; the number then."""

    @op(4, idempotent=True)
    def remove(self, key: str, operation: bytes) -> None:
        """Forget `key`; well if there is none."""

    @op(5, idempotent=True)
    def number(self, key: str) -> u64:
        """The number under `key`; 0 when nothing was added."""

    @op(6, idempotent=True)
    def keys(self, start: u32) -> list[str]:
        """Up to 128 names in their order, from number `start`; of values, not of numbers."""


class LoadFailed(Answer):
    """An operation of the job was refused; the text says which one, and why."""


class Timed(NamedTuple):
    """What one kind of operation came to in a job, or, in its units, the job itself, whose
    percentiles are of longer stretches. `moved` and `wrong` count bytes and answers."""

    operation: str
    times: u64
    moved: u64
    total_ns: u64
    p50_ns: u64
    p99_ns: u64
    wrong: u64


class Done(NamedTuple):
    """One write of a burst, on CLOCK_MONOTONIC; without an `error` it was acknowledged."""

    begun_ns: u64
    ended_ns: u64
    error: str


class Kept(NamedTuple):
    """What is there of the files that bursts have written: `lost` and `wrong` are to be 0."""

    files: u64
    lost: u64
    wrong: u64


class Load(Interface):
    """Work for a file server, measured where it is done: by the application that calls it."""

    answers = (LoadFailed,)

    @op(1)
    def work(self, job: str, amount: u32) -> list[Timed]:
        """Do so much of a job; the job as a whole, then each kind of operation in it."""

    @op(2)
    def burst(self, writes: u32) -> list[Done]:
        """Write so many small files, one after the other, whatever comes of each."""

    @op(3, idempotent=True)
    def kept(self) -> Kept:
        """Read back what bursts have written, in this life and in earlier ones."""
