"""compare: `ukernel compare`: the price of isolation, of one system file in every placement.

Exit status: 0 every claim held, 1 one did not, 2 bad input, 3 interrupted: nothing is shown.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.client import Refused
from launcher.commands.common import AsJson, finish, show_json, show_table
from launcher.commands.reference import Config

if TYPE_CHECKING:
    from launcher.compare.result import Result

BROKEN, BAD_INPUT, UNKNOWN = 1, 2, 3


def compare(
    config: Config,
    as_json: AsJson = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a report and its picture (SVG, PNG) there."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Little work: about a minute.")] = False,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of every case.", show_default="5")
    ] = None,
) -> None:
    """What isolation costs: the same work and the same kill in every placement, called through
    the kernel and by channels, each figure beside mono's."""
    from launcher.compare.amounts import QUICK, Amounts
    from launcher.compare.compare import compare as carry_out
    from launcher.config import load
    from launcher.foreground import StopRequested, StopSignals

    file = load(config)
    if report is not None:
        _check_report(report)
    amounts = QUICK if quick else Amounts()
    amounts = amounts._replace(rounds=rounds or amounts.rounds)
    with StopSignals() as signals:
        try:
            result = carry_out(file, amounts, _tell, signals.armed)
        except StopRequested:
            print(f"{config}: interrupted: nothing has been shown", file=sys.stderr)
            finish(UNKNOWN)
    if as_json:
        show_json(result.as_json())
    else:
        _show(result)
    if report is not None:
        _write(result, report)
    finish(0 if result.held else BROKEN)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _show(result: Result) -> None:
    from launcher.compare.tables import tables

    for about, titles, rows in tables(result):
        print(f"{about}:")
        show_table(titles, rows)
        print()
    for claim in result.claims():
        print(f"{'HELD' if claim.held else 'BROKEN':6}  {claim.claim}: {claim.why}")
    for note in result.notes():
        print(f"note    {note}")


def _check_report(directory: Path) -> None:
    """Better before a run than after it."""
    from launcher.chaos.report import ReportError, check_drawable

    try:
        check_drawable()
        directory.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=directory).close()
    except ReportError as error:
        raise Refused(str(error), BAD_INPUT) from None
    except OSError as error:
        text = f"--report {directory}: {error.strerror}; name a directory that can be written"
        raise Refused(text, BAD_INPUT) from None


def _write(result: Result, directory: Path) -> None:
    from launcher.compare.report import write

    try:
        print(f"report: {write(result, directory)}", file=sys.stderr)
    except OSError as error:
        raise Refused(f"what was found is not written: {error}", UNKNOWN) from None
