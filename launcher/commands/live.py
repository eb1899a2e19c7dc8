"""live: what `ukernel top` and `ukernel vm top` do alike: look at a system again and again.

On a terminal a screen that is drawn again and again; anywhere else a table, or a line of JSON,
for each interval.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import typer

from launcher.client import Client, Refused
from launcher.commands.common import show_table

FIRST_S = 0.2  # until there is something on the screen
ENDED = 3  # the code of a refusal by a system that is no more

Every = Annotated[float, typer.Option(metavar="SECONDS", min=0.05, help="Length of an interval.")]
Count = Annotated[int | None, typer.Option(metavar="N", min=1, help="End after so many intervals.")]
Lines = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]

L = TypeVar("L")  # what a look finds
I = TypeVar("I")  # noqa: E741 - what an interval was
Wait = Callable[[float], bool]  # for so many seconds, or until somebody wants no more: true


class Table(NamedTuple):
    """An interval, for people."""

    headline: str
    titles: list[str]
    rows: list[list[Any]]


class View(NamedTuple, Generic[L, I]):
    """What is looked at and how it is shown. A terminal that is too narrow loses the `dispensable`
    columns, in this order."""

    look: Callable[[], L]
    between: Callable[[L, L], I]
    table: Callable[[I], Table]
    fields: Callable[[I], dict[str, Any]]  # of a line of JSON
    dispensable: list[str]


def watch(
    client: Client, view: View[L, I], every_s: float, count: int | None, as_json: bool
) -> None:
    """Show it until there were `count` intervals, somebody presses q or Ctrl-C, or the system has
    ended. Raises Refused when it has ended before `count` of them."""
    watcher = Watcher(client, view, every_s, count)
    with suppress(KeyboardInterrupt):
        if as_json:
            watcher.run(lambda each: print(_line(view.fields(each)), flush=True))
        elif sys.stdout.isatty():
            _on_screen(watcher)
        else:
            watcher.run(lambda each: _print(view.table(each)))
    if watcher.ended:
        _tell_the_end(watcher)


class Watcher(Generic[L, I]):
    """Looks again and again. `ended`: the system was no longer there at the last look."""

    def __init__(self, client: Client, view: View[L, I], every_s: float, count: int | None) -> None:
        self.client = client
        self.view = view
        self.every_s = every_s
        self.count = count
        self.last: I | None = None
        self.seen = 0
        self.ended = False

    def run(
        self, show: Callable[[I], None], stop_in: Wait | None = None, first_s: float | None = None
    ) -> None:
        """Show every interval until there were enough or the system has ended."""
        try:
            for each in self._intervals(stop_in or self._no_stop_in, first_s or self.every_s):
                self.last, self.seen = each, self.seen + 1
                show(each)
        except Refused as refused:
            if refused.code != ENDED:
                raise
            self.ended = True

    def _no_stop_in(self, seconds: float) -> bool:
        self.client.ended(seconds)  # the next look tells
        return False

    def _intervals(self, stop_in: Wait, first_s: float) -> Iterator[I]:
        before, wait_s = self.view.look(), first_s
        while self.count is None or self.seen < self.count:
            if stop_in(wait_s):
                return
            after, wait_s = self.view.look(), self.every_s
            yield self.view.between(before, after)
            before = after


def _tell_the_end(watcher: Watcher[L, I]) -> None:
    name = watcher.client.name
    if watcher.count is not None:
        told = f"system {name} ended after {watcher.seen} of {watcher.count} intervals"
        raise Refused(told, ENDED)
    if sys.stdout.isatty() and watcher.last is not None:
        _print(watcher.view.table(watcher.last))
    print(f"system {name} has ended", file=sys.stderr)


def _line(fields: dict[str, Any]) -> str:
    return json.dumps({"at": time.time(), **fields})


def _print(table: Table) -> None:
    print(table.headline)
    show_table(table.titles, table.rows)


def _on_screen(watcher: Watcher[L, I]) -> None:
    from launcher.commands.screen import Screen, key_q

    view = watcher.view
    with Screen() as screen, key_q() as stop_in:
        watcher.run(lambda each: screen.draw(*view.table(each), view.dispensable), stop_in, FIRST_S)
