"""report: a journal as one HTML page that needs no network, no JavaScript and no other file.

The pictures are drawn by matplotlib, which only the extra `report` installs and only `write`
imports: `check_drawable` says early that it is missing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["ReportError", "check_drawable", "write"]


class ReportError(Exception):
    """There can be no report; the text says what to do."""


def check_drawable() -> None:
    """Raises ReportError without matplotlib: better before a run than after it."""
    if find_spec("matplotlib") is None:
        raise ReportError("a report needs matplotlib: run `pip install 'ukernel[report]'`")


def write(document: dict[str, Any], directory: Path) -> Path:
    """Make `directory` and in it `index.html`, which is returned.

    `document` is a journal. Raises ReportError, and BadJournal for what is none.
    """
    check_drawable()
    text: str = import_module("launcher.chaos.report.page").page(document)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "index.html"
    path.write_bytes(text.encode(errors="replace"))  # half a surrogate pair is no text
    return path
