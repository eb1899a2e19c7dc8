"""vm_top: `ukernel vm top`: what the virtual machines of a running system do now."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any

import typer

from launcher.client import Client, Refused
from launcher.commands.common import SystemName, show_table

FIRST_S = 0.2  # until there is something on the screen
ENDED = 3  # the code of a refusal by a system that is no more
KINDS = ("slice", "wfi", "halt", "fault")
TITLES = [
    "NAME", "STATE", "CPU %", "SLICES/S", "WFI/S", "FAULTS", "RESETS", "SNAPSHOTS", "LAST s",
    "PAUSE ms", "LIFE",
]  # fmt: skip
DISPENSABLE = ["LIFE", "RESETS", "SNAPSHOTS", "WFI/S", "SLICES/S"]  # in this order

Every = Annotated[float, typer.Option(metavar="SECONDS", min=0.05, help="Length of an interval.")]
Rows = list[dict[str, Any]]


def top(
    system: SystemName = "",
    every: Every = 1.0,
    count: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="End after so many intervals.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """What each virtual machine does now: processor, slices, faults, age of its snapshot.

    q or Ctrl-C ends it.
    """
    with Client(system) as client, suppress(KeyboardInterrupt):
        try:
            _watch(client, every, count, as_json)
        except Refused as refused:
            if refused.code != ENDED:
                raise
            print(f"system {client.name} has ended", file=sys.stderr)


def _watch(client: Client, every_s: float, count: int | None, as_json: bool) -> None:
    def wait(seconds: float) -> bool:
        client.ended(seconds)  # the next look tells
        return False

    if as_json:
        for seconds, rows in _intervals(client, every_s, every_s, count, wait):
            print(json.dumps({"at": time.time(), "seconds": seconds, "vms": rows}), flush=True)
    elif not sys.stdout.isatty():
        for _, rows in _intervals(client, every_s, every_s, count, wait):
            show_table(TITLES, [shown(row) for row in rows])
    else:
        _on_screen(client, every_s, count, wait)


def _on_screen(
    client: Client, every_s: float, count: int | None, wait: Callable[[float], bool]
) -> None:
    from launcher.commands.screen import Screen, key_q

    with Screen() as screen, key_q() as stop_in:
        for _, rows in _intervals(client, FIRST_S, every_s, count, stop_in or wait):
            head = f"{client.name}: {len(rows)} virtual machines"
            screen.draw(head, TITLES, [shown(row) for row in rows], DISPENSABLE)


def _intervals(
    client: Client,
    first_s: float,
    every_s: float,
    count: int | None,
    stop_in: Callable[[float], bool],
) -> Iterator[tuple[float, Rows]]:
    from launcher.commands.vm import SERVES, look_at

    serves = client.ask("info")["serves"]

    def look() -> tuple[float, dict[str, dict[str, Any]]]:
        slots = client.ask("ps")
        rows = {s["name"]: look_at(client, s) for s in slots if serves.get(s["name"]) == SERVES}
        return time.monotonic(), rows

    before, wait_s, seen = look(), first_s, 0
    while count is None or seen < count:
        if stop_in(wait_s):
            return
        after, wait_s, seen = look(), every_s, seen + 1
        seconds = after[0] - before[0]
        yield seconds, [between(before[1].get(n), row, seconds) for n, row in after[1].items()]
        before = after


def between(before: dict[str, Any] | None, after: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What a virtual machine did between two looks at it; of another life, since it began."""
    if "engine" not in after:
        return after
    same = before is not None and "engine" in before and before["life"] == after["life"]
    first = before if same and before is not None else {}
    exits = {each["kind"]: each["times"] for each in after["exits"]}
    earlier = {each["kind"]: each["times"] for each in first.get("exits", [])}
    ran_us = after["run_us"] - first.get("run_us", 0)
    return {
        **after,
        "cpu_percent": min(100.0, ran_us / 1e4 / seconds) if seconds else 0.0,
        "slices_per_s": (after["slices"] - first.get("slices", 0)) / seconds if seconds else 0.0,
        "exits_per_s": {
            kind: (exits.get(kind, 0) - earlier.get(kind, 0)) / seconds if seconds else 0.0
            for kind in {**dict.fromkeys(KINDS), **exits}
        },
    }


def shown(row: dict[str, Any]) -> list[Any]:
    """A row of the table."""
    if "engine" not in row:
        return [row["name"], row["state"], *[None] * (len(TITLES) - 3), row["life"]]
    return [
        row["name"], row["state"], row["cpu_percent"], row["slices_per_s"],
        row["exits_per_s"]["wfi"], row["faults"], row["resets"], row["snapshots"],
        row["snapshot_age_ms"] / 1000 if row["snapshots"] else None,
        row["snapshot_pause_us"] / 1000, row["life"],
    ]  # fmt: skip
