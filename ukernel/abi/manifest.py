"""manifest: what a system file may say. The types are the schema; nothing here does I/O.

A Manifest is well-formed by itself: every key known, every value of its type and in its range.
What needs two keys (a call to a server that does not exist) or the machine (its cores, its
modules) is checked by the launcher, which knows the line of each.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from ukernel.abi.interface import Interface
from ukernel.abi.network import Ethernet, Network
from ukernel.abi.services import SECTOR, Block, Console, Echo, Entropy, FileSystem, KeyValue, Timer

BUILTIN_INTERFACES: dict[str, type[Interface]] = {
    "echo": Echo,
    "block": Block,
    "file": FileSystem,
    "console": Console,
    "timer": Timer,
    "entropy": Entropy,
    "kv": KeyValue,
    "ethernet": Ethernet,
    "net": Network,
}

NAME_PATTERN = "^[a-z][a-z0-9-]{0,31}$"
MODULE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
FILE_PATTERN = r"^[^\x00]+$"

T = TypeVar("T")

UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}  # bytes
MAX_SIZE = 1 << 60  # bytes; a file offset (off_t) holds it with room for arithmetic
MAX_SEED = (1 << 64) - 1
MAC_PATTERN = "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$"
INTERFACE_PATTERN = "^[A-Za-z0-9_.-]{1,15}$"  # of Linux: IFNAMSIZ
LEAST_MTU, MOST_MTU = 68, 65535  # RFC 791 §3.2, and what a length field holds
SIZE = re.compile("([0-9]{1,19})(KiB|MiB|GiB)?")
SCALARS = (str, int, float, bool)


def parse_size(value: Any) -> int:
    """Bytes of `4096`, `"4096"`, `"16KiB"`, `"64MiB"` or `"1GiB"`."""
    if type(value) is int:
        return value
    found = SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise PydanticCustomError("size", "expected a size such as 64MiB or 4096")
    return int(found[1]) * UNITS[found[2] or ""]


def _arg(value: Any) -> Any:
    """One refusal for an argument of the wrong type, instead of one per member of the union."""
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, SCALARS) for item in items):
        raise PydanticCustomError(
            "arg", "expected text, a number, true or false, or a list of them"
        )
    return value


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise PydanticCustomError("distinct", "expected each item once")
    return values


def _some(values: T) -> T:
    """After the items were checked; `min_length` would count only the good ones and add a lie."""
    if not values:
        raise PydanticCustomError("some", "expected at least one item")
    return values


def _links(value: Any) -> Any:
    """`[fs, {disk: {rights: [call]}}]` as `{fs: {}, disk: {rights: [call]}}`."""
    if not isinstance(value, list):
        raise PydanticCustomError("list_type", "expected a list")
    links: dict[str, Any] = {}
    refused = []
    for index, entry in enumerate(value):
        link = {entry: {}} if isinstance(entry, str) else entry
        if not isinstance(link, dict) or len(link) != 1:
            why = "expected a server's name or one {name: {rights: [...]}}"
        elif links.keys() & link.keys():
            why = "expected each server once"
        else:
            links.update(link)
            continue
        problem = PydanticCustomError("link", why)
        refused.append(InitErrorDetails(type=problem, loc=(index,), input=entry))
    if refused:
        raise ValidationError.from_exception_data("calls", refused)
    return links


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


Listed = Annotated[tuple[T, ...], Field(strict=False), AfterValidator(_distinct)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
SizeText = Annotated[str, Field(pattern=f"^{SIZE.pattern}$")]
AS_SIZE = BeforeValidator(parse_size, json_schema_input_type=int | SizeText)
Size = Annotated[int, Field(gt=0, le=MAX_SIZE), AS_SIZE]
DiskSize = Annotated[int, Field(gt=0, le=MAX_SIZE, multiple_of=SECTOR), AS_SIZE]
Scalar = str | int | float | bool
Arg = Annotated[Scalar | list[Scalar], BeforeValidator(_arg, json_schema_input_type=Any)]
Core = Annotated[int, Field(ge=0)]
Right = Literal["call", "grant"]
Probability = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(ge=0, le=60_000)]
Mac = Annotated[str, Field(pattern=MAC_PATTERN), AfterValidator(_of_one_card)]
HostAddress = Annotated[str, AfterValidator(_with_prefix)]


class Part(BaseModel):
    """What every mapping of a system file has in common: no unknown keys, nothing converted."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


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


class Link(Part):
    """One capability that a server starts with: an endpoint and what may be done with it."""

    rights: Annotated[Listed[Right], AfterValidator(_some)] = ("call",)
    """`call` sends calls; `grant` lets the holder pass the capability on."""
    via: Literal["kernel", "channel"] = "kernel"
    """The way of a call: a message that the kernel passes on, or memory that both ends share."""
    spin_us: Annotated[float, Field(ge=0, le=1000)] = 20.0
    """Of a channel: microseconds that either end looks for the other before it sleeps, where it
    has more than one core; 0 sleeps at once."""


class Backoff(Part):
    """How long a server that dies again and again waits for its next life. The first death is
    repaired at once; after 60 s of READY a death counts as a first one again."""

    first_ms: Annotated[float, Field(ge=0)] = 50.0
    """Milliseconds before the second restart; 0 restarts at once, always."""
    factor: Annotated[float, Field(ge=1)] = 2.0
    """How much longer each further one waits."""
    max_ms: Annotated[float, Field(ge=0)] = 30_000.0
    """Milliseconds at most."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the wait that chance adds or takes, so that servers do not come back in step."""


class Heartbeat(Part):
    """How a hang is told from work: a ping that the request loop itself has to answer."""

    period_ms: Annotated[float, Field(ge=0)] = 100.0
    """Milliseconds between two pings; 0 watches for no hangs."""
    misses: Annotated[int, Field(ge=1)] = 3
    """Pings without a sign of life after which the server is killed as hung."""
    max_call_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds that a call may take without `progress`; without it, any time."""


class Restart(Part):
    """What happens after a death. Beyond `max_restarts` in `within_s` the server has failed."""

    when: Literal["crashed", "always", "never"] = "crashed"
    """`crashed`: after any exit but 0; `always`: after every exit; `never`."""
    max_restarts: Annotated[int, Field(ge=0)] = 5
    """Restarts within `within_s` before the server is given up."""
    within_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds in which `max_restarts` are counted."""
    strategy: Literal["one_for_one", "rest_for_one", "one_for_all"] = "one_for_one"
    """Who starts again with it, of its group: nobody, those started after it, or all."""
    backoff: Backoff = Backoff()
    """How long to wait before a restart."""
    ready_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds from its start until it must be READY; then it is killed."""


class Server(Part):
    """One task: a process, what it may touch, and how it is scheduled and restarted."""

    run: Annotated[str, Field(pattern=MODULE_PATTERN)]
    """The Python module that is the program: `servers.disk`."""
    serves: str | None = None
    """The interface behind its endpoint: a built-in name or `package.module:Class`."""
    devices: Listed[Name] = ()
    """Hardware that it drives: registers, doorbell, interrupt line, IOMMU domain."""
    calls: Annotated[
        dict[Name, Link],
        BeforeValidator(_links, json_schema_input_type=list[Name | dict[Name, Link]]),
    ] = Field(default_factory=dict)
    """Servers that it may call, and no others: `[fs]`, or `[{fs: {rights: [call, grant]}}]`."""
    priority: Annotated[int, Field(ge=0, le=255)] = 100
    """Whose calls are delivered first, 255 before 0; with `policy: fifo` also the CPU's choice."""
    policy: Literal["other", "fifo"] = "other"
    """The Linux scheduling policy: `other` shares the CPU, `fifo` runs until it waits."""
    cores: Annotated[Listed[Core], AfterValidator(_some)] | None = None
    """CPU numbers that it may run on; without it, all."""
    memory: Size | None = None
    """Bytes that it may have, as `128MiB`; with more it is killed. Without: 256 MiB of regions."""
    window: Annotated[int, Field(ge=1, le=64)] = 8
    """Credit: messages that the kernel delivers before one is answered."""
    args: dict[str, Arg] = Field(default_factory=dict)
    """Settings that the server itself understands."""
    state: Literal["stateless", "client_held", "persistent", "disk"] = "stateless"
    """What its next life has: nothing, what clients hold, a kept region, what is on the disk."""
    start: Literal["boot", "demand"] = "boot"
    """`boot`: started with the system; `demand`: started when a person asks, as a shell is."""
    spawn: Literal["zygote", "cold"] = "zygote"
    """How a life gets its process: forked from a warm one, or a fresh interpreter."""
    standby: bool = False
    """Keep the next life forked and connected, without any capability until this one is dead."""
    critical: bool = False
    """When it is given up the whole system goes down in order."""
    restart: Restart = Restart()
    """What happens after it dies."""
    heartbeat: Heartbeat = Heartbeat()
    """How it is watched for hangs."""


class Manifest(Part):
    """A whole system file."""

    system: Name
    """The name of the system."""
    description: str = ""
    """What the system is for, in a sentence."""
    hardware: dict[Name, Hardware] = Field(default_factory=dict)
    """The devices of the simulated machine, by name."""
    servers: Annotated[dict[Name, Server], AfterValidator(_some)]
    """The tasks of the system, by name. An application is a server that serves nobody."""
    groups: dict[Name, Listed[Name]] = Field(default_factory=dict)
    """Servers that belong together: whom a restart strategy takes along, and who shares a process
    under `placement: hybrid`."""
    placement: Literal["micro", "hybrid", "mono"] = "micro"
    """Who shares a process: nobody, the members of each group, or all that start at boot."""
    on_kernel_death: Literal["stop", "reboot"] = "stop"
    """When the kernel or the machine dies: end with status 3, or boot again."""


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a system file, for editors and the table in the README."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Manifest.model_json_schema(),
    }


def start_order(manifest: Manifest) -> list[str]:
    """Every server after those that it calls; what is free is in the order of the file.

    Raises ValueError, naming the cycle, when the calls have no such order.
    """
    waiting = {name: set(server.calls) for name, server in manifest.servers.items()}
    order: list[str] = []
    while waiting:
        ready = next((n for n, callees in waiting.items() if not callees & waiting.keys()), None)
        if ready is None:
            raise ValueError(f"calls form a cycle: {' -> '.join(next(call_cycles(waiting)))}")
        order.append(ready)
        del waiting[ready]
    return order


def call_cycles(calls: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """Cycles `[a, b, a]` of a call graph, each from its member that `calls` has first.

    Cutting the first call of each of them leaves none, so there may be more than are named.
    """
    left = {caller: [c for c in callees if c in calls] for caller, callees in calls.items()}
    rank = {name: index for index, name in enumerate(calls)}
    while loop := _some_cycle(left):
        first = min(range(len(loop)), key=lambda at: rank[loop[at]])
        cycle = [*loop[first:], *loop[: first + 1]]
        left[cycle[0]].remove(cycle[1])
        yield cycle


def _some_cycle(calls: Mapping[str, Iterable[str]]) -> list[str]:
    """The members of one cycle, caller before callee; empty when there is none."""
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        path: list[str] = error.args[1]  # callee before caller, the first repeated at the end
        return path[:0:-1]
    return []
