"""screen: the whole terminal, drawn again and again, until somebody presses q.

What was on the terminal before is there again afterwards, as are its settings.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

GAP = 1  # between two columns
FOOT = "q ends it"


class Screen:
    """A headline above a table. Use it as a context."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, screen=True, auto_refresh=False)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._live.stop()

    def draw(
        self,
        headline: str,
        titles: Sequence[str],
        rows: Sequence[Sequence[object]],
        dispensable: Sequence[str],
    ) -> None:
        """Show it. A terminal that is too narrow loses the `dispensable` columns, in this order."""
        cells = [list(titles), *([_cell(value) for value in row] for row in rows)]
        columns = fitting(list(zip(*cells, strict=True)), self._console.width, dispensable)
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
        for title, *values in columns:
            to_left = any(text[:1].isalpha() for text in values)
            table.add_column(title, justify="left" if to_left else "right", no_wrap=True)
        for row in zip(*(column[1:] for column in columns), strict=True):
            table.add_row(*map(Text, row))
        self._live.update(Group(Text(headline), table, Text(f"\n{FOOT}")), refresh=True)


def fitting(
    columns: Sequence[Sequence[str]], width: int, dispensable: Sequence[str]
) -> list[Sequence[str]]:
    """The columns (a title, then its cells) that a terminal has room for."""
    kept, left = list(columns), list(dispensable)
    while left and sum(max(map(len, column)) + GAP for column in kept) > width:
        title = left.pop(0)
        kept = [column for column in kept if column[0] != title]
    return kept


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


@contextmanager
def key_q() -> Iterator[Callable[[float], bool] | None]:
    """A function that waits for so many seconds, or until q is pressed: whether it was.

    None when there is no keyboard: standard input is something else.
    """
    stdin = sys.stdin.fileno()
    if not os.isatty(stdin):
        yield None
        return
    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)
    try:
        yield lambda seconds: _pressed(stdin, seconds)
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _pressed(stdin: int, seconds: float) -> bool:
    end_s = time.monotonic() + seconds
    while select.select([stdin], [], [], max(0.0, end_s - time.monotonic()))[0]:
        try:
            if os.read(stdin, 1) in (b"q", b""):
                return True
        except OSError:  # the terminal is gone
            return True
    return False
