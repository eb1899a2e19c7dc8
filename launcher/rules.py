"""rules: what must hold between the parts of a system file, and between it and this machine.

Each rule is a generator over a Draft. The rules see every part that is well-formed by itself, so
that one broken server does not hide what is wrong with the others.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from launcher import placement
from launcher.source import KEY, Keys
from ukernel.abi.manifest import Part, Server, VirtioBlk, Vm, call_cycles
from ukernel.abi.registry import resolve_interface

RESERVED = ("root", "machine", "kernel", "zygote", "launcher")  # slots and logs
MAX_CYCLES = 10  # more would not help the reader, and a dense graph has very many


class Finding(NamedTuple):
    """A rule that is broken: the path of what breaks it, and the text with its remedy."""

    keys: Keys
    text: str


@dataclass(frozen=True)
class Draft:
    """The well-formed parts of a system file, and the names of all of them in the file's order."""

    directory: Path
    server_names: list[str]
    device_names: list[str]
    group_names: list[str]
    servers: Mapping[str, Server]
    hardware: Mapping[str, Part]
    groups: Mapping[str, tuple[str, ...]]
    placement: str = "micro"
    vm_names: list[str] = field(default_factory=list)
    vms: Mapping[str, Vm] = field(default_factory=dict)
    """The virtual machines; their monitors are among the servers too."""

    @property
    def own_server_names(self) -> list[str]:
        """Those that the file has under `servers:`."""
        return self.server_names[: len(self.server_names) - len(self.vm_names)]

    @property
    def sharing(self) -> dict[str, tuple[str, ...]]:
        """Who shares a process, see `placement.shared`."""
        return placement.shared(self.servers, self.groups, self.placement)


def hint(wrong: str, known: Iterable[str], what: str) -> str:
    """The end of a message about a wrong name: the nearest right one, or all of them."""
    names = list(known)
    if close := difflib.get_close_matches(wrong, names, n=1):
        return f"; did you mean {close[0]!r}?"
    return f"; {what} are {', '.join(names)}" if names else f"; there are no {what}"


def names_are_unique(draft: Draft) -> Iterator[Finding]:
    for name in draft.server_names:
        if name in draft.device_names:
            text = f"servers.{name}: hardware.{name} has this name too; rename one"
            yield Finding(("servers", name, KEY), text)


def names_are_free(draft: Draft) -> Iterator[Finding]:
    for name in draft.server_names:
        if name in RESERVED:
            text = f"servers.{name}: every system has a {name} of its own; choose another name"
            yield Finding(("servers", name, KEY), text)


def devices_exist(draft: Draft) -> Iterator[Finding]:
    for name, server in draft.servers.items():
        for index, device in enumerate(server.devices):
            if device not in draft.device_names:
                remedy = hint(device, draft.device_names, "devices")
                text = f"servers.{name} may not drive {device!r}: no such device{remedy}"
                yield Finding(("servers", name, "devices", index), text)


def devices_have_one_driver(draft: Draft) -> Iterator[Finding]:
    driver: dict[str, str] = {}
    for name, server in draft.servers.items():
        for index, device in enumerate(server.devices):
            first = driver.setdefault(device, name)
            if first != name:
                text = (
                    f"servers.{first}, servers.{name}: both drive device {device};"
                    " a device has one driver, which the other may call"
                )
                yield Finding(("servers", name, "devices", index), text)


def images_are_distinct(draft: Draft) -> Iterator[Finding]:
    owner: dict[str, str] = {}
    for name, device in draft.hardware.items():
        if isinstance(device, VirtioBlk):
            first = owner.setdefault(os.path.abspath(draft.directory / device.image), name)
            if first != name:
                text = (
                    f"hardware.{first}, hardware.{name}: both keep their sectors in"
                    f" {device.image!r}; give each its own image"
                )
                yield Finding(("hardware", name, "image"), text)


def callees_serve(draft: Draft) -> Iterator[Finding]:
    for name, server in draft.servers.items():
        for callee in server.calls:
            if why := _uncallable(draft, name, callee):
                text = f"servers.{name} may not call {callee!r}: {why}"
                yield Finding(("servers", name, "calls", callee, KEY), text)


def _uncallable(draft: Draft, caller: str, callee: str) -> str:
    if callee == caller:
        return "it would wait for itself; remove it"
    if callee not in draft.server_names:
        if callee in draft.device_names:
            return "it is a device; name it under 'devices:'"
        others = [name for name in draft.server_names if name != caller]
        return f"no such server{hint(callee, others, 'other servers')}"
    if callee in draft.servers and draft.servers[callee].serves is None:
        return f"{callee} serves nothing; give it 'serves:'"
    return ""


def calls_are_acyclic(draft: Draft) -> Iterator[Finding]:
    calls = {
        name: [callee for callee in server.calls if callee != name]
        for name, server in draft.servers.items()
    }
    for cycle in islice(call_cycles(calls), MAX_CYCLES):
        text = f"calls form a cycle: {' -> '.join(cycle)}; remove one of them"
        yield Finding(("servers", cycle[0], "calls", cycle[1], KEY), text)


def modules_exist(draft: Draft) -> Iterator[Finding]:
    for name, server in draft.servers.items():
        if not module_exists(server.run, draft.directory):
            text = (
                f"servers.{name}.run: no module {server.run!r};"
                f" install it or put it into {draft.directory}"
            )
            yield Finding(("servers", name, "run"), text)


def module_exists(dotted_name: str, directory: Path) -> bool:
    """Whether Python would find the module, with `directory` last on its path. Imports nothing.

    `importlib.util.find_spec` would import the packages around the module.
    """
    top, *inner = dotted_name.split(".")
    spec = _find_top(top, directory)
    for part in inner:
        if spec is None:
            return False
        # The bare name: with a dotted one the finder asks for the imported parent.
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations or []))
    return spec is not None


def _find_top(name: str, directory: Path) -> ModuleSpec | None:
    for finder in sys.meta_path:
        if spec := finder.find_spec(name, None):
            return spec
    return PathFinder.find_spec(name, [str(directory)])


@contextmanager
def _importing_from(directory: Path) -> Iterator[None]:
    """`directory` is last on Python's path, as it is for the servers of the system."""
    before = sys.path.copy()
    sys.path.append(str(directory))
    try:
        yield
    finally:
        sys.path[:] = before


def interfaces_exist(draft: Draft) -> Iterator[Finding]:
    for name, server in draft.servers.items():
        if server.serves is not None:
            try:
                with _importing_from(draft.directory):
                    resolve_interface(server.serves)
            except LookupError as error:
                text = f"servers.{name}.serves: {error.args[0]}"
                yield Finding(("servers", name, "serves"), text)


def cores_exist(draft: Draft) -> Iterator[Finding]:
    present = os.sched_getaffinity(0)
    for name, server in draft.servers.items():
        for index, core in enumerate(server.cores or ()):
            if core not in present:
                have = ", ".join(map(str, sorted(present)))
                text = (
                    f"servers.{name}.cores: no core {core} for us on this machine; there are {have}"
                )
                yield Finding(("servers", name, "cores", index), text)


def groups_name_servers(draft: Draft) -> Iterator[Finding]:
    for group, members in draft.groups.items():
        for index, name in enumerate(members):
            if why := _ungroupable(draft, name):
                yield Finding(("groups", group, index), f"groups.{group}: {why}")


def _ungroupable(draft: Draft, name: str) -> str:
    if name not in draft.server_names:
        return f"no such server: {name!r}{hint(name, draft.server_names, 'servers')}"
    if name in draft.servers and draft.servers[name].start == "demand":
        return f"{name} has start: demand, so nobody restarts it; remove it"
    return ""


def groups_are_disjoint(draft: Draft) -> Iterator[Finding]:
    group_of: dict[str, str] = {}
    for group, members in draft.groups.items():
        for index, name in enumerate(members):
            first = group_of.setdefault(name, group)
            if first != group:
                text = (
                    f"groups.{first}, groups.{group}: both have {name};"
                    " a server is in one group at most, remove it from the other"
                )
                yield Finding(("groups", group, index), text)


def strategies_have_a_group(draft: Draft) -> Iterator[Finding]:
    if len(draft.groups) < len(draft.group_names):
        return  # it may be in the one that is not well-formed
    grouped = {name for members in draft.groups.values() for name in members}
    for name, server in draft.servers.items():
        strategy = server.restart.strategy
        if strategy != "one_for_one" and name not in grouped:
            remedy = "name it under 'groups:'"
            if server.start == "demand":
                remedy = "remove it, a server with start: demand runs once"
            text = (
                f"servers.{name}.restart.strategy: {strategy} is about a group, and {name} is in"
                f" none; {remedy}"
            )
            yield Finding(("servers", name, "restart", "strategy"), text)


def standbys_are_restarted(draft: Draft) -> Iterator[Finding]:
    for name, server in draft.servers.items():
        if server.standby and server.start == "demand":
            text = (
                f"servers.{name}.standby: a server with start: demand runs once, so nobody takes"
                " over from it; remove it, or set start: boot"
            )
            yield Finding(("servers", name, "standby"), text)


def backoffs_grow(draft: Draft) -> Iterator[Finding]:
    for name, server in draft.servers.items():
        backoff = server.restart.backoff
        if backoff.max_ms < backoff.first_ms:
            text = (
                f"servers.{name}.restart.backoff: max_ms is {backoff.max_ms:g}, less than first_ms,"
                f" which is {backoff.first_ms:g}; raise the one or lower the other"
            )
            yield Finding(("servers", name, "restart", "backoff", "max_ms"), text)


def hybrids_have_groups(draft: Draft) -> Iterator[Finding]:
    if draft.placement == "hybrid" and not draft.group_names:
        text = (
            "placement: hybrid puts the members of each group into one process, and there are no"
            " groups; name them under 'groups:', or choose mono or micro"
        )
        yield Finding(("placement",), text)


def processes_have_room(draft: Draft) -> Iterator[Finding]:
    for label, members in draft.sharing.items():
        if len(members) > placement.MOST:
            text = (
                f"placement: {draft.placement}: {len(members)} servers would share the process"
                f" {label}, which has room for {placement.MOST}; choose micro, or hybrid with"
                " smaller groups"
            )
            yield Finding(("placement",), text)


def processes_have_an_order(draft: Draft) -> Iterator[Finding]:
    """A process starts after those that it calls, so they may form no cycle either."""
    sharing = draft.sharing
    for label in sharing:
        calls = placement.calls_of_units(draft.servers, sharing)
        loop = next((c for c in call_cycles(calls) if label in c), None)
        servers = {n: [c for c in s.calls if c != n] for n, s in draft.servers.items()}
        if loop is not None and next(call_cycles(servers), None) is None:
            text = (
                f"placement: {draft.placement}: the processes {' -> '.join(loop)} would wait for"
                f" each other; {label} is {', '.join(sharing[label])}: take those in between into"
                " it, or one of its members out"
            )
            yield Finding(("groups", label, KEY), text)
            return


def processes_have_cores(draft: Draft) -> Iterator[Finding]:
    for label, members in draft.sharing.items():
        bound = [name for name in members if draft.servers[name].cores is not None]
        if placement.common_cores([draft.servers[name] for name in bound]) == ():
            text = (
                f"servers.{bound[-1]}.cores: shares the process {label} with"
                f" {', '.join(bound[:-1])} (placement: {draft.placement}), and there is no core"
                " that all of them name; give them one in common"
            )
            yield Finding(("servers", bound[-1], "cores"), text)


def processes_have_one_policy(draft: Draft) -> Iterator[Finding]:
    for label, members in draft.sharing.items():
        fifo = [name for name in members if draft.servers[name].policy == "fifo"]
        others = [name for name in members if name not in fifo]
        if fifo and others:
            text = (
                f"servers.{fifo[0]}.policy: fifo, and it shares the process {label} with"
                f" {', '.join(others)} (placement: {draft.placement}), which would all run before"
                " everybody else; give all of them the same policy"
            )
            yield Finding(("servers", fifo[0], "policy"), text)


PLACEMENT_RULES = (
    hybrids_have_groups,
    processes_have_room,
    processes_have_an_order,
    processes_have_cores,
    processes_have_one_policy,
)
RULES: tuple[Callable[[Draft], Iterator[Finding]], ...] = (
    names_are_unique,
    names_are_free,
    devices_exist,
    devices_have_one_driver,
    images_are_distinct,
    callees_serve,
    calls_are_acyclic,
    modules_exist,
    interfaces_exist,
    cores_exist,
    groups_name_servers,
    groups_are_disjoint,
    strategies_have_a_group,
    standbys_are_restarted,
    backoffs_grow,
    *PLACEMENT_RULES,
)
