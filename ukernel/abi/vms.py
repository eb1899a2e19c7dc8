"""vms: virtual machines as a system file says them.

Each is one server more, its monitor, written shorter: see launcher.virtual, which makes it so.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ukernel.abi.fields import (
    AS_SIZE,
    FILE_PATTERN,
    MAX_BADGE,
    Arg,
    Badge,
    Core,
    DurationMs,
    Listed,
    Name,
    Part,
    some,
)
from ukernel.abi.sizes import UNITS
from ukernel.abi.supervision import Heartbeat, Restart

PAGE = 4096
LEAST_MEMORY, MOST_MEMORY = UNITS["MiB"], 16 * UNITS["GiB"]
GuestMemory = Annotated[int, Field(ge=LEAST_MEMORY, le=MOST_MEMORY, multiple_of=PAGE), AS_SIZE]


class VmDisk(Part):
    """The disk of a virtual machine: a server of blocks, or one of its partitions."""

    server: Name
    """Who serves it: `parts`, or the driver of a whole disk."""
    badge: Badge = 0
    """Which partition, as that server counts them. 0: the server's own disk."""
    via: Literal["kernel", "channel"] = "channel"
    """The way of its requests, as in `servers.NAME.calls`."""


class VmNic(Part):
    """The network card of a virtual machine: a port of a switch, or a driver's own card."""

    server: Name
    """Who serves it: `switch`, or the driver of a card."""
    port: Annotated[int, Field(ge=0, le=MAX_BADGE)] = 0
    """Which port. 0: the driver's own card."""
    via: Literal["kernel", "channel"] = "channel"
    """The way of its frames, as in `servers.NAME.calls`."""


class Vm(Part):
    """A virtual machine, in a monitor of its own: a server with this name that serves `vm`, holds
    its disk and its network card, and nothing else."""

    image: Annotated[str, Field(pattern=FILE_PATTERN)] | None = None
    """What it runs: the name of a guest that comes with the system, such as `heartbeat`, or a file,
    relative to the system file."""
    standby_for: Name | None = None
    """In place of an image: an empty monitor with what that virtual machine has, for it to migrate
    to."""
    engine: Literal["unicorn", "qemu"] = "unicorn"
    """What executes it: `unicorn`, RISC-V 64 within the monitor, or `qemu`, a PC with Linux."""
    memory: GuestMemory = 16 * UNITS["MiB"]
    """Bytes of its memory, whole pages of 4096: `16MiB`."""
    share: Annotated[int, Field(ge=1, le=100)] = 100
    """Percent of one CPU that it has at most."""
    disk: VmDisk | None = None
    """Its disk."""
    nic: VmNic | None = None
    """Its network card."""
    snapshot_every: DurationMs | None = None
    """How often it is copied, `500ms`: with that a killed monitor goes on. Without, it boots."""
    initrd: Annotated[str, Field(pattern=FILE_PATTERN)] | None = None
    """Of `qemu`: the file of the initramfs. Without it `initrd` beside the image, if there is
    one."""
    append: str = ""
    """Of `qemu`: words that are added to the command line of the kernel."""
    args: dict[str, Arg] = Field(default_factory=dict)
    """Settings that its engine understands."""
    priority: Annotated[int, Field(ge=0, le=255)] = 100
    """As of a server."""
    cores: Annotated[Listed[Core], AfterValidator(some)] | None = None
    """CPU numbers that it may run on; without it, all."""
    critical: bool = False
    """When it is given up the whole system goes down in order."""
    restart: Restart = Restart()
    """What happens after its monitor dies."""
    heartbeat: Heartbeat = Heartbeat()
    """How its monitor is watched for hangs."""
