"""picture: a result drawn: speeds, boots, disks, and what depends on the size of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.bench.pictures import SETTINGS, save
from launcher.bench.vm.plan import OURS, PEER, TASK
from launcher.bench.vm.result import Row, VmResult

COLORS = {OURS: "#2f6fab", PEER: "#c2762b", TASK: "#6b7280"}
PANELS = ("speed", "boot", "disk", "snapshot", "restore", "migrate")
ACROSS = 3


def draw(result: VmResult, folder: Path) -> list[Path]:
    """Write it as SVG and PNG; the files, none when nothing was measured."""
    import matplotlib as mpl  # noqa: PLC0415

    rows = [row for row in result.results if row.summary and row.figure in PANELS]
    if not rows:
        return []
    with mpl.rc_context(SETTINGS):
        return save(_figure(rows), folder, "vm")


def _figure(rows: list[Row]) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415

    names = [name for name in PANELS if any(row.figure == name for row in rows)]
    down = -(-len(names) // ACROSS)
    figure = Figure(figsize=(9, 1.8 * down), layout="constrained")
    panels = figure.subplots(down, ACROSS, squeeze=False).flat
    for name, panel in zip(names, panels, strict=False):
        _bars(panel, [row for row in rows if row.figure == name][::-1])
    for panel in list(figure.axes)[len(names) :]:
        panel.set_visible(False)
    return figure


def _bars(panel: Any, rows: list[Row]) -> None:
    """The median, from the smallest sample to the largest."""
    names, values = [row.who for row in rows], [row.summary["p50"] for row in rows]
    apart = [
        [row.summary["p50"] - row.summary["min"] for row in rows],
        [row.summary["max"] - row.summary["p50"] for row in rows],
    ]
    colors = [COLORS[row.kind] for row in rows]
    panel.barh(names, values, color=colors, xerr=apart, error_kw={"lw": 0.8, "ecolor": "#333333"})
    better = "more" if rows[0].more_is_better else "less"
    panel.set_title(
        f"{rows[0].figure}, {rows[0].unit} ({better} is better)", fontsize=8, loc="left"
    )
    panel.set_xlim(left=0)
