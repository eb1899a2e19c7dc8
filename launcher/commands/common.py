"""common: what the commands share: options, and how rows are shown.

On a terminal rows become tables and trees; anywhere else plain lines that other programs can cut.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

SystemName = Annotated[
    str, typer.Option("--system", metavar="NAME", help="Which system; the only one by default.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers to a file.")
]


def finish(status: int) -> None:
    """End the command with this exit status."""
    if status:
        raise typer.Exit(status)


def show_json(value: object) -> None:
    print(json.dumps(value, indent=2), flush=True)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows under their titles; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    right = [all(_is_number(row[at]) for row in rows) for at in range(len(columns))]
    if sys.stdout.isatty():
        _show_rich(columns, cells, right)
        return
    lines = [list(columns), *cells]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        padded = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        print("  ".join(padded).rstrip())
    sys.stdout.flush()


def _show_rich(columns: Sequence[str], cells: list[list[str]], right: list[bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name, to_right in zip(columns, right, strict=True):
        table.add_column(name, justify="right" if to_right else "left", no_wrap=True)
    for row in cells:
        table.add_row(*map(Text, row))
    console = Console()
    widths = (max(len(line[at]) for line in [columns, *cells]) for at in range(len(columns)))
    needed = sum(widths) + len(columns)
    console.print(table, width=max(needed, console.width), crop=False)  # a number is never cut


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, int | float)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def without_idle(
    titles: list[str], rows: Sequence[Sequence[Any]], idle: Collection[str]
) -> tuple[list[str], list[list[Any]]]:
    """The table without those columns, of these titles, in which there is nothing but zeros."""
    empty = [t in idle and not any(row[at] for row in rows) for at, t in enumerate(titles)]
    kept = [at for at in range(len(titles)) if not empty[at]]
    return [titles[at] for at in kept], [[row[at] for at in kept] for row in rows]
