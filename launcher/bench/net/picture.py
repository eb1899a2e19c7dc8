"""picture: a result drawn: how quick the downloads were, and the round trips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.bench.net.plan import FLOOR, LINUX, OURS, PEER
from launcher.bench.net.result import TRIPS, NetResult, Row
from launcher.bench.pictures import SETTINGS, save

COLORS = {OURS: "#2f6fab", PEER: "#c2762b", LINUX: "#6b7280", FLOOR: "#b6bcc6"}


def draw(result: NetResult, folder: Path) -> list[Path]:
    """Write it as SVG and PNG; the files, none when nothing was measured."""
    import matplotlib as mpl  # noqa: PLC0415

    rows = [row for row in result.results if row.throughput][::-1]
    if not rows:
        return []
    with mpl.rc_context(SETTINGS):
        return save(_figure(rows), folder, "net")


def _figure(rows: list[Row]) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 0.4 * len(rows) + 1.2), layout="constrained")
    panels = figure.subplots(1, 1 + len(TRIPS), sharey=True)
    rates = [row.throughput["median"] for row in rows]
    _bars(panels[0], rows, rates, "download, MiB/s (more is better)")
    for panel, trip in zip(panels[1:], TRIPS, strict=True):
        found = [row.rtt[trip]["p50"] / 1e3 if trip in row.rtt else 0.0 for row in rows]
        _bars(panel, rows, found, f"{trip}, p50, us (less is better)")
    return figure


def _bars(panel: Any, rows: list[Row], values: list[float], title: str) -> None:
    """On a logarithmic scale: a stack in C and one in Python are to be seen together."""
    names, colors = [row.peer for row in rows], [COLORS[row.kind] for row in rows]
    panel.barh(names, values, color=colors)
    panel.set_xscale("log")
    panel.set_xlim(right=4 * max(values, default=1.0) or 1.0)  # room for the figures
    panel.set_title(title, fontsize=8, loc="left")
    for name, value in zip(names, values, strict=True):
        if value:
            text = f" {value:,.0f}" if value >= 100 else f" {value:.3g}"
            panel.annotate(text, (value, name), va="center", size=7)
