"""report: a comparison as one HTML page, with its pictures beside it as SVG and PNG.

Pictures need matplotlib, which only the extra `report` installs; `launcher.chaos.report` says
early that it is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from launcher.chaos.report.markup import Markup, table, tag
from launcher.chaos.report.theme import css
from launcher.compare.cases import MONO, Case
from launcher.compare.result import REFERENCE, SCHEMA, Result
from launcher.compare.tables import tables

PAGE, PICTURE, GUESTS = "report.html", "throughput", "guests"
THROUGHPUTS = ("files_per_s", "write_mb_s", "read_mb_s", "metadata_per_s")
SIGNS = {True: "held", False: "broken"}
PAPER = (
    "Härtig, Hohmuth, Liedtke, Schönberg and Wolter (The performance of µ-kernel-based systems, "
    "SOSP'97) ran the same programs on native Linux and on Linux as a server of a microkernel: on "
    "Mach, at user level (MkLinux), about a third of the throughput was lost, on L4 about 5 %. "
    "There one large server stood against the same code in a kernel; here several small servers "
    "stand against the same servers in one process, a kernel of Python passes their messages, and "
    "the machine is a process in either case. So it is the order of the ways that can be compared, "
    "and what the difference is made of, and not the per cent."
)


def write(result: Result, directory: Path) -> Path:
    """Make `report.html`, `throughput.svg` and `throughput.png` in a directory; the page. Where
    there are virtual machines, `guests.svg` and `guests.png` too."""
    directory.mkdir(parents=True, exist_ok=True)
    picture = import_module("launcher.compare.picture")
    work = [measure for measure in result.measures() if measure.name in THROUGHPUTS]
    drawn: Markup = picture.draw(result, "throughput", work, directory / PICTURE)
    guests: Markup | None = None
    if result.cast.vms:
        shown = result.shown_of_guests()
        guests = picture.draw(result, "exits, and of its gaps", shown, directory / GUESTS)
    path = directory / PAGE
    path.write_text(page(result, drawn, guests), encoding="utf-8", errors="replace")
    return path


def page(result: Result, drawn: Markup, guests: Markup | None = None) -> str:
    title = f"The price of isolation: {result.file.manifest.system}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(css())),
    )
    header = tag("header", tag("h1", title), _origin(result), _verdict(result))
    sections = [
        tag("section", tag("h2", "Throughput beside mono"), drawn),
        *([tag("section", tag("h2", "Virtual machines beside mono"), guests)] if guests else []),
        tag("section", tag("h2", "The old question"), tag("p", PAPER), tag("p", own(result))),
        *(_section(about, titles, rows) for about, titles, rows in tables(result)),
    ]
    footer = tag("footer", f"`ukernel compare --json` has every number ({SCHEMA}).")
    body = tag("body", header, tag("main", *sections), footer)
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _origin(result: Result) -> Markup:
    facts = result.host
    host = f"{facts.get('cpu', 'unknown host')}, {facts.get('cores', '?')} cores"
    place = f"{result.file.path} · {result.amounts.rounds} rounds · {host} · {REFERENCE}."
    return tag("div", place, class_="faint")


def _verdict(result: Result) -> Markup:
    said = [
        tag("li", tag("span", SIGNS[c.held].upper(), class_=SIGNS[c.held]), f" {c.claim}: {c.why}")
        for c in result.claims()
    ]
    return tag("ul", *said, *(tag("li", note) for note in result.notes()))


def _section(about: str, titles: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    cells = [[_cell(value) for value in row] for row in rows]
    title = about[:1].upper() + about[1:]
    return tag("section", tag("h2", title), table(list(titles), cells, title))


def _cell(value: object) -> str | int:
    if value is None:
        return "-"
    return value if isinstance(value, int) else str(value).strip()


def own(result: Result) -> str:
    """The reader's own figures, to stand beside those of the paper."""
    told = [_lost(result, case) for case in result.cases() if case != MONO]
    return f"In this comparison {'; '.join(filter(None, told)) or 'nothing can be said'}."


def _lost(result: Result, case: Case) -> str:
    """What a case loses of each of mono's throughputs."""
    measures = {measure.name: measure for measure in result.measures()}
    parts = []
    for name in THROUGHPUTS:
        figure = result.figure(measures[name], case)
        if figure is not None and figure.ratio is not None:
            how = "loses" if figure.ratio <= 1 else "gains"
            parts.append(f"{how} {abs(1 - figure.ratio):.0%} of {measures[name].title}")
    return f"{case.name} {', '.join(parts)}" if parts else ""
