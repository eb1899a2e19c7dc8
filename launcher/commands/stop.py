"""stop: `ukernel stop`: end one server in order, and leave it so."""

from __future__ import annotations

from launcher.client import Client
from launcher.commands.act import Name
from launcher.commands.common import SystemName


def stop(name: Name, system: SystemName = "") -> None:
    """End a server in order. It stays stopped until `ukernel restart NAME`."""
    with Client(system) as client:
        answer = client.ask("stop", name)
    others = ", ".join(answer.get("with", []))
    also = f", with those that share its process ({others})" if others else ""
    print(f"{name} is stopped{also}: its callers are told so until `ukernel restart {name}`")
