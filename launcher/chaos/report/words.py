"""words: how numbers and results are written in a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.chaos.evidence import FAIL, INFO, OK, OPEN, Result
from launcher.chaos.report.markup import Markup, tag

LONGEST_FIGURES = 400  # characters
ABSENT = "-"  # nothing was measured
STAGE_NAMES = {
    "detected": "detected",
    "dead": "dead",
    "spawned": "spawned",
    "hello": "HELLO",
    "ready": "READY",
    "first_good_reply": "first good reply",
}
OUTCOME_NAMES = {
    OK: "answered",
    FAIL: "certainly not done",
    INFO: "done or not: unknown",
    OPEN: "no outcome",
}
SIGNS = {Result.HELD: "✓", Result.BROKEN: "✗", Result.UNKNOWN: "?"}


def short(value: float) -> str:
    """Three digits that count."""
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if abs(value) < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def ms(found: Mapping[str, float] | None, part: str) -> str:
    return short(found[part]) if found else ABSENT


def moment(date: str) -> str:
    """An ISO 8601 date for people."""
    return date.replace("T", " ").replace("+00:00", " UTC")


def seconds(at_ns: int, begun_ns: int) -> str:
    """Since the run began; nothing for what was never reached."""
    return f"{(at_ns - begun_ns) / 1e9:.3f}" if at_ns else ABSENT


def interval(every_s: float) -> str:
    return f"{every_s:g}" if every_s else "never"


def percent(part: float | None, digits: int = 2) -> str:
    """Never rounded up to 100 %: that is only said of everything."""
    if part is None:
        return ABSENT
    text = f"{100 * part:.{digits}f}"
    if part < 1 and float(text) == 100:
        text = f"{100 - 10**-digits:.{digits}f}"
    return f"{'100' if part == 1 else text} %"


def mib(size_bytes: int | None) -> str:
    return ABSENT if size_bytes is None else f"{size_bytes / 2**20:.1f}"


def change(before: float | None, after: float | None, digits: int = 0) -> str:
    if before is None or after is None:
        return ABSENT
    text = f"{after - before:+.{digits}f}"
    return text if float(text) else "0"


def badge(result: Result) -> Markup:
    """A result in a sign, a word and a colour."""
    return tag("span", f"{SIGNS[result]} {result.value.upper()}", class_=result.value)


def figures(found: Mapping[str, Any]) -> str:
    """What a checker counted, in one line."""
    text = ", ".join(f"{name} {_value(value)}" for name, value in found.items())
    return text if len(text) <= LONGEST_FIGURES else f"{text[:LONGEST_FIGURES]} ..."


def _value(value: Any) -> str:
    match value:
        case None:
            return ABSENT
        case float():
            return short(value)
        case bool() | str():
            return str(value)
        case int():
            return f"{value:,}"
        case dict():
            return f"({figures(value)})"
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
    return str(value)
