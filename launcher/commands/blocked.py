"""blocked: `ukernel blocked`: who waits for whom in a running system, and who is to blame."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.client import Client
from launcher.commands.common import AsJson, SystemName, show_json
from launcher.commands.interfaces import interfaces

if TYPE_CHECKING:
    from launcher.blocked import Chain, Stall
    from launcher.naming import Served

WATCH_S = 1.0  # between two looks of `--watch`


def blocked(
    system: SystemName = "",
    watch: Annotated[
        bool, typer.Option("--watch", help="Look every second until Ctrl-C; JSON in lines.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Who is blocked in a call on whom, and which calls wait at a server that takes none.

    Each line ends with the culprit: the task that all the others in it wait for.
    """
    with Client(system) as client, suppress(KeyboardInterrupt):
        served = interfaces(client.ask("info"))
        while True:
            now_ns, chains, stalls = _look(client)
            if as_json:
                found = _as_json(served, now_ns, chains, stalls)
                print(json.dumps(found), flush=True) if watch else show_json(found)
            else:
                print("\n".join(_lines(served, now_ns, chains, stalls)), flush=True)
            if not watch or client.ended(WATCH_S):
                return


def _look(client: Client) -> tuple[int, list[Chain], list[Stall]]:
    from launcher.blocked import chains, stalls
    from launcher.meter import used

    rows, now_ns = client.ask("ps"), time.monotonic_ns()
    usage = {row["name"]: used(row["pid"]) for row in rows}
    suspended = [name for name, usage in usage.items() if usage is not None and usage.suspended]
    return now_ns, chains(rows, suspended, now_ns), stalls(rows, suspended, now_ns)


def _as_json(
    served: Served, now_ns: int, chains: list[Chain], stalls: list[Stall]
) -> dict[str, Any]:
    from launcher.naming import operation_name

    return {
        "chains": [
            {
                "waits": [
                    {
                        "caller": wait.caller,
                        "callee": wait.callee,
                        "opcode": wait.opcode,
                        "operation": operation_name(served, wait.callee, wait.opcode, wait.badge),
                        "waited_ms": (now_ns - wait.since_ns) / 1e6,
                        "way": wait.way or "kernel",
                    }
                    for wait in chain.waits
                ],
                "culprit": chain.culprit,
                "why": chain.why,
            }
            for chain in chains
        ],
        "stalls": [stall._asdict() for stall in stalls],
    }


def _lines(served: Served, now_ns: int, chains: list[Chain], stalls: list[Stall]) -> list[str]:
    from launcher.naming import operation_name

    lines = []
    for chain in chains:
        line = chain.waits[0].caller
        for wait in chain.waits:
            name = operation_name(served, wait.callee, wait.opcode, wait.badge)
            way = f" {wait.way}" if wait.way else ""
            line += f" -> {wait.callee} {name}{way} {(now_ns - wait.since_ns) / 1e6:.0f} ms"
        lines.append(f"{line}: {chain.culprit} {chain.why}")
    for stall in stalls:
        held = f"{stall.server}: {stall.queued} queued, {stall.taken} taken"
        lines.append(f"{held}: {stall.culprit} {stall.why}")
    return lines or ["nobody is blocked"]
