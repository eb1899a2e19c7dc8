"""top: `ukernel top`: a running system at work, interval by interval.

On a terminal a screen that is drawn again and again; anywhere else a table, or a line of JSON,
for each interval.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.client import Client, Refused
from launcher.commands.common import SystemName, show_table, without_idle

if TYPE_CHECKING:
    from launcher.meter import Interval, Look

FIRST_S = 0.2  # until there is something on the screen
ENDED = 3  # the code of a refusal by a system that is no more

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

Every = Annotated[float, typer.Option(metavar="SECONDS", min=0.05, help="Length of an interval.")]


def top(
    system: SystemName = "",
    every: Every = 1.0,
    count: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="End after so many intervals.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """What each task does now: processor, memory, calls, mean latency of its replies, queues.

    q or Ctrl-C ends it.
    """
    with Client(system) as client:
        watcher = Watcher(client, every, count)
        with suppress(KeyboardInterrupt):
            if as_json:
                watcher.watch(lambda each: print(_as_json(client.name, each), flush=True))
            elif sys.stdout.isatty():
                _on_screen(watcher)
            else:
                watcher.watch(lambda each: _print(client.name, each))
        if watcher.ended:
            _tell_the_end(watcher)


class Watcher:
    """Looks at a system again and again. `ended`: it was no longer there at the last look."""

    def __init__(self, client: Client, every_s: float, count: int | None) -> None:
        self.client = client
        self.every_s = every_s
        self.count = count
        self.last: Interval | None = None
        self.seen = 0
        self.ended = False
        self._kernel_pid = client.ask("info")["kernel"]

    def watch(
        self,
        show: Callable[[Interval], None],
        stop_in: Callable[[float], bool] | None = None,
        first_s: float | None = None,
    ) -> None:
        """Show every interval until there were enough or the system has ended. `stop_in` waits
        for so long, or until somebody wants no more and it is true."""
        wait = stop_in or self._no_stop_in
        try:
            for each in self._intervals(wait, first_s or self.every_s):
                self.last, self.seen = each, self.seen + 1
                show(each)
        except Refused as refused:
            if refused.code != ENDED:
                raise
            self.ended = True

    def _no_stop_in(self, seconds: float) -> bool:
        self.client.ended(seconds)  # the next look tells
        return False

    def _intervals(self, stop_in: Callable[[float], bool], first_s: float) -> Iterator[Interval]:
        from launcher.meter import interval

        before, wait_s = self._look(), first_s
        while self.count is None or self.seen < self.count:
            if stop_in(wait_s):
                return
            after, wait_s = self._look(), self.every_s
            yield interval(before, after)
            before = after

    def _look(self) -> Look:
        from launcher.meter import KERNEL, Look, used

        rows, at_ns = self.client.ask("ps"), time.monotonic_ns()
        pids = {KERNEL: self._kernel_pid, **{row["name"]: row["pid"] for row in rows}}
        usage = {name: found for name, pid in pids.items() if (found := used(pid)) is not None}
        return Look(at_ns, rows, self.client.ask("kstat"), usage)


def _tell_the_end(watcher: Watcher) -> None:
    name = watcher.client.name
    if watcher.count is not None:
        told = f"system {name} ended after {watcher.seen} of {watcher.count} intervals"
        raise Refused(told, ENDED)
    if sys.stdout.isatty() and watcher.last is not None:
        _print(name, watcher.last)
    print(f"system {name} has ended", file=sys.stderr)


# --- how an interval is shown -------------------------------------------------------------------


def _as_json(system: str, each: Interval) -> str:
    tasks = [figures._asdict() for figures in each.tasks]
    return json.dumps({"system": system, "at": time.time(), **each._asdict(), "tasks": tasks})


def _headline(system: str, each: Interval) -> str:
    past = f", {each.past_per_s:.0f} more past the kernel," if each.past_per_s else ""
    return (
        f"{system}: {each.calls_per_s:.0f} calls/s{past} in {each.seconds:.1f} s; since the boot "
        f"{each.deaths} deaths, {each.denials} denials"
    )


def _print(system: str, each: Interval) -> None:
    print(_headline(system, each))
    show_table(*_table(each))


def _table(each: Interval) -> tuple[list[str], list[list[Any]]]:
    rows = []
    for figures in each.tasks:
        rss_kib = None if figures.rss_bytes is None else figures.rss_bytes // 1024
        values = {**figures._asdict(), "rss_kib": rss_kib}
        rows.append([values[column] for column in COLUMNS])
    return without_idle(TITLES, rows, PAST)


def _on_screen(watcher: Watcher) -> None:
    from launcher.commands.screen import Screen, key_q

    with Screen() as screen, key_q() as stop_in:

        def show(each: Interval) -> None:
            screen.draw(_headline(watcher.client.name, each), *_table(each), DISPENSABLE)

        watcher.watch(show, stop_in, FIRST_S)
