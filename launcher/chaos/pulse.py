"""pulse: how a guest ran, by its own stamps: its longest gaps, and what it missed. Pure.

The guest's clock is a clock of its host: it stands still when nobody runs the guest, and no guest
can see that. So it is compared with the host's clock as well: each line is seen some time after it
was said, and that time may jump about, but its least value grows only when the guest stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from launcher.chaos.console import Beat
from launcher.chaos.evidence import Evidence

TICK_MS, LINE_MS = 10.0, 100.0  # of the heartbeat
STEADY = 10  # lines of which one at least is seen at once


class Pulse(NamedTuple):
    """A stretch of a heartbeat, from its first line to its last."""

    lines: int
    host_ms: float
    guest_ms: float  # by the guest's clock
    tick_gap_ms: float  # the longest time from one tick to the next, by the guest's clock, as is
    line_gap_ms: float  # that from one line to the next
    seen_gap_ms: float  # the longest time from one line to the next as they were seen
    behind_ms: float  # how much less time it was for the guest than for its host
    missing_lines: int
    missing_ticks: int
    back: int  # lines that say less than was said before: the guest went back
    repeated: int  # lines more than the ticks explain: what was said is said again


def measured(beats: Sequence[Beat]) -> Pulse | None:
    """Of at least two lines."""
    if len(beats) < 2:
        return None
    first, last, pairs = beats[0], beats[-1], list(pairwise(beats))
    guest_ms, ticks = last.guest_ms - first.guest_ms, last.ticks - first.ticks
    lag_ms = [beat.at_ns / 1e6 - beat.guest_ms for beat in beats]
    return Pulse(
        lines=len(beats),
        host_ms=(last.at_ns - first.at_ns) / 1e6,
        guest_ms=guest_ms,
        tick_gap_ms=TICK_MS + max(beat.late_ms for beat in beats[1:]),
        line_gap_ms=max(b.guest_ms - a.guest_ms for a, b in pairs),
        seen_gap_ms=max(b.at_ns - a.at_ns for a, b in pairs) / 1e6,
        behind_ms=min(lag_ms[-STEADY:]) - min(lag_ms[:STEADY]),
        missing_lines=max(0, int(guest_ms / LINE_MS) - len(pairs)),
        missing_ticks=max(0, int(guest_ms / TICK_MS) - ticks),
        back=sum(beat.ticks < most for beat, most in zip(beats, _most(beats), strict=True)),
        repeated=max(0, len(pairs) - round((max(_most(beats)) - first.ticks) * TICK_MS / LINE_MS)),
    )


def _most(beats: Sequence[Beat]) -> list[int]:
    """The most ticks up to each line."""
    return list(accumulate((beat.ticks for beat in beats), max))


def disturbed(evidence: Evidence, beats: Sequence[Beat]) -> list[Beat]:
    """The line before the first fault, and all that came after it."""
    at = next((n for n, beat in enumerate(beats) if beat.at_ns >= evidence.begun_ns), len(beats))
    return list(beats[max(0, at - 1) :]) if at < len(beats) else []


def calm(evidence: Evidence, beats: Sequence[Beat]) -> list[Beat]:
    """As long a time before the first fault as `disturbed` is, or what there is of it."""
    if not (evidence.calm_ns and beats):
        return []
    as_long_ns = evidence.begun_ns - (beats[-1].at_ns - evidence.begun_ns)
    since_ns = max(evidence.calm_ns, as_long_ns)
    return [beat for beat in beats if since_ns <= beat.at_ns < evidence.begun_ns]
