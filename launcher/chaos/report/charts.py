"""charts: the stages of the repairs, and throughput against the interval between kills."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from launcher.chaos.evidence import Leg
from launcher.chaos.report import numbers, svg
from launcher.chaos.report.svg import color
from launcher.chaos.report.words import STAGE_NAMES, interval, short

PARTS = {"p50": ("low", ""), "p90": ("middle", "///"), "p99": ("high", "")}
BAR = 0.27  # of the distance of two stages
WIDE_RATIO = 30  # beyond it, the small bars of a linear axis cannot be read
MEGA = 1e6


def draw_stages(summaries: dict[str, dict[str, float]]) -> Figure:
    """Grouped bars of ms since the kill, for the stages that were reached."""
    figure = Figure(figsize=(svg.WIDTH_INCHES, 3.3))
    svg.margins(figure, left=0.75, right=0.1, top=0.4, bottom=0.45)
    axes = figure.add_subplot()
    for number, (part, (role, hatch)) in enumerate(PARTS.items()):
        heights = [found[part] for found in summaries.values()]
        places = [stage + (number - 1) * BAR for stage in range(len(heights))]
        bars = axes.bar(
            places, heights, BAR * 0.92, color=color(role), hatch=hatch,
            edgecolor=color("page"), linewidth=0, label=part,
        )  # fmt: skip
        axes.bar_label(bars, [short(value) for value in heights], padding=2, fontsize=7.5)
    axes.set_xticks(range(len(summaries)), [STAGE_NAMES[stage] for stage in summaries])
    axes.set_xlim(-0.55, len(summaries) - 0.45)
    axes.set_ylabel("ms since the kill")
    _scale(axes, [found[part] for found in summaries.values() for part in PARTS])
    axes.grid(visible=False, axis="x")
    axes.tick_params(axis="x", length=0)
    figure.legend(loc="upper left", ncols=len(PARTS), borderaxespad=0, bbox_to_anchor=(0.06, 0.99))
    return figure


def _scale(axes: Axes, values: Sequence[float]) -> None:
    positive = [value for value in values if value > 0]
    if positive and max(positive) / min(positive) > WIDE_RATIO:
        axes.set_yscale("log")
        axes.set_ylim(min(positive) / 2, max(positive) * 1.6)
        axes.yaxis.set_major_locator(LogLocator(10))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("ms since the kill (log scale)")
    else:
        axes.margins(y=0.12)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def draw_sweep(legs: Sequence[Leg]) -> Figure:
    """Every leg as a point, the medians as a line, and what would be without kills."""
    rows = numbers.sweep(legs)
    killing = sorted(row.every_s for row in rows if row.every_s)
    never = (killing[-1] if killing else 1.0) * 1.8  # beside the longest interval
    place = {every_s: every_s for every_s in killing} | {numbers.NEVER: never}
    figure = Figure(figsize=(8.4, 3.9))
    svg.margins(figure, left=0.8, right=0.15, top=0.45, bottom=0.5)
    axes = figure.add_subplot()
    _draw_medians(axes, rows, place)
    for right, marker, role, words in (
        (True, "o", "series-0", "one transfer"),
        (False, "X", "bad", "one transfer, checksum wrong"),
    ):
        these = [leg for leg in legs if leg.right is right]
        xs = [place[leg.every_s] for leg in these]
        ys = [numbers.bytes_per_s(leg) / MEGA for leg in these]
        if these:
            axes.plot(xs, ys, marker, ms=6 if right else 8, mew=0, alpha=0.75,
                      color=color(role), label=words, zorder=3)  # fmt: skip
    _frame_sweep(axes, place)
    figure.legend(loc="upper left", ncols=4, borderaxespad=0, bbox_to_anchor=(0.08, 0.99))
    return figure


def _draw_medians(axes: Axes, rows: Sequence[numbers.SweepRow], place: dict[float, float]) -> None:
    killed = sorted((row for row in rows if row.every_s), key=lambda row: row.every_s)
    xs = [place[row.every_s] for row in killed]
    ys = [row.median_bytes_s / MEGA for row in killed]
    axes.plot(xs, ys, "-", lw=1.8, color=color("series-0"), label="median")
    for row in rows:
        if row.every_s == numbers.NEVER:
            axes.axhline(
                row.median_bytes_s / MEGA, ls="--", lw=1.3, color=color("faint"),
                label="median without kills",
            )  # fmt: skip


def _frame_sweep(axes: Axes, place: dict[float, float]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(place.values()), [interval(every_s) for every_s in place])
    axes.set_xlim(min(place.values()) / 1.25, max(place.values()) * 1.25)
    axes.set_xlabel("seconds between two kills (log scale)")
    axes.set_ylabel("throughput, MB/s")
    axes.set_ylim(bottom=0)
    axes.margins(y=0.1)
    axes.grid(visible=False, axis="x")
