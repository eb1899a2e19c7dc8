"""vm_top: `ukernel vm top`: what the virtual machines of a running system do now."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from launcher.client import Client
from launcher.commands.common import SystemName
from launcher.commands.live import Count, Every, Lines, Table, View, watch

KINDS = ("slice", "wfi", "halt", "fault")
TITLES = [
    "NAME", "STATE", "CPU %", "SLICES/S", "WFI/S", "FAULTS", "RESETS", "SNAPSHOTS", "LAST s",
    "PAUSE ms", "LIFE",
]  # fmt: skip
DISPENSABLE = ["LIFE", "RESETS", "SNAPSHOTS", "WFI/S", "SLICES/S"]  # in this order


class Look(NamedTuple):
    """The virtual machines at one moment, by name."""

    at_s: float  # CLOCK_MONOTONIC
    rows: dict[str, dict[str, Any]]


class Interval(NamedTuple):
    """What they did in it."""

    seconds: float
    rows: list[dict[str, Any]]


def top(
    system: SystemName = "", every: Every = 1.0, count: Count = None, as_json: Lines = False
) -> None:
    """What each virtual machine does now: processor, slices, faults, age of its snapshot.

    q or Ctrl-C ends it.
    """
    with Client(system) as client:
        serves = client.ask("info")["serves"]
        view = View(
            look=lambda: _look(client, serves),
            between=_interval,
            table=lambda each: _table(client.name, each),
            fields=lambda each: {"seconds": each.seconds, "vms": each.rows},
            dispensable=DISPENSABLE,
        )
        watch(client, view, every, count, as_json)


def _look(client: Client, serves: dict[str, str]) -> Look:
    from launcher.commands.vm import SERVES, look_at

    slots = [slot for slot in client.ask("ps") if serves.get(slot["name"]) == SERVES]
    rows = {slot["name"]: look_at(client, slot) for slot in slots}
    return Look(time.monotonic(), rows)


def _interval(before: Look, after: Look) -> Interval:
    seconds = after.at_s - before.at_s
    rows = [between(before.rows.get(name), row, seconds) for name, row in after.rows.items()]
    return Interval(seconds, rows)


def _table(system: str, each: Interval) -> Table:
    head = f"{system}: {len(each.rows)} virtual machines in {each.seconds:.1f} s"
    return Table(head, TITLES, [shown(row) for row in each.rows])


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
