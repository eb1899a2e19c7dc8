"""lanes: which spans of one task can share a line of a picture. Pure.

Spans of one lane follow each other, or one lies inside the other: viewers of traces show nothing
else rightly. Only a call that a server makes while it serves a request lies inside that request.
The kernel does not know for which of several requests a server makes a call; servers take them
in order, so it goes to the one that was taken first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """From its begin to its end, both included."""

    begin_ns: int
    end_ns: int
    serving: bool  # a request in hand: calls of one's own may lie inside


@dataclass
class _Lane:
    number: int
    last: Span
    busy_ns: int  # the end of the last span that lies inside `last`


def allot(spans: Sequence[Span]) -> list[int]:
    """The lane of each span, from 0; as few lanes as come of taking the first that is free."""
    lanes: list[_Lane] = []
    chosen = [0] * len(spans)
    for at in sorted(range(len(spans)), key=lambda at: (spans[at].begin_ns, -spans[at].end_ns)):
        chosen[at] = _place(lanes, spans[at]).number
    return chosen


def _place(lanes: list[_Lane], span: Span) -> _Lane:
    around = None if span.serving else _around(lanes, span)
    if around is not None and around.busy_ns < span.begin_ns:
        around.busy_ns = span.end_ns
        return around
    for lane in lanes:
        if max(lane.last.end_ns, lane.busy_ns) < span.begin_ns:
            lane.last, lane.busy_ns = span, -1
            return lane
    lanes.append(_Lane(len(lanes), span, -1))
    return lanes[-1]


def _around(lanes: list[_Lane], span: Span) -> _Lane | None:
    """The lane whose request was the first in hand of those that contain the span."""
    found = [
        lane
        for lane in lanes
        if lane.last.serving
        and lane.last.begin_ns < span.begin_ns
        and span.end_ns <= lane.last.end_ns
    ]
    return min(found, key=lambda lane: lane.last.begin_ns, default=None)
