"""ensemble: a system file with an experiment's clients, and with the interposers of its links.

The experiment's own system file is not touched: they are added to what was read of it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection

from launcher.chaos.experiment import ExperimentFile
from launcher.chaos.nemesis import Message
from launcher.chaos.values import link_ends
from launcher.chaos.workload import Workload
from launcher.config import SystemFile
from ukernel.abi.manifest import Arg, Link, Manifest, Restart, Server

CLIENT, INTERPOSER = "servers.workload", "servers.interposer"
INTERPOSER_WINDOW = 64
LONGEST_NAME = 32  # of a server
NEVER = Restart(when="never")


def with_clients(file: ExperimentFile) -> Manifest:
    """The system with the experiment's clients: whom a fault may reach."""
    clients = {c.client: _client(c) for c in file.experiment.workload}
    servers = {**file.system.manifest.servers, **clients}
    return file.system.manifest.model_copy(update={"servers": servers})


def with_cast(file: ExperimentFile) -> tuple[SystemFile, dict[tuple[str, str], str]]:
    """The system with the experiment's clients and interposers, and which of those is between
    whom: (caller, callee) -> interposer."""
    manifest = with_clients(file)
    servers = dict(manifest.servers)
    through: dict[tuple[str, str], str] = {}
    for link in sorted({a.link for a in file.experiment.nemesis if isinstance(a, Message)}):
        caller, callee = link_ends(link)
        name = through[caller, callee] = free_name(f"{caller}-{callee}", servers)
        servers[name] = _interposer(manifest, caller, callee)
        # It is called by the callee's name. Named here as well, it starts before its caller.
        calls = {**servers[caller].calls, name: Link()}
        servers[caller] = servers[caller].model_copy(update={"calls": calls})
    whole = manifest.model_copy(update={"servers": servers})
    return dataclasses.replace(file.system, manifest=whole), through


def free_name(wanted: str, taken: Collection[str]) -> str:
    """`wanted`, or as much of it as makes a name that nobody has."""
    if len(wanted) <= LONGEST_NAME and wanted not in taken:
        return wanted
    endings = (f"-{number}" for number in itertools.count(2))
    names = (f"{wanted[: LONGEST_NAME - len(ending)]}{ending}" for ending in endings)
    return next(name for name in names if name not in taken)


def _client(client: Workload) -> Server:
    assert client.to is not None, "a loaded experiment has said who calls whom"
    server = Server(run=CLIENT, start="demand", restart=NEVER)
    return server.model_copy(update={"calls": {client.to: Link()}})


def _interposer(manifest: Manifest, caller: str, callee: str) -> Server:
    serves, link = manifest.servers[callee].serves, manifest.servers[caller].calls[callee]
    args: dict[str, Arg] = {"to": callee, "serves": serves or ""}
    args |= {"badge": link.badge} if link.badge else {}
    server = Server(
        run=INTERPOSER, serves=serves, priority=255, window=INTERPOSER_WINDOW, args=args
    )
    return server.model_copy(update={"calls": {callee: Link(badge=link.badge)}})
