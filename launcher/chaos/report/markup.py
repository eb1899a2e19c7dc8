"""markup: HTML that is safe by its type: what is not Markup is text, and is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import starmap


class Markup(str):
    """HTML that goes into the page as it is."""

    __slots__ = ()


Cell = str | int
VOID = ("meta",)


def tag(name: str, /, *children: str, **attributes: str) -> Markup:
    """An element. `class_` is `class`, `aria_label` is `aria-label`."""
    written = "".join(starmap(_attribute, attributes.items()))
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Markup:
    """Parts one after the other; text among them is escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    name: str,
    groups: Sequence[tuple[str, int]] = (),
) -> Markup:
    """Rows under their titles; a column whose cells all look like numbers stands to the right.

    The first cell of a row is its heading. `name` is for those who hear the page. `groups` are
    titles above the titles, each with how many columns it spans.
    """
    sides = ["number" if all(map(_is_number, cells)) else "text" for cells in _columns(rows)]
    sides = sides or ["text"] * len(columns)
    titles = [
        tag("th", title, class_=side, scope="col")
        for title, side in zip(columns, sides, strict=True)
    ]
    body = [tag("tr", *_cells(row, sides)) for row in rows]
    above = [
        tag("th", title, class_="group", colspan=f"{span}", scope="colgroup") if title
        else tag("td", colspan=f"{span}")
        for title, span in groups
    ]  # fmt: skip
    heads = [tag("tr", *cells) for cells in (above, titles) if cells]
    inside = join([tag("thead", *heads), tag("tbody", *body)])
    whole = tag("table", inside, aria_label=name)
    return tag("div", whole, class_="wide", tabindex="0", role="region", aria_label=name)


def fold(title: str, *inside: str) -> Markup:
    """Something long, closed until it is asked for."""
    return tag("details", tag("summary", title), *inside)


def _cells(row: Sequence[Cell], sides: list[str]) -> list[Markup]:
    first, *rest = (cell if isinstance(cell, str) else f"{cell:,}" for cell in row)
    heading = tag("th", first, class_=sides[0], scope="row")
    return [heading, *(tag("td", cell, class_=s) for cell, s in zip(rest, sides[1:], strict=True))]


def _columns(rows: Sequence[Sequence[Cell]]) -> list[tuple[Cell, ...]]:
    return list(zip(*rows, strict=True))


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, int) or (cell[:1] in "+-0123456789" and cell != "")


def _attribute(name: str, value: str) -> str:
    return f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
