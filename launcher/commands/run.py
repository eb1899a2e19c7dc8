"""run: `ukernel run`: a program of the system that is started when a person asks."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from launcher.client import Client, Refused
from launcher.commands.act import KILLED
from launcher.commands.common import SystemName, finish


def run(
    name: Annotated[str, typer.Argument(help="A server with `start: demand`.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS...", show_default=False)
    ] = None,
    system: SystemName = "",
) -> None:
    """Run a program of the system (start: demand) here. Options go before its name.

    Ends with the program's exit status.
    """
    with Client(system) as client:
        info = client.ask("info")
        if name not in info["demand"]:
            known = ", ".join(info["demand"]) or "none"
            where = f"system {info['system']} ({info['config']})"
            raise Refused(f"{where} has no program {name!r} with `start: demand`: {known}", 2)
        status = client.run(name, words or [])
    if status < 0:
        print(f"ukernel: {name} was killed by signal {-status}", file=sys.stderr)
        finish(KILLED)
    finish(status)
