"""workload: the clients of an experiment. One class is one kind of work, and the keys it has."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from launcher.chaos.values import IPV4_PATTERN, PATH_PATTERN, URL_PATTERN
from ukernel.abi.manifest import MAX_SEED, Name, Part, Size

NO_OPTIONS = {"run", "client", "bystander"}  # of the task

Count = Annotated[int, Field(ge=1)]
Verify = Literal["sha256"]


class Workload(Part):
    """What every client has."""

    client: Name
    """Its name."""
    run: str
    """Its work."""
    to: Name | None = None
    """The server that it calls; without it the only one with the right interface."""
    bystander: bool = False
    """Whether it must notice nothing of the faults."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    """Of what it writes and in which order; without it the seed of the run."""
    every_ms: Annotated[int, Field(ge=0)] | None = None
    """Milliseconds from one operation to the next; 0: as fast as they are answered."""
    timeout_ms: Count | None = None
    """Milliseconds until an operation is given up."""

    interface: ClassVar[str]
    """What its server serves."""
    writes: ClassVar[bool] = False
    """Whether something must be there afterwards."""
    checks: ClassVar[bool] = False
    """Whether it knows what it should be answered."""
    moves: ClassVar[bool] = False
    """Whether it counts the bytes that it moves, as a sweep needs it."""
    shows: ClassVar[bool] = False
    """Whether it sees what a guest shows."""
    fetches: ClassVar[bool] = False
    """Whether it downloads files."""
    outside: ClassVar[bool] = False
    """Whether it is a program of the host, which the system meets on the network alone."""

    def argv(self, seed: int | None = None) -> list[str]:
        """The arguments of `servers.workload`; `seed` is for a client that has none of its own.

        Raises ValueError when nobody has said which server it calls.
        """
        if self.to is None:
            raise ValueError(f"client {self.client} calls no server yet")
        options = {"seed": seed, **self.model_dump(exclude_none=True, exclude=NO_OPTIONS)}
        words = [f"{key}={value}" for key, value in options.items() if value is not None]
        return [self.run, self.client, *words]


class Files(Workload):
    """Write whole files over and over, and read them back."""

    run: Literal["files"]
    files: Count | None = None
    """How many."""
    size: Size | None = None
    """Bytes of each."""
    verify: Verify | None = None
    """How what is read is compared with what was written."""
    interface = "file"
    writes = checks = True


class Kv(Workload):
    """Put, get and add in a key-value server."""

    run: Literal["kv"]
    keys: Count | None = None
    """How many."""
    size: Size | None = None
    """Characters of a value."""
    interface = "kv"
    writes = checks = True


class Echo(Workload):
    """Send bytes and expect the same."""

    run: Literal["echo"]
    size: Size | None = None
    """How many at most."""
    interface = "echo"
    checks = True


class Read(Workload):
    """Read one large file from begin to end, over and over."""

    run: Literal["read"]
    path: Annotated[str, Field(pattern=PATH_PATTERN)] | None = None
    """Its name."""
    size: Size | None = None
    """Its bytes."""
    block: Size | None = None
    """Bytes of one read."""
    verify: Verify | None = None
    """How what is read is compared with what is there."""
    interface = "file"
    checks = moves = True


class Outside(Workload):
    """What every client has that is a program of the host, and which the system meets on the
    network alone."""

    device: Name | None = None
    """The card whose other end it is at; without it the only one that leads into the host."""
    times: Count | None = None
    """How often; without it as often as there is time for."""
    outside = True


class Datagrams(Outside):
    """Send datagrams to the guest of a virtual machine and expect the same: from outside, over a
    network card."""

    run: Literal["datagrams"]
    address: Annotated[str, Field(pattern=IPV4_PATTERN)]
    """Of the guest."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Of UDP; without it 7, which is for an echo."""
    size: Annotated[Size, Field(le=1400)] | None = None
    """How many bytes at most."""
    interface = "vm"


class Download(Outside):
    """Fetch a file by HTTP, over and over, with curl: from outside, over a network card."""

    run: Literal["download"]
    url: Annotated[str, Field(pattern=URL_PATTERN)]
    """Where it is to be had."""
    path: Annotated[str, Field(pattern=PATH_PATTERN)] | None = None
    """Its name in the file system, where it is made before the run; without it, that of the URL."""
    size: Size | None = None
    """Its bytes."""
    verify: Verify | None = None
    """How what comes is compared with what is there."""
    interface = "file"
    moves = fetches = True


class Clock(Workload):
    """Ask for the time."""

    run: Literal["clock"]
    interface = "timer"


class Entropy(Workload):
    """Ask for random bytes."""

    run: Literal["entropy"]
    size: Annotated[Size, Field(le=4096)] | None = None
    """How many."""
    interface = "entropy"


class Console(Workload):
    """Write lines on the console."""

    run: Literal["console"]
    size: Size | None = None
    """Characters of a line, at least."""
    interface = "console"


class Guest(Workload):
    """Look at a virtual machine: at each line that its guest shows, and at its status."""

    run: Literal["guest"]
    interface = "vm"
    shows = True


RUNS: dict[str, type[Workload]] = {
    "files": Files,
    "kv": Kv,
    "echo": Echo,
    "read": Read,
    "download": Download,
    "clock": Clock,
    "entropy": Entropy,
    "console": Console,
    "guest": Guest,
    "datagrams": Datagrams,
}
AnyWorkload = Annotated[
    Files | Kv | Echo | Read | Download | Clock | Entropy | Console | Guest | Datagrams,
    Field(discriminator="run"),
]
