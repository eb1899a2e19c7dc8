"""svg: a matplotlib figure as an inline picture: words stay text, colours become the page's.

No state of matplotlib outlives a picture, and no window system is asked for.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launcher.chaos.report.markup import Markup, tag
from launcher.chaos.report.theme import STAND_INS

WIDTH_INCHES = 10.5  # of a picture as wide as the page
LABEL_CHARS = 24
SETTINGS: Any = {  # some versions of matplotlib type its keys
    "svg.fonttype": "none",
    "svg.hashsalt": "ukernel",  # the same picture has the same bytes
    "text.parse_math": False,  # a name with dollars is a name
    "text.usetex": False,
    "path.simplify": False,  # it would drop short outages
    "font.family": "DejaVu Sans",  # comes with matplotlib, and is wide: others fit in its place
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.linewidth": 0.6,
    "axes.edgecolor": STAND_INS["line"],
    "grid.color": STAND_INS["line"],
    "text.color": STAND_INS["ink"],
    "axes.labelcolor": STAND_INS["ink"],
    "xtick.color": STAND_INS["line"],
    "ytick.color": STAND_INS["line"],
    "xtick.labelcolor": STAND_INS["ink"],
    "ytick.labelcolor": STAND_INS["ink"],
}
REDUCTIONS = [
    (re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"(\d\.\d\d)\d+"), r"\1"),  # a hundredth of a point is fine enough
    (re.compile(r"\n\s*"), "\n"),
]
MARKERS = re.compile(r"<g( [^>]*)?>\s*((?:<use [^>]*/>\s*)+)</g>")
STYLE = re.compile(r' style="([^"]*)"')
NAMES = re.compile(r'(\bid="|url\(#|href="#)')
SIZE = re.compile(r'<svg [^>]*viewBox="([^"]*)"[^>]*>')


def picture(name: str, alt: str, caption: str, draw: Callable[[], Figure]) -> Markup:
    """A `<figure>`; `name` is its own in the page, `alt` says in words what is to be seen."""
    with mpl.rc_context(SETTINGS):
        figure = draw()
        written = io.StringIO()
        figure.savefig(written, format="svg")
    share = min(100, round(100 * figure.get_figwidth() / WIDTH_INCHES))
    drawn = tag("div", _inline(written.getvalue(), name, alt, share), class_="wide")
    return tag("figure", drawn, tag("figcaption", caption))


def label(text: str) -> str:
    """A name of the system for a picture: short, and in characters that its font has."""
    shown = text.encode("ascii", "backslashreplace").decode()
    shown = "".join(char if char.isprintable() else "?" for char in shown)
    return shown if len(shown) <= LABEL_CHARS else f"{shown[: LABEL_CHARS - 2]}.."


def color(role: str) -> str:
    """The colour of a role of the theme."""
    return STAND_INS[role]


def margins(figure: Figure, left: float, right: float, top: float, bottom: float) -> None:
    """Room around the axes in inches."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height
    )


def bare(axes: Axes) -> None:
    """No frame and no tick marks, for axes that only hold lanes."""
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _inline(text: str, name: str, alt: str, share: int) -> Markup:
    for pattern, instead in REDUCTIONS:
        text = pattern.sub(instead, text)
    text = MARKERS.sub(_lift_style, text)
    text = NAMES.sub(rf"\g<1>{name}-", text).replace("xlink:href", "href")
    for role, stand_in in STAND_INS.items():
        text = text.replace(stand_in, f"var(--{role})")
    shape = SIZE.search(text)
    assert shape is not None
    inside = text[shape.end() : text.rindex("</svg>")]
    style = f"max-width:{share}%" if share < 100 else ""
    return tag("svg", Markup(inside), viewBox=shape[1], role="img", aria_label=alt, style=style)


def _lift_style(found: re.Match[str]) -> str:
    """Markers that all look the same say so once."""
    styles = set(STYLE.findall(found[2]))
    if len(styles) != 1:
        return found[0]
    return f'<g{found[1] or ""} style="{styles.pop()}">{STYLE.sub("", found[2])}</g>'
