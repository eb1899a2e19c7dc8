"""chaos_run: `ukernel chaos run`: an experiment from boot to verdict, and what it left behind.

Exit status: 0 every checker held, 1 one is broken, 2 bad input, 3 nothing has been shown.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.client import Refused
from launcher.commands.common import JsonFile, finish, show_table

if TYPE_CHECKING:
    from launcher.chaos.evidence import Result, Verdict
    from launcher.chaos.runner import Run

STATUS = {"held": 0, "broken": 1, "unknown": 3}
QUIET = ("ready", "serving")  # of what happens: not told


def run(
    experiment: Annotated[
        Path, typer.Argument(help="An experiment file (YAML).", show_default=False)
    ],
    seed: Annotated[int | None, typer.Option(help="Instead of the file's.")] = None,
    json_file: JsonFile = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a report, one HTML file, there.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell what happens.")] = False,
) -> None:
    """Boot a system, break it as the experiment says, and check what it promises."""
    from launcher.chaos import journal
    from launcher.chaos.experiment import load
    from launcher.chaos.runner import Run
    from launcher.foreground import StopRequested, StopSignals

    _check_seed(seed)
    file = load(experiment)
    _check_writable(json_file)
    if report is not None:
        _check_drawable(report)
    with StopSignals() as signals, _Progress(file.experiment.title) as progress:
        doing = Run(
            file, seed, progress.tell if verbose else _nothing, progress.show, signals.armed
        )
        try:
            verdicts = doing.run()
        except StopRequested:
            print(f"{experiment}: interrupted: nothing has been shown", file=sys.stderr)
            finish(STATUS["unknown"])
    evidence = doing.evidence
    document = journal.document(
        file.experiment.title, file.text, journal.here(), evidence, verdicts
    )
    _show(doing, verdicts, journal.overall(verdicts))
    try:
        if json_file is not None:
            json_file.write_text(json.dumps(document) + "\n")
        if report is not None:
            _write(document, report)
    except OSError as error:
        raise Refused(
            f"what the run has shown is not written: {error}", STATUS["unknown"]
        ) from None
    finish(STATUS[journal.overall(verdicts).value])


def _nothing(kind: str, who: str, text: str) -> None:
    """Nobody wants to know."""


class _Progress:
    """A bar on a terminal, and lines of what happens."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(console=self._console, transient=True)
        self._task = self._bar.add_task(title, total=1.0)

    def __enter__(self) -> _Progress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def show(self, part: float) -> None:
        self._bar.update(self._task, completed=part)

    def tell(self, kind: str, who: str, text: str) -> None:
        if kind not in QUIET:
            self._console.print(f"  {who} {kind}: {text}", markup=False)


def _show(doing: Run, verdicts: list[Verdict], result: Result) -> None:
    """A line for each verdict, and one for the whole."""
    from launcher.chaos import sides
    from launcher.chaos.journal import figures

    rows = [[v.checker, v.result.value.upper(), v.why] for v in verdicts]
    show_table(["CHECKER", "RESULT", "WHY"], rows)
    numbers = figures(doing.evidence)
    landed, planned = numbers["injections"]["landed"], numbers["injections"]["planned"]
    outcomes = ", ".join(f"{count} {name}" for name, count in numbers["outcomes"].items())
    print(f"{landed} of {planned} faults landed; operations: {outcomes}")
    for stage, times in numbers["recovery_ms"].items():
        print(f"  {stage}: p50 {times['p50']:.1f} ms, p99 {times['p99']:.1f}, n {times['n']}")
    if found := sides.sides(doing.evidence):
        show_table(sides.columns(found), sides.rows(found))
    print(f"{doing.experiment.title} (seed {doing.seed}): {result.value.upper()}")


def _check_seed(seed: int | None) -> None:
    from ukernel.abi.manifest import MAX_SEED

    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise Refused(f"--seed {seed}: expected a number from 0 to {MAX_SEED}", 2)


def _check_writable(path: Path | None) -> None:
    """Better before a run than after it. What was not there is not there afterwards either."""
    if path is None:
        return
    known = path.exists()
    try:
        path.open("ab").close()
        if not known:
            path.unlink()
    except OSError as error:
        raise Refused(
            f"--json {path}: {error.strerror}; name a file that can be written", 2
        ) from None


def _check_drawable(directory: Path) -> None:
    from launcher.chaos import report

    try:
        report.check_drawable()
        directory.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=directory).close()
    except report.ReportError as error:
        raise Refused(str(error), 2) from None
    except OSError as error:
        text = f"--report {directory}: {error.strerror}; name a directory that can be written"
        raise Refused(text, 2) from None


def _write(document: dict[str, Any], directory: Path) -> None:
    from launcher.chaos import report

    print(f"report: {report.write(document, directory)}")
