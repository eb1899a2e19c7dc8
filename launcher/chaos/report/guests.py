"""guests: the section about heartbeats of virtual machines, in one placement or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from launcher.chaos import console, sides
from launcher.chaos.console import Beat
from launcher.chaos.journal import Journal
from launcher.chaos.pulse import TICK_MS
from launcher.chaos.report import svg
from launcher.chaos.report.markup import Markup, join, table, tag
from launcher.chaos.report.svg import color, label
from launcher.chaos.report.theme import MARKS, SERIES
from launcher.chaos.sides import Side
from launcher.words import count

WIDTHS = (2, 1)  # of the run, and of what is beside it
HEIGHT_INCHES = 3.6
MS = 1e6
NOTE = (
    "Each point is a line that a guest has shown: the time since the line before, as it was seen "
    "from outside, and the longest time between two ticks of the guest's timer since then, by the "
    "guest's own clock. An upright line is a fault that landed."
)


def guests(run: Journal) -> Markup:
    """Nothing, when nobody looked at a heartbeat."""
    shown = [side for side in sides.every(run.evidence) if _heartbeats(side)]
    if not shown:
        return Markup()
    alt = "Time from one line of a heartbeat to the next, over time. " + " ".join(map(_said, shown))
    drawn = svg.picture("guests", alt, NOTE, lambda: draw(shown))
    found = sides.sides(run.evidence)
    beside = table(sides.columns(found), sides.rows(found), "Placements") if found else ""
    return join([drawn, tag("h3", "The same in another placement"), beside] if found else [drawn])


def _heartbeats(side: Side) -> dict[str, list[Beat]]:
    """By machine, of more than one line."""
    found = {machine: console.beats(lines) for machine, lines in side.lines.items()}
    return {machine: beats for machine, beats in found.items() if len(beats) > 1}


def _said(side: Side) -> str:
    gaps = [
        f"{machine} at most {max(b.at_ns - a.at_ns for a, b in pairwise(beats)) / MS:.0f} ms"
        for machine, beats in _heartbeats(side).items()
    ]
    return f"{_title(side)}: {', '.join(gaps)}."


def _title(side: Side) -> str:
    return f"{side.evidence.placement}, {count(side.landed, 'fault')}"


def draw(shown: Sequence[Side]) -> Figure:
    """The sides beside each other, on one scale of milliseconds."""
    figure = Figure(figsize=(svg.WIDTH_INCHES, HEIGHT_INCHES))
    svg.margins(figure, left=0.75, right=0.15, top=0.75, bottom=0.5)
    grid = figure.add_gridspec(1, len(shown), width_ratios=WIDTHS[: len(shown)], wspace=0.06)
    first = figure.add_subplot(grid[0])
    more = [figure.add_subplot(grid[at], sharey=first) for at in range(1, len(shown))]
    handles: dict[str, Line2D] = {}
    for axes, side in zip([first, *more], shown, strict=True):
        _draw_side(axes, side, handles)
        axes.tick_params(labelleft=axes is first)
    first.set_ylabel("ms")
    first.set_ylim(bottom=0)
    figure.legend(handles.values(), handles.keys(), loc="upper left", ncols=4, borderaxespad=0.2)
    return figure


def _draw_side(axes: Axes, side: Side, handles: dict[str, Line2D]) -> None:
    begun_ns = side.evidence.begun_ns
    for number, (machine, beats) in enumerate(_heartbeats(side).items()):
        xs = [(beat.at_ns - begun_ns) / 1e9 for beat in beats[1:]]
        seen = [(b.at_ns - a.at_ns) / MS for a, b in pairwise(beats)]
        ticks = [TICK_MS + beat.late_ms for beat in beats[1:]]
        for what, ys, at in (("lines", seen, 2 * number), ("ticks", ticks, 2 * number + 1)):
            role, mark = SERIES[at % len(SERIES)], MARKS[at % len(MARKS)]
            (drawn,) = axes.plot(xs, ys, mark, ms=2.6, mew=0, color=color(role), zorder=2)
            handles.setdefault(f"{label(machine)}: between {what}", drawn)
    for each in side.evidence.injections:
        if each.landed_ns:
            at_s = (each.landed_ns - begun_ns) / 1e9
            rule = axes.axvline(at_s, color=color("bad"), lw=0.7, alpha=0.4, zorder=1)
            handles.setdefault("fault", rule)
    axes.set_title(_title(side), loc="left", pad=4)
    axes.set_xlabel("seconds since the faults began")
