"""top: `ukernel top`: a running system at work, interval by interval."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from launcher.client import Client
from launcher.commands.common import SystemName, without_idle
from launcher.commands.live import Count, Every, Lines, Table, View, watch

if TYPE_CHECKING:
    from launcher.meter import Interval, Look

COLUMNS = [
    "name", "life", "state", "restarts", "cpu_percent", "rss_kib", "calls_per_s", "replies_per_s",
    "channel_calls_per_s", "channel_served_per_s", "direct_calls_per_s", "latency_us", "queued",
    "taken", "faults", "ready_s",
]  # fmt: skip
TITLES = [
    "NAME", "LIFE", "STATE", "RESTARTS", "CPU %", "RSS K", "CALLS/S", "REPLIES/S", "BY CHANNEL/S",
    "SERVED SO/S", "DIRECT/S", "MEAN us", "QUEUE", "TAKEN", "FAULTS", "READY s",
]  # fmt: skip
PAST = ("BY CHANNEL/S", "SERVED SO/S", "DIRECT/S")  # shown where calls pass the kernel by
DISPENSABLE = [  # in this order
    "FAULTS", "TAKEN", "RESTARTS", "RSS K", "READY s", "LIFE", "DIRECT/S", "SERVED SO/S",
    "REPLIES/S", "BY CHANNEL/S",
]  # fmt: skip


def top(
    system: SystemName = "", every: Every = 1.0, count: Count = None, as_json: Lines = False
) -> None:
    """What each task does now: processor, memory, calls, mean latency of its replies, queues.

    q or Ctrl-C ends it.
    """
    from launcher.meter import interval

    with Client(system) as client:
        kernel_pid = client.ask("info")["kernel"]
        view = View(
            look=lambda: _look(client, kernel_pid),
            between=interval,
            table=lambda each: _table(client.name, each),
            fields=lambda each: _fields(client.name, each),
            dispensable=DISPENSABLE,
        )
        watch(client, view, every, count, as_json)


def _look(client: Client, kernel_pid: int) -> Look:
    from launcher.meter import KERNEL, Look, used

    rows, at_ns = client.ask("ps"), time.monotonic_ns()
    pids = {KERNEL: kernel_pid, **{row["name"]: row["pid"] for row in rows}}
    usage = {name: found for name, pid in pids.items() if (found := used(pid)) is not None}
    return Look(at_ns, rows, client.ask("kstat"), usage)


def _fields(system: str, each: Interval) -> dict[str, Any]:
    tasks = [figures._asdict() for figures in each.tasks]
    return {"system": system, **each._asdict(), "tasks": tasks}


def _headline(system: str, each: Interval) -> str:
    past = f", {each.past_per_s:.0f} more past the kernel," if each.past_per_s else ""
    return (
        f"{system}: {each.calls_per_s:.0f} calls/s{past} in {each.seconds:.1f} s; since the boot "
        f"{each.deaths} deaths, {each.denials} denials"
    )


def _table(system: str, each: Interval) -> Table:
    rows = []
    for figures in each.tasks:
        rss_kib = None if figures.rss_bytes is None else figures.rss_bytes // 1024
        values = {**figures._asdict(), "rss_kib": rss_kib}
        rows.append([values[column] for column in COLUMNS])
    return Table(_headline(system, each), *without_idle(TITLES, rows, PAST))
