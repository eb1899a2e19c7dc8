"""lanes: what was done to the servers and what became of them, each in a lane over time."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import NamedTuple

from matplotlib.axes import Axes

from launcher.chaos.evidence import Evidence, Injection, Recovery
from launcher.chaos.report import numbers, svg
from launcher.chaos.report.svg import color, label

LANE_INCHES = 0.24
BAR_POINTS = 8.5  # height of a life
HEALED_ALPHA = 0.35  # of the bar of a fault that was taken back
GAP = math.nan  # lifts the pen


class Row(NamedTuple):
    """A part of the picture: how high it is, the names at its left, and what fills it."""

    inches: float
    names: list[str]
    fill: Callable[[Axes], None]


def faults(evidence: Evidence, when: numbers.Ends) -> Row:
    """A lane for each fault and target: where it landed, and until when it lasted."""
    lanes: dict[tuple[str, str], list[Injection]] = defaultdict(list)
    for injection in evidence.injections:
        lanes[injection.fault, injection.target].append(injection)
    names = [_fault_name(f"{fault} {target}", own) for (fault, target), own in lanes.items()]

    def fill(axes: Axes) -> None:
        for lane, own in enumerate(lanes.values()):
            _draw_fault(axes, lane, own, when)
        _name_lanes(axes, "injections", names)

    return Row(_inches(names), names, fill)


def _fault_name(name: str, own: list[Injection]) -> str:
    landed = sum(injection.landed_ns > 0 for injection in own)
    planned = f" of {len(own)}" if landed < len(own) else ""
    return f"{label(name)}, {landed}{planned}"


def _draw_fault(axes: Axes, lane: int, own: list[Injection], when: numbers.Ends) -> None:
    healed = [each for each in own if each.landed_ns and each.healed_ns]
    spans = [(when.second(each.landed_ns), when.second(each.healed_ns)) for each in healed]
    _bars(axes, lane, spans, "bad", HEALED_ALPHA)
    xs = [when.second(each.landed_ns) for each in own if each.landed_ns]
    axes.plot(xs, [lane] * len(xs), "v", ms=5, mew=0, color=color("bad"), zorder=3)
    xs = [when.second(each.planned_ns) for each in own if not each.landed_ns]
    axes.plot(xs, [lane] * len(xs), "x", ms=5.5, mew=1.3, color=color("doubt"), zorder=3)


def lives(evidence: Evidence, when: numbers.Ends) -> Row:
    """A lane for each server: whoever died, then whoever was spoken of."""
    deaths = Counter(recovery.server for recovery in evidence.recoveries)
    spoken_of = [*deaths, *evidence.failed]
    for blast in (evidence.predicted, evidence.observed):
        spoken_of += [name for part in blast or () for name in part]
    servers = list(dict.fromkeys(spoken_of))
    died = [f", {deaths[server]} died" if deaths[server] else "" for server in servers]
    names = [f"{label(server)}{count}" for server, count in zip(servers, died, strict=True)]

    def fill(axes: Axes) -> None:
        for lane, server in enumerate(servers):
            own = [each for each in numbers.dated(evidence.recoveries) if each.server == server]
            _draw_lives(axes, lane, own, server in evidence.failed, when)
        _name_lanes(axes, "lives of the servers, and deaths", names)

    return Row(_inches(names), names, fill)


def _draw_lives(
    axes: Axes, lane: int, own: list[Recovery], failed: bool, when: numbers.Ends
) -> None:
    """Lives alternate in shade, so a restart shows however short its outage was."""
    down = sorted(numbers.outage(recovery, when.ended_ns) for recovery in own)
    if failed and down:
        down[-1] = (down[-1][0], when.ended_ns)
    starts = [when.begun_ns, *(ended_ns for _, ended_ns in down)]
    stops = [*(begun_ns for begun_ns, _ in down), when.ended_ns]
    spans = [(when.second(a), when.second(b)) for a, b in zip(starts, stops, strict=True) if a < b]
    _bars(axes, lane, spans[::2], "life")
    _bars(axes, lane, spans[1::2], "other-life")
    _bars(axes, lane, [(when.second(a), when.second(b)) for a, b in down], "bad")
    xs = [when.second(begun_ns) for begun_ns, _ in down]
    axes.plot(xs, [lane] * len(xs), "|", ms=BAR_POINTS + 3, mew=1, color=color("bad"), zorder=3)


def _bars(
    axes: Axes, lane: int, spans: list[tuple[float, float]], role: str, alpha: float = 1.0
) -> None:
    """All in one path, however many they are."""
    xs = [x for span in spans for x in (*span, GAP)]
    ys = [lane, lane, GAP] * len(spans)
    axes.plot(
        xs, ys, color=color(role), lw=BAR_POINTS, alpha=alpha, solid_capstyle="butt", zorder=2
    )


def _inches(names: list[str]) -> float:
    return 0.1 + LANE_INCHES * len(names)


def _name_lanes(axes: Axes, title: str, names: list[str]) -> None:
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False, axis="y")
    axes.set_title(title, loc="left", pad=4)
    svg.bare(axes)
