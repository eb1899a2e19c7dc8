"""manifest: what a system file may say. The types are the schema; nothing here does I/O.

A Manifest is well-formed by itself: every key known, every value of its type and in its range.
What needs two keys (a call to a server that does not exist) or the machine (its cores, its
modules) is checked by the launcher, which knows the line of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from ukernel.abi.fields import (
    FILE_PATTERN,
    MAX_BADGE,
    MAX_SEED,
    MAX_SIZE,
    MODULE_PATTERN,
    NAME_PATTERN,
    Arg,
    Badge,
    Core,
    Listed,
    Name,
    Part,
    Size,
    parse_size,
    some,
)
from ukernel.abi.hardware import (
    HARDWARE_MODELS,
    INTERFACE_PATTERN,
    MAC_PATTERN,
    Hardware,
    Impairments,
    MachineTimer,
    VirtioBlk,
    VirtioConsole,
    VirtioNet,
    VirtioRng,
    derived_mac,
)
from ukernel.abi.interface import Interface
from ukernel.abi.network import Ethernet, Network
from ukernel.abi.services import Block, Console, Echo, Entropy, FileSystem, KeyValue, Timer
from ukernel.abi.supervision import Backoff, Heartbeat, Restart
from ukernel.abi.vm import VirtualMachine
from ukernel.abi.vms import Vm, VmDisk, VmNic

__all__ = [
    "BUILTIN_INTERFACES", "FILE_PATTERN", "HARDWARE_MODELS", "INTERFACE_PATTERN", "MAC_PATTERN",
    "MAX_BADGE", "MAX_SEED", "MAX_SIZE", "MODULE_PATTERN", "NAME_PATTERN", "Arg", "Backoff",
    "Badge", "Core", "Hardware", "Heartbeat", "Impairments", "Link", "Listed", "MachineTimer",
    "Manifest", "Name", "Part", "Restart", "Server", "Size", "VirtioBlk", "VirtioConsole",
    "VirtioNet", "VirtioRng", "Vm", "VmDisk", "VmNic", "call_cycles", "derived_mac", "parse_size",
    "schema", "start_order",
]  # fmt: skip

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
    "vm": VirtualMachine,
}


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


Right = Literal["call", "grant"]


class Link(Part):
    """One capability that a server starts with: an endpoint and what may be done with it."""

    rights: Annotated[Listed[Right], AfterValidator(some)] = ("call",)
    """`call` sends calls; `grant` lets the holder pass the capability on."""
    badge: Badge = 0
    """Which object of the callee it is for, as the callee numbers them: a partition, a port of a
    switch. 0: the callee itself."""
    via: Literal["kernel", "channel"] = "kernel"
    """The way of a call: a message that the kernel passes on, or memory that both ends share."""
    spin_us: Annotated[float, Field(ge=0, le=1000)] = 20.0
    """Of a channel: microseconds that either end looks for the other before it sleeps, where it
    has more than one core; 0 sleeps at once."""


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
    cores: Annotated[Listed[Core], AfterValidator(some)] | None = None
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
    servers: Annotated[dict[Name, Server], AfterValidator(some)]
    """The tasks of the system, by name. An application is a server that serves nobody."""
    vms: dict[Name, Vm] = Field(default_factory=dict)
    """Virtual machines, by name: each is one server more, its monitor."""
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
