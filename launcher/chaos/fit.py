"""fit: whether a system has what an experiment breaks: its targets, its devices, its links.

A fault that could never land makes a run invalid when it is over; here it is refused before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from launcher.chaos.nemesis import ACTIONS, Action, Device, Message, OnServer, Powercut
from launcher.chaos.roles import NOT_SERVERS, able
from launcher.chaos.rules import Draft
from launcher.chaos.values import ANY, link_ends
from launcher.chaos.workload import Workload
from launcher.config import SystemFile, placed
from launcher.placement import PLACEMENTS, units
from launcher.rules import Finding, hint
from launcher.source import ConfigError, Keys
from ukernel.abi.faults import FRAME_FAULTS, LINE_FAULTS, MEDIUM_FAULTS, STUCK
from ukernel.abi.manifest import Manifest, Server

Rule = Callable[[Draft, SystemFile], Iterator[Finding]]

# In which ways a device can break, by its model.
BREAKS: dict[str, tuple[str, ...]] = {
    "virtio-blk": (*MEDIUM_FAULTS, STUCK, *LINE_FAULTS),
    "virtio-net": (STUCK, *LINE_FAULTS, *FRAME_FAULTS),
    "virtio-console": (STUCK, *LINE_FAULTS),
    "virtio-rng": (STUCK, *LINE_FAULTS),
    "timer": LINE_FAULTS,
}
NO_DMA = ("timer",)  # models that have registers only


class Suits(NamedTuple):
    """Which servers an action makes sense for, beside those that run from boot."""

    test: Callable[[Server, Manifest], bool]
    why_not: str  # and what to do


def _reaches_memory(server: Server, manifest: Manifest) -> bool:
    return any(manifest.hardware[device].model not in NO_DMA for device in server.devices)


SUITS: dict[str, Suits] = {
    "leak": Suits(
        lambda server, _: server.memory is not None,
        "has no limit, and would take all memory of the host; give it one with 'memory:'",
    ),
    "dma_abuse": Suits(_reaches_memory, "drives no device that reaches memory"),
}
EVERYONE = Suits(lambda *_: True, "starts on demand only; name one that runs from boot")


def everyone(do: str, manifest: Manifest) -> tuple[str, ...]:
    """What '*' means to an action."""
    suits = SUITS.get(do, EVERYONE)
    return tuple(
        name
        for name, server in manifest.servers.items()
        if server.start == "boot" and suits.test(server, manifest)
    )


def with_targets(action: Action, manifest: Manifest) -> Action:
    """The same action with names instead of '*'."""
    if isinstance(action, OnServer) and action.target == (ANY,):
        return action.model_copy(update={"target": everyone(action.do, manifest)})
    return action


def targets_can_be_hit(draft: Draft, system: SystemFile) -> Iterator[Finding]:
    for index, action in draft.actions.items():
        if isinstance(action, OnServer):
            key: Keys = ("nemesis", index, "target")
            listed = isinstance(draft.listed("nemesis")[index]["target"], list)
            for number, name in enumerate(action.target):
                if why := _out_of_reach(draft, system, action.do, name):
                    where = (*key, number) if listed else key
                    yield Finding(where, f"nemesis.target: {action.do}: {why}")
    if draft.sweep and (why := _out_of_reach(draft, system, "kill", draft.sweep.target)):
        yield Finding(("sweep", "target"), f"sweep.target: {why}")


def _out_of_reach(draft: Draft, system: SystemFile, do: str, name: str) -> str:
    """Why an action cannot meet a target; nothing: it can."""
    servers, suits = system.manifest.servers, SUITS.get(do, EVERYONE)
    if name == ANY:
        found = everyone(do, system.manifest)
        if len(found) == 1 and ACTIONS[do].several:
            return f"'*' finds {found[0]} alone, and {do} needs several ({system.path})"
        return "" if found else f"'*' finds nobody: each server {suits.why_not} ({system.path})"
    if name not in servers:
        return _no_server(draft, system, name)
    if servers[name].start == "demand":
        return f"{name} {EVERYONE.why_not} ({_line(system, name)})"
    if not suits.test(servers[name], system.manifest):
        return f"{name} {suits.why_not} ({_line(system, name)})"
    return ""


def _no_server(draft: Draft, system: SystemFile, name: str) -> str:
    if name in NOT_SERVERS:
        return NOT_SERVERS[name]
    if name in draft.client_names:
        return f"{name} is a client of the workload; only servers are broken"
    if name in system.manifest.hardware:
        return f"{name} is a device; break it with do: device"
    return f"no server {name!r} in {system.path}{hint(name, system.manifest.servers, 'servers')}"


def _line(system: SystemFile, name: str) -> str:
    return system.where("servers", name)


def devices_can_break(draft: Draft, system: SystemFile) -> Iterator[Finding]:
    hardware = system.manifest.hardware
    for index, action in draft.actions.items():
        if isinstance(action, Powercut) and not hardware:
            text = f"nemesis: {system.path} has no hardware, so no power to cut; remove it"
            yield Finding(("nemesis", index), text)
        if not isinstance(action, Device):
            continue
        if action.device not in hardware:
            remedy = hint(action.device, hardware, "devices")
            text = f"nemesis.device: no device {action.device!r} in {system.path}{remedy}"
            yield Finding(("nemesis", index, "device"), text)
        elif action.fault not in (can := BREAKS[hardware[action.device].model]):
            model = hardware[action.device].model
            text = f"nemesis.fault: a {model} cannot have {action.fault}, only {', '.join(can)}"
            yield Finding(("nemesis", index, "fault"), text)
        elif not any(
            action.device in server.devices for server in system.manifest.servers.values()
        ):
            text = f"nemesis.device: no server drives {action.device}; name a device that is used"
            yield Finding(("nemesis", index, "device"), text)


def links_exist(draft: Draft, system: SystemFile) -> Iterator[Finding]:
    clients = {client.client: client for client in draft.workload.values()}
    for index, action in draft.actions.items():
        if isinstance(action, Message):
            caller, callee = link_ends(action.link)
            if caller in clients:
                why = _unused(clients[caller], callee, system)
            elif caller in draft.client_names:
                continue  # told by the validation of the whole
            else:
                why = _unlinked(draft, system, caller, callee)
            if why:
                yield Finding(("nemesis", index, "link"), f"nemesis.link: {why}")


def _unused(client: Workload, callee: str, system: SystemFile) -> str:
    """Why a client does not call `callee`."""
    if client.outside:
        return (
            f"{client.client} is outside and calls nobody; disturb its frames with do: device,"
            " or a link between two servers"
        )
    calls = [client.to] if client.to else able(client, system.manifest.servers)
    if callee in calls or len(calls) != 1:
        return ""
    return f"{client.client} calls {calls[0]} and nobody else; write {client.client}->{calls[0]}"


def _unlinked(draft: Draft, system: SystemFile, caller: str, callee: str) -> str:
    servers = system.manifest.servers
    for name in (caller, callee):
        if name not in servers:
            return _no_server(draft, system, name)
    if callee not in servers[caller].calls:
        calls = ", ".join(servers[caller].calls) or "nobody"
        where = system.where("servers", caller, "calls")
        return f"{caller} may not call {callee}; it calls {calls} ({where})"
    if servers[caller].start == "demand":
        return f"{caller} starts on demand only ({_line(system, caller)}); it would send nothing"
    if any({caller, callee} <= set(unit.members) for unit in units(system.manifest)):
        return (
            f"{caller} and {callee} share a process, so there is no message between them; set "
            f"placement: micro ({system.where('placement')})"
        )
    return ""


def rogues_are_alone(draft: Draft, system: SystemFile) -> Iterator[Finding]:
    """What plays a driver's life is a program of its own, which shares no process."""
    crowds = [unit.members for unit in units(system.manifest) if len(unit.members) > 1]
    sharing = {name for members in crowds for name in members}
    for index, action in draft.actions.items():
        if isinstance(action, OnServer) and action.do == "dma_abuse":
            every = everyone(action.do, system.manifest)
            targets = every if action.target == (ANY,) else action.target
            if crowded := [name for name in targets if name in sharing]:
                text = (
                    f"nemesis.target: dma_abuse replaces the program of {crowded[0]}, which shares"
                    f" a process; set placement: micro ({system.where('placement')})"
                )
                yield Finding(("nemesis", index, "target"), text)


def beside_is_elsewhere(draft: Draft, system: SystemFile) -> Iterator[Finding]:
    other, own = draft.raw.get("beside"), system.manifest.placement
    if other == own:
        text = f"beside: {system.path} is placed {own} as it is; name another placement"
        yield Finding(("beside",), text)
    elif other in PLACEMENTS:
        try:
            placed(system, other)
        except ConfigError as error:
            text = f"beside: {system.path} cannot be placed so: {error.problems[0].text}"
            yield Finding(("beside",), text)


RULES: tuple[Rule, ...] = (
    targets_can_be_hit,
    devices_can_break,
    links_exist,
    rogues_are_alone,
    beside_is_elsewhere,
)
