"""hardware: the devices that a system file may have."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from ukernel.abi.fields import (
    FILE_PATTERN,
    MAX_SEED,
    DiskSize,
    Milliseconds,
    Name,
    Part,
    Probability,
    Size,
)
from ukernel.abi.sizes import UNITS

MAC_PATTERN = "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$"
INTERFACE_PATTERN = "^[A-Za-z0-9_.-]{1,15}$"  # of Linux: IFNAMSIZ
LEAST_MTU, MOST_MTU = 68, 65535  # RFC 791 §3.2, and what a length field holds


def _of_one_card(mac: str) -> str:
    if int(mac[:2], 16) & 1:
        raise PydanticCustomError("mac", "expected the address of one card: an even first byte")
    return mac.lower()


def _with_prefix(text: str) -> str:
    try:
        found = ipaddress.IPv4Interface(text)
    except ValueError:
        found = None
    if found is None or "/" not in text or found.network.prefixlen > 30:
        raise PydanticCustomError(
            "address", "expected an IPv4 address and its prefix such as 10.0.0.1/24"
        )
    return str(found)


def derived_mac(system: str, device: str) -> str:
    """The address of a card whose entry has none: always the same, locally administered."""
    digest = hashlib.sha256(f"{system}/{device}".encode()).digest()
    first = digest[0] & 0xFC | 0x02
    return ":".join(f"{octet:02x}" for octet in (first, *digest[1:6]))


Mac = Annotated[str, Field(pattern=MAC_PATTERN), AfterValidator(_of_one_card)]
HostAddress = Annotated[str, AfterValidator(_with_prefix)]


class VirtioBlk(Part):
    """A disk (virtio 1.2 §5.2) kept in a file of the host."""

    model: Literal["virtio-blk"]
    """`virtio-blk`."""
    image: Annotated[str, Field(pattern=FILE_PATTERN)]
    """The file that holds the sectors, relative to the system file; made when absent."""
    size: DiskSize
    """Bytes of the disk, a multiple of 512: `64MiB`."""
    read_only: bool = False
    """Whether the device refuses writes."""
    cache: DiskSize = 4 * UNITS["MiB"]
    """Bytes of the volatile write cache: what a power cut loses if nobody flushed."""


class Impairments(Part):
    """What is wrong with the line of a network card, in both directions. Frames then pass one by
    one: long segments are cut, and checksums complete, before they are lost or spoiled."""

    loss: Probability = 0.0
    """Share of the frames that never arrive."""
    duplicate: Probability = 0.0
    """Share that arrives twice."""
    reorder: Probability = 0.0
    """Share that arrives after the frame that follows it."""
    corrupt: Probability = 0.0
    """Share with another value in one bit; a frame that no checksum protects is lost instead."""
    delay_ms: Milliseconds = 0.0
    """Milliseconds that each frame is under way."""
    jitter_ms: Milliseconds = 0.0
    """Milliseconds more or less than that; frames keep their order."""
    rate: Size | None = None
    """Bytes in a second, as `10MiB`; without it, as fast as it goes."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    """Decides which frames: the same seed and the same frames, the same fate."""


class VirtioNet(Part):
    """A network card (virtio 1.2 §5.1)."""

    model: Literal["virtio-net"]
    """`virtio-net`."""
    backend: Literal["tap", "userns", "wire", "switch"]
    """What it is plugged into: `tap`, an interface of the host; `userns`, the same in a network
    namespace of its own, for which nobody needs to be root; `wire`, one other card of the system;
    `switch`, several."""
    interface: Annotated[str, Field(pattern=INTERFACE_PATTERN)] | None = None
    """The TAP interface: of `tap`, made when absent; of `userns`, `tap0` when nothing is said."""
    host_address: HostAddress | None = None
    """The host's address on that interface and its prefix, `10.0.0.1/24`. With it the interface is
    given that address and the MTU, and brought up; without, a `tap` is taken as it is."""
    wire: Name | None = None
    """The name of the cable: two cards have it, and are its ends."""
    switch: Name | None = None
    """The name of the switch: all cards that have it are on it."""
    mac: Mac | None = None
    """The card's address; without it, one that the names of system and device decide."""
    mtu: Annotated[int, Field(ge=LEAST_MTU, le=MOST_MTU)] = 1500
    """Bytes of one frame after its Ethernet header."""
    offload: bool = True
    """Whether it completes checksums and cuts long segments, and its driver may take such."""
    faults: Impairments = Impairments()
    """What is wrong with its line."""
    capture: Annotated[str, Field(pattern=FILE_PATTERN)] | None = None
    """A file, relative to the system file, in which all frames are noted from boot, as pcapng."""


class VirtioConsole(Part):
    """A terminal line (virtio 1.2 §5.3)."""

    model: Literal["virtio-console"]
    """`virtio-console`."""


class MachineTimer(Part):
    """The clock of the machine and its alarm."""

    model: Literal["timer"]
    """`timer`."""


class VirtioRng(Part):
    """A source of random bytes (virtio 1.2 §5.4)."""

    model: Literal["virtio-rng"]
    """`virtio-rng`."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    """Where the sequence starts, for runs that repeat; without it the host's randomness."""


Hardware = Annotated[
    VirtioBlk | VirtioNet | VirtioConsole | MachineTimer | VirtioRng, Field(discriminator="model")
]
HARDWARE_MODELS: dict[str, type[Part]] = {
    "virtio-blk": VirtioBlk,
    "virtio-net": VirtioNet,
    "virtio-console": VirtioConsole,
    "timer": MachineTimer,
    "virtio-rng": VirtioRng,
}
