"""ranges: which bytes of a file a Range field asks for (RFC 9110 §14). Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

SPEC = re.compile(r"([0-9]{0,19})-([0-9]{0,19})", re.ASCII)


class Span(NamedTuple):
    """Bytes `start` up to, not including, `end`."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """None of the bytes that were asked for exists."""


def parse_range(field: str, size: int) -> Span | None:
    """The one span of a file of `size` bytes that the field asks for.

    None: the field is to be ignored and the whole file sent, because it is no valid set of byte
    ranges, or because it asks for several, which a server need not send apart (§14.2). Raises
    Unsatisfiable when no byte of any of them exists (§14.1.2).
    """
    unit, equals, specs = field.partition("=")
    if unit.strip().lower() != "bytes" or not equals:
        return None
    items = [item.strip(" \t") for item in specs.split(",")]
    spans = [_span(item, size) for item in items if item]  # empty items of a list mean nothing
    if not spans or any(span is None for span in spans):
        return None
    if not size and any(item[:1] == "-" and int(item[1:]) for item in items if item):
        return None  # the last bytes of nothing are nothing, which Content-Range cannot say
    found = [span for span in spans if span is not None and span.start < span.end]
    if not found:
        raise Unsatisfiable
    return found[0] if len(spans) == 1 else None


def _span(spec: str, size: int) -> Span | None:
    """What `first-last`, `first-` or `-count` is of `size` bytes, if any; None: it is invalid."""
    match = SPEC.fullmatch(spec)
    if match is None or match[0] == "-":
        return None
    first, last = match.groups()
    if not first:
        return Span(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return Span(int(first), min(size, int(last) + 1) if last else size)
