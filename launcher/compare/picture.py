"""picture: figures by case as bars beside mono's, once for the page and once as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Drawing

from launcher.chaos.report import svg
from launcher.chaos.report.markup import Markup
from launcher.chaos.report.svg import SETTINGS
from launcher.chaos.report.theme import SERIES, SHADES, STAND_INS
from launcher.compare.cases import MONO, Case
from launcher.compare.figures import Figure, Measure
from launcher.compare.result import Result

BAR = 0.8  # of the distance of two groups, for all bars of one
DPI = 150
CAPTION = (
    "Medians over the rounds, with the 95 % interval of the ratio to mono in the same round. "
    "Mono is 1."
)

Color = Callable[[str], str]  # of a role of the theme


def draw(result: Result, what: str, measures: Sequence[Measure], beside: Path) -> Markup:
    """The picture for the page; and the same, in the colours of its light scheme, as files. `what`
    the measures are of is said beside the axis: "throughput"."""
    cases = [case for case in result.cases() if case != MONO]
    with mpl.rc_context(_in_light()):
        figure = _bars(result, what, measures, cases, _light)
        figure.savefig(beside.with_suffix(".svg"))
        figure.savefig(beside.with_suffix(".png"), dpi=DPI)
    said = [f"{measure.title}: {_words(result, measure, cases)}" for measure in measures]
    alt = f"{what[:1].upper()}{what[1:]} over mono's. {'; '.join(said)}."

    def drawn() -> Drawing:
        return _bars(result, what, measures, cases, svg.color)

    return svg.picture(beside.name, alt, CAPTION, drawn)


def _light(role: str) -> str:
    return SHADES[role].light


def _in_light() -> Any:  # as SETTINGS
    roles = {stand_in: role for role, stand_in in STAND_INS.items()}
    drawn = {key: _light(roles[value]) for key, value in SETTINGS.items() if value in roles}
    return {**SETTINGS, **drawn, "figure.facecolor": _light("page")}


def _bars(
    result: Result, what: str, measures: Sequence[Measure], cases: list[Case], color: Color
) -> Drawing:
    figure = Drawing(figsize=(svg.WIDTH_INCHES, 3.6))
    svg.margins(figure, left=0.75, right=0.1, top=0.45, bottom=0.4)
    axes = figure.add_subplot()
    width = BAR / max(1, len(cases))
    for number, case in enumerate(cases):
        found = [result.figure(measure, case) for measure in measures]
        heights = [each.ratio or 0.0 if each is not None else 0.0 for each in found]
        places = [at - BAR / 2 + (number + 0.5) * width for at in range(len(measures))]
        bars = axes.bar(
            places, heights, width * 0.9, yerr=_errors(found), color=color(SERIES[number]),
            ecolor=color("ink"), capsize=2, label=case.name,
        )  # fmt: skip
        axes.bar_label(bars, [f"{height:.2f}" for height in heights], padding=2, fontsize=7.5)
    axes.axhline(1, ls="--", lw=1.2, color=color("ink"), label=MONO.name)
    axes.set_xticks(range(len(measures)), [_label(measure) for measure in measures])
    axes.set_ylabel(f"of mono's {what}")
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.grid(visible=False, axis="x")
    axes.tick_params(axis="x", length=0)
    figure.legend(
        loc="upper left", ncols=len(cases) + 1, borderaxespad=0, bbox_to_anchor=(0.06, 0.99)
    )
    return figure


def _label(measure: Measure) -> str:
    """Of a virtual machine, its name above what it is of."""
    return f"{measure.title}, {measure.unit}".replace(": ", "\n")


def _errors(found: Sequence[Figure | None]) -> list[list[float]]:
    """How far each interval reaches below and above its ratio."""
    low, high = [], []
    for each in found:
        ratio = each.ratio if each is not None else None
        interval = each.ratio_ci95 if each is not None else None
        low.append(max(0.0, ratio - interval[0]) if ratio and interval else 0.0)
        high.append(max(0.0, interval[1] - ratio) if ratio and interval else 0.0)
    return [low, high]


def _words(result: Result, measure: Measure, cases: list[Case]) -> str:
    found = [(case, result.figure(measure, case)) for case in cases]
    return ", ".join(f"{c.name} {f.ratio:.2f}" for c, f in found if f is not None and f.ratio)
