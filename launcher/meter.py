"""meter: what went on between two looks at a running system. Pure, except `used`.

The kernel counts from the boot on and Linux counts from a process's beginning, so a rate is the
difference of two looks by the time between them. What is not there in both looks (a new slot, a
new process) began at nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psutil

from ukernel.abi.syscalls import DEAD, EVENT_DENIED, FAILED, READY

KERNEL = "kernel"
GROWING = (
    "calls", "replies", "channel_calls", "channel_served", "direct_calls", "waited_ns",
)  # fmt: skip
DONE = "calls_done"  # the kernel's counter of calls that have had their outcome


class Usage(NamedTuple):
    """What Linux says of a process. `born_s` tells two of one number apart."""

    pid: int
    born_s: float
    cpu_s: float
    rss_bytes: int
    suspended: bool


class Look(NamedTuple):
    """A system at one moment: rows as `ps` has them, the kernel's counters, usage by task."""

    at_ns: int  # CLOCK_MONOTONIC
    rows: Sequence[Mapping[str, Any]]
    counters: Mapping[str, int]
    usage: Mapping[str, Usage]  # of the kernel too


class Figures(NamedTuple):
    """One task in one interval. None: there is nothing to tell."""

    name: str
    life: int
    state: str
    restarts: int
    cpu_percent: float | None
    rss_bytes: int | None
    calls_per_s: float  # that it made
    replies_per_s: float  # that it gave
    channel_calls_per_s: float  # that it made past the kernel
    channel_served_per_s: float  # of such, that it took
    direct_calls_per_s: float  # that it made within its process
    latency_us: float | None  # mean of the replies by the kernel, from the call on
    queued: int
    taken: int
    faults: int
    ready_s: float | None  # for how long this life has been READY


class Interval(NamedTuple):
    """A system between two looks. `deaths` and `denials` are since the boot."""

    seconds: float
    calls_per_s: float  # by the kernel
    past_per_s: float  # by channel or direct
    deaths: int
    denials: int
    tasks: list[Figures]


def interval(before: Look, after: Look) -> Interval:
    """What went on between the two."""
    seconds = max(after.at_ns - before.at_ns, 1) / 1e9
    old = {row["name"]: row for row in before.rows}
    calls = after.counters.get(DONE, 0) - before.counters.get(DONE, 0)
    tasks = [_task(before, after, old.get(r["name"], {}), r, seconds) for r in after.rows]
    return Interval(
        seconds,
        calls / seconds,
        sum(task.channel_calls_per_s + task.direct_calls_per_s for task in tasks),
        sum(row["restarts"] + (row["state"] in (DEAD, FAILED)) for row in after.rows),
        after.counters.get(EVENT_DENIED, 0),
        [_kernel(before, after, calls / seconds, seconds), *tasks],
    )


def _task(
    before: Look, after: Look, old: Mapping[str, Any], row: Mapping[str, Any], seconds: float
) -> Figures:
    name, state = row["name"], row["state"]
    gained = {key: row[key] - old.get(key, 0) for key in GROWING}
    usage = after.usage.get(name)
    if usage is not None and usage.suspended:
        state += ", suspended"
    return Figures(
        name,
        row["life"],
        state,
        row["restarts"],
        _cpu_percent(before.usage.get(name), usage, seconds),
        usage and usage.rss_bytes,
        gained["calls"] / seconds,
        gained["replies"] / seconds,
        gained["channel_calls"] / seconds,
        gained["channel_served"] / seconds,
        gained["direct_calls"] / seconds,
        gained["waited_ns"] / gained["replies"] / 1e3 if gained["replies"] else None,
        row["queued"],
        row["taken"],
        row["faults"],
        (after.at_ns - row["ready_ns"]) / 1e9 if row["state"] == READY else None,
    )


def _kernel(before: Look, after: Look, calls_per_s: float, seconds: float) -> Figures:
    usage = after.usage.get(KERNEL)
    cpu_percent = _cpu_percent(before.usage.get(KERNEL), usage, seconds)
    rss_bytes = usage and usage.rss_bytes
    return Figures(
        KERNEL, 1, READY, 0, cpu_percent, rss_bytes, calls_per_s, 0.0, 0.0, 0.0, 0.0, None,
        0, 0, 0, None,
    )  # fmt: skip


def _cpu_percent(before: Usage | None, after: Usage | None, seconds: float) -> float | None:
    """Of one processor. A process that was not there before has used nothing before."""
    if after is None:
        return None
    same = before is not None and (before.pid, before.born_s) == (after.pid, after.born_s)
    used_s = after.cpu_s - (before.cpu_s if before is not None and same else 0.0)
    return 100 * used_s / seconds


def used(pid: int) -> Usage | None:
    """What Linux says of a process now; None when there is none."""
    if not pid:
        return None
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            suspended = process.status() == psutil.STATUS_STOPPED
            rss_bytes = process.memory_info().rss
            born_s = process.create_time()
    except psutil.Error:
        return None
    return Usage(pid, born_s, times.user + times.system, rss_bytes, suspended)
