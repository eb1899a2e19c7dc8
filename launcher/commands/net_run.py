"""net_run: `ukernel net run`: a command of the host at the other end of a network card's cable.

A card with `backend: userns` ends in a network namespace of this user's own, so nobody needs to be
root: this process becomes the command, in there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer

from launcher.client import Client, Refused
from launcher.commands.common import SystemName

MACHINE = "machine"  # the task that simulates the hardware
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # and what becomes of it would ignore them too


def run(
    words: Annotated[list[str], typer.Argument(metavar="COMMAND ARGS...", show_default=False)],
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Which network card, if there are several.")
    ] = "",
    system: SystemName = "",
) -> None:
    """Run a command of the host in the network namespace of a card with `backend: userns`.

    Ends with the command's exit status.
    """
    from launcher.cables import inside, namespaces

    with Client(system) as client:
        cards = client.ask_server(MACHINE, "cards") if client.ask("info")["devices"] else []
        backends = {card["device"]: card["backend"] for card in cards}
        holder = find_holder(client.name, backends, namespaces(client.run_dir), device)
    become(inside(holder, words))


def find_holder(
    system: str, backends: Mapping[str, str], holders: Mapping[str, int], device: str
) -> int:
    """The process that keeps the namespace of a card. Raises Refused, saying what there is.

    `backends` has all cards, `holders` those with a namespace.
    """
    if not backends:
        raise Refused(f"system {system} has no network card", 2)
    if device and device not in backends:
        known = ", ".join(backends)
        raise Refused(f"system {system} has no network card {device!r}; there is {known}", 2)
    asked = [device] if device else list(backends)
    found = [name for name in asked if name in holders]
    if not found:
        raise Refused("; ".join(_elsewhere(name, backends[name]) for name in asked), 2)
    if len(found) > 1:
        raise Refused(f"several cards have a namespace: {', '.join(found)}; say --device NAME", 2)
    return holders[found[0]]


def _elsewhere(name: str, backend: str) -> str:
    """Why there is no namespace to go to."""
    if backend == "tap":
        return f"{name} is in the host's own network (`backend: tap`): run the command as it is"
    return f"the host is not at the other end of {name} (`backend: {backend}`)"


def become(words: list[str]) -> NoReturn:
    """Be this command from now on."""
    for signo in IGNORED_BY_PYTHON:
        signal.signal(signo, signal.SIG_DFL)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        raise Refused(f"{words[0]}: {error.strerror}", 1) from None
