"""roles: who is who in an experiment: clients, the servers that they call, whom it predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

from launcher.board import MACHINE
from launcher.chaos.checks import Failed
from launcher.chaos.nemesis import OnServer
from launcher.chaos.rules import Draft
from launcher.chaos.values import ANY
from launcher.chaos.workload import Download, Outside, Workload
from launcher.config import SystemFile
from launcher.rules import Finding, hint
from ukernel.abi.interface import Interface
from ukernel.abi.manifest import BUILTIN_INTERFACES, Manifest, Server, VirtioNet
from ukernel.abi.registry import resolve_interface

Rule = Callable[[Draft, SystemFile], Iterator[Finding]]

OUTWARD = ("userns", "tap")  # back ends of a card at whose other end the host is

# Processes of a system that are no servers, and why no action has them as its target.
NOT_SERVERS = {
    "kernel": "the kernel is no target: without it all fails closed, and nothing is left to check",
    "launcher": "the launcher is no target: it is what runs the experiment",
    "root": "the root task is no target: it is the launcher, which runs the experiment",
    "zygote": "the zygote is no target: it is a part of the launcher",
    MACHINE: "the machine is broken with do: device, and its power is cut with do: powercut",
}


def with_all_known(client: Workload, manifest: Manifest) -> Workload:
    """The same client with the name of its server and of its card, the only one that it can mean,
    and of its file."""
    update: dict[str, str] = {"to": client.to or able(client, manifest.servers)[0]}
    if isinstance(client, Outside):
        update["device"] = client.device or doors(manifest)[0]
    if isinstance(client, Download):
        update["path"] = client.path or urlsplit(client.url).path
    return client.model_copy(update=update)


def doors(manifest: Manifest) -> list[str]:
    """The network cards that lead into the host."""
    return [
        name
        for name, device in manifest.hardware.items()
        if isinstance(device, VirtioNet) and device.backend in OUTWARD
    ]


def able(client: Workload, servers: Mapping[str, Server]) -> list[str]:
    """The servers that a client can call."""
    return [
        name
        for name, server in servers.items()
        if server.start == "boot" and _serves(server, client.interface)
    ]


def _serves(server: Server, interface: str) -> bool:
    if server.serves in (None, interface):
        return server.serves is not None
    return served(server) is BUILTIN_INTERFACES[interface]


def served(server: Server) -> type[Interface] | None:
    """The interface of a server, as far as this process can import it."""
    try:
        return resolve_interface(server.serves) if server.serves else None
    except LookupError:
        return None


def clients_have_names_of_their_own(draft: Draft, system: SystemFile) -> Iterator[Finding]:
    for index, client in draft.workload.items():
        if why := _taken(client.client, system):
            text = f"workload.client: {client.client} is {why}; rename the client"
            yield Finding(("workload", index, "client"), text)


def _taken(name: str, system: SystemFile) -> str:
    for section, what in (("servers", "a server"), ("hardware", "a device")):
        if name in getattr(system.manifest, section):
            return f"{what} of the system ({system.where(section, name)})"
    return "a process of every system" if name in NOT_SERVERS else ""


def clients_have_servers(draft: Draft, system: SystemFile) -> Iterator[Finding]:
    for index, client in draft.workload.items():
        if why := _unserved(client, system):
            key = "to" if client.to else "run"
            yield Finding(("workload", index, key), f"workload.{key}: {why}")


def _unserved(client: Workload, system: SystemFile) -> str:
    """Why a client has no server, or not just one; nothing: it has."""
    servers = system.manifest.servers
    wants = f"{client.run} needs a server of {client.interface!r}"
    candidates = able(client, servers)
    if client.to is None:
        if len(candidates) > 1:
            return f"{wants}, and there are {', '.join(candidates)}; say which with 'to:'"
        if not candidates:
            return f"{wants}, and none runs from boot in {system.path}; take another run or system"
        return ""
    if client.to not in servers:
        remedy = hint(client.to, candidates, "servers that can")
        return f"no server {client.to!r} in {system.path}{remedy}"
    where = system.where("servers", client.to)
    if servers[client.to].start == "demand":
        return f"{client.to} starts on demand only ({where}); name one that runs from boot"
    if client.to not in candidates:
        serves = servers[client.to].serves or "nothing"
        return f"{wants}, and {client.to} serves {serves} ({where})"
    return ""


def those_outside_have_a_card(draft: Draft, system: SystemFile) -> Iterator[Finding]:
    for index, client in draft.workload.items():
        if isinstance(client, Outside) and (why := _cardless(client, system)):
            key = "device" if client.device else "run"
            yield Finding(("workload", index, key), f"workload.{key}: {why}")


def _cardless(client: Outside, system: SystemFile) -> str:
    """Why a client outside has no way in, or not just one; nothing: it has."""
    found, backends = doors(system.manifest), " or ".join(OUTWARD)
    if client.device is None:
        if len(found) > 1:
            return f"there are several network cards, {', '.join(found)}; say which with 'device:'"
        if not found:
            return (
                f"{client.run} comes from the host, and no network card of {system.path} leads"
                f" there; give it one with backend: {backends}"
            )
        return ""
    if client.device not in system.manifest.hardware:
        remedy = hint(client.device, found, "network cards")
        return f"no device {client.device!r} in {system.path}{remedy}"
    if client.device not in found:
        where = system.where("hardware", client.device)
        return f"{client.device} does not lead into the host ({where}); name a card that does" + (
            f": {', '.join(found)}" if found else f", with backend: {backends}"
        )
    return ""


def predicted_exist(draft: Draft, system: SystemFile) -> Iterator[Finding]:
    machine = [MACHINE] if system.manifest.hardware else []
    known = [*system.manifest.servers, *machine, *draft.client_names]
    outside = [client.client for client in draft.workload.values() if client.outside]
    for key in ("down", "degraded", "untouched") if draft.predict else ():
        for index, name in enumerate(getattr(draft.predict, key)):
            if name in outside:
                text = f"predict.{key}: {name} is outside, where the kernel sees nothing; remove it"
                yield Finding(("predict", key, index), text)
            elif name not in known:
                remedy = hint(name, known, "servers and clients")
                text = f"predict.{key}: neither a server nor a client is called {name!r}{remedy}"
                yield Finding(("predict", key, index), text)


def targets_are_not_untouched(draft: Draft, system: SystemFile) -> Iterator[Finding]:
    """A server that something is done to is predicted wrongly as one that notices nothing."""
    actions = [action for action in draft.actions.values() if isinstance(action, OnServer)]
    hit = {name: action.do for action in actions for name in action.target if name != ANY}
    if draft.sweep:
        hit[draft.sweep.target] = "the sweep"
    for index, name in enumerate(draft.predict.untouched if draft.predict else ()):
        if name in hit:
            text = f"predict.untouched: {name} is a target of {hit[name]}; name it under 'down:'"
            yield Finding(("predict", "untouched", index), text)


def failed_exist(draft: Draft, system: SystemFile) -> Iterator[Finding]:
    servers = system.manifest.servers
    for index, checker in draft.checkers.items():
        for number, name in enumerate(checker.exactly if isinstance(checker, Failed) else ()):
            if name not in servers:
                text = (
                    f"checkers.failed.exactly: no server {name!r} in {system.path}"
                    f"{hint(name, servers, 'servers')}"
                )
                yield Finding(("checkers", index, "failed", "exactly", number), text)


RULES: tuple[Rule, ...] = (
    clients_have_names_of_their_own,
    clients_have_servers,
    those_outside_have_a_card,
    predicted_exist,
    targets_are_not_untouched,
    failed_exist,
)
