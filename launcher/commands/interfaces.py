"""interfaces: what the servers of a running system speak, as far as this process can import it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.tracing import Decoder
    from ukernel.abi.interface import Interface


def decoder(info: dict[str, Any]) -> Decoder:
    """Puts the calls of this system in words."""
    from launcher.tracing import Decoder

    return Decoder(interfaces(info), info["devices"])


def interfaces(info: dict[str, Any]) -> dict[str, type[Interface]]:
    """By server. One that cannot be imported here has no operations: its calls stay numbers."""
    sys.path.append(info["directory"])
    return {server: _resolved(name) for server, name in info["serves"].items()}


def _resolved(name: str) -> type[Interface]:
    from ukernel.abi.interface import Interface
    from ukernel.abi.registry import resolve_interface

    try:
        return resolve_interface(name)
    except LookupError:
        return Interface
