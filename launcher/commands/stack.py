"""stack: which network stack of a running system a command is about."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from launcher.client import Refused

SERVES = "net"

StackName = Annotated[
    str, typer.Option("--server", metavar="NAME", help="Which network stack, if there are several.")
]


def find_stack(info: dict[str, Any], chosen: str) -> str:
    """The server that is asked. Raises Refused, naming those that there are."""
    stacks = [name for name, what in info["serves"].items() if what == SERVES]
    system, known = info["system"], ", ".join(stacks)
    if not stacks:
        raise Refused(
            f"system {system} has no network stack: add a server with `serves: {SERVES}` "
            f"({info['config']})",
            2,
        )
    if chosen and chosen not in stacks:
        raise Refused(f"system {system} has no network stack {chosen!r}; there is {known}", 2)
    if not chosen and len(stacks) > 1:
        raise Refused(f"system {system} has several network stacks: {known}; say --server NAME", 2)
    return chosen or stacks[0]
