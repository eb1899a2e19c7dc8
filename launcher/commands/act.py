"""act: doing something to a running system: kill, restart, fs, down."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from launcher.client import Client, Refused
from launcher.commands.common import SystemName, finish

SIGNALS = {"KILL": 9, "TERM": 15, "SEGV": 11, "STOP": 19, "CONT": 18}
SHELL = "shell"  # the name of the file shell, when several commands could be it
KILLED = 3  # exit status when a command was killed: how much of it was done is unknown

Name = Annotated[str, typer.Argument(help="A server of the system.")]


def kill(
    name: Name,
    signal: Annotated[str, typer.Option(help=", ".join(SIGNALS))] = "KILL",
    system: SystemName = "",
) -> None:
    """Send a signal to a server's process. What dies of it is restarted as its file says."""
    number = SIGNALS.get(signal.upper().removeprefix("SIG"))
    if number is None:
        raise Refused(f"no signal {signal!r}; there are {', '.join(SIGNALS)}", 2)
    with Client(system) as client:
        answer = client.ask("kill", name, number)
    if others := answer.get("with"):
        print(f"{name} shares its process with {', '.join(others)}: the signal went to all of them")


def restart(name: Name, system: SystemName = "") -> None:
    """End a server in order and start it again, whatever the restart limits say."""
    with Client(system) as client:
        answer = client.ask("restart", name)
    others = ", ".join(answer.get("with", []))
    also = f", and so are those that share its process: {others}" if others else ""
    print(f"{name} is ready: life {answer['life']}{also}")


def fs(
    words: Annotated[list[str], typer.Argument(metavar="COMMAND ARGS...", show_default=False)],
    system: SystemName = "",
) -> None:
    """Files inside the system: ls, cat, put, get, rm, mkdir, mv, stat, sha256, script.

    `ukernel fs COMMAND -h` shows how each is written.
    """
    with Client(system) as client:
        status = client.run(_file_shell(client.ask("info")), words)
    if status < 0:
        print(f"ukernel: the command was killed by signal {-status}", file=sys.stderr)
        finish(KILLED)
    finish(status)


def _file_shell(info: dict[str, Any]) -> str:
    """The command (start: demand) that may call a file server."""
    serves = info["serves"]
    able = [n for n, calls in info["demand"].items() if "file" in map(serves.get, calls)]
    if not able:
        raise Refused(
            f"system {info['system']} has no file shell: add a server with `start: demand` that "
            f"calls a `file` server ({info['config']})",
            2,
        )
    return SHELL if SHELL in able else able[0]


def down(
    system: SystemName = "",
    all_of_them: Annotated[bool, typer.Option("--all", help="Every system of this user.")] = False,
) -> None:
    """Stop a system in order; returns when nothing of it is left."""
    from launcher.rundir import running

    for name in running() if all_of_them else [system]:
        with Client(name) as client:
            client.down()
            print(f"{client.name} is down")
