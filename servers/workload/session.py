"""session: what the command line asks for, from the first call to the end of the input.

    RUN CLIENT to=SERVER key=value ...          work until standard input ends; see `history`
    verify RUN CLIENT to=SERVER key=value ...   print {"found": {key: value}}: what is there now
    prepare RUN CLIENT to=SERVER key=value ...  make what the run needs; print what to know of it

A run ends with the line {"end": {"ok", "retried", "unknown", "failed"}}, its calls by what became
of them. Exit status: 0 done, 1 not done (standard error says why), 2 not a command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

from servers.workload.bulk import BulkRun
from servers.workload.client import Client, Options, Setting
from servers.workload.datagrams import DatagramsRun
from servers.workload.download import DownloadRun
from servers.workload.files import FilesRun
from servers.workload.guest import GuestRun
from servers.workload.history import History, described
from servers.workload.kv import KeyValueRun
from servers.workload.light import ClockRun, ConsoleRun, EchoRun, EntropyRun
from servers.workload.memory import Memory
from servers.workload.pace import Pace
from ukernel.abi.errors import Answer, CallError
from ukernel.lib import task
from ukernel.lib.stub import TIMEOUT_S, connect

STDIN, STDOUT = 0, 1
RUNS: dict[str, type[Client]] = {
    "files": FilesRun, "kv": KeyValueRun, "read": BulkRun, "download": DownloadRun,
    "echo": EchoRun, "clock": ClockRun, "entropy": EntropyRun, "console": ConsoleRun,
    "guest": GuestRun, "datagrams": DatagramsRun,
}  # fmt: skip
COMMON: Options = {"to": "", "timeout_ms": int(TIMEOUT_S * 1000)}  # options of every run


class UsageError(Exception):
    """Not a command; the text says what is wrong and how to write it."""


class Order(NamedTuple):
    """A command line, understood."""

    verb: str
    run: type[Client]
    client: str
    options: Options


def parse(argv: list[str]) -> Order:
    """Raises UsageError."""
    verb, words = ("work", argv) if not argv or argv[0] not in VERBS else (argv[0], argv[1:])
    match words:
        case [str(name), str(client), *rest] if name in RUNS:
            own = RUNS[name].defaults
            options = _options(name, own | (COMMON | own), rest)
        case _:
            known = ", ".join(RUNS)
            raise UsageError(f"write [verify|prepare] RUN CLIENT key=value ...; RUN is {known}")
    if not options["to"]:
        raise UsageError(f"{name} {client} calls nobody: add to=SERVER")
    return Order(verb, RUNS[name], client, options)


def _options(run: str, defaults: Options, words: list[str]) -> Options:
    options = dict(defaults)
    for word in words:
        key, _, text = word.partition("=")
        if key not in defaults:
            raise UsageError(f"{run} has no option {word!r}; it has {', '.join(defaults)}")
        try:
            options[key] = type(defaults[key])(text)
        except ValueError:
            raise UsageError(f"{run}: {word!r} is not a whole number") from None
    return options


def start(order: Order) -> Client:
    timeout_s = int(order.options["timeout_ms"]) / 1000
    server = connect(order.run.interface, str(order.options["to"]), timeout_s=timeout_s)
    history, memory = History(STDOUT), Memory(task.connection())
    return order.run(Setting(order.client, order.options, history, server, memory))


def work(client: Client) -> None:
    pace, good = Pace(STDIN, client.number("every_ms")), True
    while pace.wait(good):
        good = client.step()
    client.history.say(end=asdict(task.connection().stats))


def verify(client: Client) -> None:
    client.history.say(found=client.found())


def prepare(client: Client) -> None:
    client.history.say(**client.prepare())


VERBS: dict[str, Callable[[Client], None]] = {"work": work, "verify": verify, "prepare": prepare}


def main(argv: list[str]) -> int:
    try:
        order = parse(argv)
        VERBS[order.verb](start(order))
        task.connection().leave()
    except UsageError as error:
        print(f"workload: {error}", file=sys.stderr)
        return 2
    except (Answer, CallError, OSError) as error:
        print(f"workload: {described(error)}", file=sys.stderr)
        return 1
    return 0
