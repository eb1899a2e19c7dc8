"""config: `load` reads a system file, or says everything that is wrong with it and where.

A SystemFile is whole: its names resolve, its calls have an order, its modules and cores exist on
this machine. Nothing has been started or created, and no server's module has been imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from launcher import virtual
from launcher.card_rules import RULES as CARD_RULES
from launcher.explain import Grammar, validated, well_formed
from launcher.guests import guest_file
from launcher.reader import read_source
from launcher.rules import PLACEMENT_RULES, RULES, Draft, Finding
from launcher.source import KEY, ConfigError, Keys, Problem, Source
from launcher.vm_rules import RULES as VM_RULES
from ukernel.abi.manifest import (
    HARDWARE_MODELS,
    INTERFACE_PATTERN,
    MAC_PATTERN,
    MODULE_PATTERN,
    Backoff,
    Hardware,
    Heartbeat,
    Impairments,
    Link,
    Listed,
    Manifest,
    Name,
    Restart,
    Server,
    VirtioBlk,
    VirtioNet,
    Vm,
    VmDisk,
    VmNic,
)

T = TypeVar("T")

__all__ = ["ConfigError", "Problem", "SystemFile", "load", "placed"]


@dataclass(frozen=True)
class SystemFile:
    """A checked system file."""

    manifest: Manifest
    path: Path
    source: Source

    @property
    def directory(self) -> Path:
        """What relative names in the file are relative to; belongs last on the servers' path."""
        return self.path.parent.absolute()

    def where(self, *keys: str | int) -> str:
        """`configs/full.yaml:14`: the line of `where("servers", "fs", "calls")`, for messages.

        A key that the file does not have has the line of the mapping that it would go into.
        """
        told = virtual.in_file((*keys, KEY), self.manifest.vms)
        return f"{self.path}:{self.source.at(told).line}"

    def image_path(self, device: str) -> Path:
        """The host's file behind a disk. Raises LookupError for what is not a disk."""
        match self.manifest.hardware.get(device):
            case VirtioBlk(image=image):
                return self.directory / image
        raise LookupError(f"{self.path}: hardware has no disk {device!r}")

    def capture_path(self, device: str) -> Path | None:
        """The file in which a network card's frames are noted from boot, if they are. Raises
        LookupError for what is no card."""
        match self.manifest.hardware.get(device):
            case VirtioNet(capture=capture):
                return self.directory / capture if capture else None
        raise LookupError(f"{self.path}: hardware has no network card {device!r}")


def load(path: str | os.PathLike[str]) -> SystemFile:
    """The system file at `path`. Raises ConfigError with every problem of it."""
    source = read_source(Path(path))
    manifest, problems = validated(source, Manifest, GRAMMAR)
    problems += _broken_rules(source)
    if problems or manifest is None:
        raise ConfigError(problems)
    every = {**manifest.servers, **_monitors(manifest.vms, source.path.parent)}
    return SystemFile(manifest.model_copy(update={"servers": every}), source.path, source)


def _monitors(vms: Mapping[str, Vm], directory: Path) -> dict[str, Server]:
    return virtual.monitors(vms, lambda image: str(guest_file(image, directory.absolute())))


def placed(file: SystemFile, placement: str) -> SystemFile:
    """The same system with another `placement` than its file says; "" leaves that. Raises
    ConfigError when this system cannot be placed so."""
    if placement in ("", file.manifest.placement):
        return file
    manifest = file.manifest.model_copy(update={"placement": placement})
    draft = Draft(
        file.directory,
        list(manifest.servers),
        list(manifest.hardware),
        list(manifest.groups),
        manifest.servers,
        manifest.hardware,
        manifest.groups,
        placement,
    )
    findings = [finding for rule in PLACEMENT_RULES for finding in rule(draft)]
    if findings:
        raise ConfigError([_told(file.source, finding, manifest.vms) for finding in findings])
    return replace(file, manifest=manifest)


def _broken_rules(source: Source) -> Iterator[Problem]:
    draft = _draft(source)
    if draft is not None:
        for rule in (*RULES, *CARD_RULES, *VM_RULES):
            for keys, text in rule(draft):
                if not virtual.repeats(keys, draft.vms):
                    yield _told(source, Finding(keys, text), draft.vms)


def _told(source: Source, finding: Finding, vms: Mapping[str, Vm]) -> Problem:
    """A broken rule in the words and at the places of the file."""
    keys, text = finding
    return source.problem(virtual.in_file(keys, vms), virtual.in_words(text, vms))


def _draft(source: Source) -> Draft | None:
    """What the rules can be asked about; None when a section is not even a mapping."""
    top = source.value if isinstance(source.value, dict) else {}
    sections = [top.get(key, {}) for key in ("servers", "hardware", "groups", "vms")]
    if not all(isinstance(section, dict) for section in sections):
        return None
    servers, hardware, groups, entries = sections
    vms = _well_formed(TypeAdapter(Vm), entries)
    machines = {n: vm for n, vm in vms.items() if n not in servers}
    return Draft(
        directory=source.path.parent,
        server_names=[*servers, *entries],
        device_names=list(hardware),
        group_names=list(groups),
        servers=_well_formed(TypeAdapter(Server), servers)
        | _monitors(machines, source.path.parent),
        hardware=_well_formed(TypeAdapter(Hardware), hardware),
        groups=_well_formed(TypeAdapter(Listed[Name]), groups),
        placement=str(top.get("placement")),
        vm_names=list(entries),
        vms=machines,
    )


def _well_formed(kind: TypeAdapter[T], parts: Mapping[str, Any]) -> dict[str, T]:
    found = {name: well_formed(kind, part) for name, part in parts.items()}
    return {name: part for name, part in found.items() if part is not None}


def _in_file(loc: Keys) -> Keys:
    """Pydantic's path without the tag of the union that it puts behind a device's name."""
    if loc[:1] == ("hardware",) and len(loc) > 2 and loc[2] in HARDWARE_MODELS:
        return (*loc[:2], *loc[3:])
    return loc


def _known_keys(loc: Keys) -> Iterable[str]:
    """The keys that the mapping around `loc` may have."""
    match loc:
        case ("hardware", _, _, "faults", _):
            return Impairments.model_fields
        case ("hardware", _, str(model), _):
            return HARDWARE_MODELS[model].model_fields
        case ("vms", _, "disk", _):
            return VmDisk.model_fields
        case ("vms", _, "nic", _):
            return VmNic.model_fields
        case ("servers" | "vms", _, "restart", "backoff", _):
            return Backoff.model_fields
        case ("servers" | "vms", _, "restart", _):
            return Restart.model_fields
        case ("servers" | "vms", _, "heartbeat", _):
            return Heartbeat.model_fields
        case ("servers", _, "calls", *_):
            return Link.model_fields
        case ("servers", _, _):
            return Server.model_fields
        case ("vms", _, _):
            return Vm.model_fields
    return Manifest.model_fields


PATTERNS = {
    MODULE_PATTERN: "a module's name such as servers.disk",
    MAC_PATTERN: "an address such as 02:00:00:00:00:01",
    INTERFACE_PATTERN: "the name of an interface (up to 15 of a-z, A-Z, 0-9, '.', '_' and '-')",
}
GRAMMAR = Grammar(_in_file, _known_keys, PATTERNS)
