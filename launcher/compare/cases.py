"""cases: in which ways a system file is run, and what is added to it so that it can be measured.

The file itself is not touched: an application (`servers.load`) and an echo server for it to call
are added to what was read of it. Raises ConfigError for a file that there is nothing to measure of.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

from launcher import placement
from launcher.chaos.blast import taken_along
from launcher.chaos.ensemble import free_name
from launcher.config import SystemFile, placed
from launcher.source import ConfigError
from ukernel.abi.hardware import VirtioNet
from ukernel.abi.interface import Interface
from ukernel.abi.manifest import Heartbeat, Link, Manifest, Server, VirtioBlk
from ukernel.abi.registry import resolve_interface
from ukernel.abi.services import Block, FileSystem
from ukernel.abi.vm import VirtualMachine

Placement = Literal["micro", "hybrid", "mono"]
Via = Literal["kernel", "channel"]
LOAD, ECHO, FILE_SERVER = "servers.load", "servers.echo", "servers.fs"
LOAD_SERVES = "ukernel.abi.services:Load"
EMPTY = "empty"  # the argument of a monitor that stands by
UNWATCHED = Heartbeat(period_ms=0)  # pings would be counted with the work


class Case(NamedTuple):
    """One way to run the system: who shares a process, and how those call that do not."""

    placement: Placement
    via: Via

    @property
    def name(self) -> str:
        return self.placement if self.placement == "mono" else f"{self.placement}/{self.via}"


MONO = Case("mono", "kernel")  # within one process, a link's way makes no difference


class Cast(NamedTuple):
    """Who plays which part: names of servers."""

    load: str
    echo: str
    fs: str
    victim: str  # the disk's driver
    card: str | None = None  # the driver of a network card, where there are virtual machines
    part: tuple[str, int] | None = None  # the file server's partition: whose, and its badge
    vms: tuple[str, ...] = ()  # monitors of virtual machines; not those that stand by


def cases(file: SystemFile) -> list[Case]:
    """The reference first. `hybrid` only where the file has groups to put into one process."""
    hybrid = [Case("hybrid", "kernel"), Case("hybrid", "channel")] if file.manifest.groups else []
    return [MONO, *hybrid, Case("micro", "channel"), Case("micro", "kernel")]


def absent(file: SystemFile, cast: Cast) -> dict[Case, str]:
    """Cases that this system cannot be in, and why; without mono there is nothing to compare
    with, and that raises ConfigError."""
    found = {}
    for case in cases(file):
        try:
            with_load(file, cast, case)
        except ConfigError as error:
            if case == MONO:
                raise
            found[case] = str(error)
    return found


def cast(file: SystemFile) -> Cast:
    """Who is who in this file. Raises ConfigError, saying what is missing and where."""
    servers = file.manifest.servers
    fs = next(iter(_serving(file.manifest, FileSystem)), None)
    if fs is None:
        raise _missing(
            file, ("servers",),
            "no server that starts at boot serves `file`, so there is nothing to compare: add one "
            "such as `fs: {run: servers.fs, serves: file, calls: [disk]}`",
        )  # fmt: skip
    victim = _driver(file.manifest, fs)
    if victim is None:
        raise _missing(
            file, ("servers", fs),
            f"{fs} reaches no driver of a virtio-blk device, so there is no disk to lose: let it "
            "call one such as `disk: {run: servers.disk, serves: block, devices: [disk0]}`",
        )  # fmt: skip
    load = free_name("load", servers)
    monitors = _serving(file.manifest, VirtualMachine)
    vms = tuple(name for name in monitors if not servers[name].args.get(EMPTY))
    card = _card(file.manifest) if vms else None
    echo, part = free_name("load-echo", {*servers, load}), _part(file.manifest, fs, victim)
    return Cast(load, echo, fs, victim, card, part, vms)


def with_load(file: SystemFile, cast: Cast, case: Case) -> SystemFile:
    """The file with the load and its echo server, placed and linked as the case says.

    Raises ConfigError when this system cannot be placed so."""
    manifest = file.manifest
    args = {"fs": cast.fs, "echo": cast.echo}
    load = Server(run=LOAD, serves=LOAD_SERVES, state="persistent", args={**args})
    load = load.model_copy(update={"calls": {cast.fs: Link(), cast.echo: Link()}})
    added = {cast.echo: Server(run=ECHO, serves="echo"), cast.load: load}
    every = {**manifest.servers, **added}
    servers = {name: _adapted(server, case.via) for name, server in every.items()}
    whole = manifest.model_copy(update={"servers": servers})
    return placed(dataclasses.replace(file, manifest=whole), case.placement)


def doomed(manifest: Manifest, victim: str) -> set[str]:
    """Whose lives end when the victim is killed: its process, whom a strategy takes along, and
    who shares a process with those."""
    homes = [set(unit.members) for unit in placement.units(manifest)]
    dying = {victim}
    while True:
        along = dying | set(taken_along(manifest, dying))
        more = along.union(*(home for home in homes if home & along))
        if more == dying:
            return dying
        dying = more


def _serving(manifest: Manifest, interface: type[Interface]) -> list[str]:
    """Those that start at boot and serve this."""
    return [
        name
        for name, server in manifest.servers.items()
        if server.start == "boot" and server.serves is not None
        if resolve_interface(server.serves) is interface
    ]


def _part(manifest: Manifest, fs: str, victim: str) -> tuple[str, int] | None:
    """What the file server has for a disk when that is no driver's whole one."""
    blocks, calls = _serving(manifest, Block), manifest.servers[fs].calls
    parts = ((name, link.badge) for name, link in calls.items() if name in blocks)
    return next((part for part in parts if part[0] != victim), None)


def _card(manifest: Manifest) -> str | None:
    """The driver of the first network card."""
    cards = {n for n, device in manifest.hardware.items() if isinstance(device, VirtioNet)}
    owners = (n for n, s in manifest.servers.items() if s.start == "boot" and cards & {*s.devices})
    return next(owners, None)


def _driver(manifest: Manifest, name: str) -> str | None:
    """The driver of a disk that this server calls, or that one it calls does."""
    devices = (manifest.hardware.get(device) for device in manifest.servers[name].devices)
    if any(isinstance(device, VirtioBlk) for device in devices):
        return name
    found = (_driver(manifest, callee) for callee in manifest.servers[name].calls)
    return next((driver for driver in found if driver is not None), None)


def _missing(file: SystemFile, keys: tuple[str, ...], text: str) -> ConfigError:
    return ConfigError([file.source.problem(keys, text)])


def _adapted(server: Server, via: Via) -> Server:
    """Its links go this way, and nobody looks whether it hangs. The disks of a comparison are
    blank, so our own file server may make a volume there."""
    calls = {name: link.model_copy(update={"via": via}) for name, link in server.calls.items()}
    args = {"format_if_blank": True} if server.run == FILE_SERVER else {}
    changed = {"calls": calls, "args": {**server.args, **args}, "heartbeat": UNWATCHED}
    return server.model_copy(update=changed)
