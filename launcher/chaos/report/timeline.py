"""timeline: what the clients saw, between what was done to the servers and what became of them.

One clock and one axis of time: injections on top, then a row for each client, then a lane for
each server with its lives and outages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from launcher.chaos.evidence import FAIL, INFO, OK, OPEN, Evidence, Injection, Operation
from launcher.chaos.report import lanes, numbers, svg
from launcher.chaos.report.lanes import GAP, Row
from launcher.chaos.report.svg import color, label
from launcher.chaos.report.theme import MARKS, SERIES
from launcher.chaos.report.words import OUTCOME_NAMES

MAX_POINTS = 5000
CLIENT_INCHES, CROWDED_INCHES = 1.15, 0.8  # of a row, and when there are many clients
MANY_CLIENTS = 5
GAP_INCHES = 0.34
RIGHT_INCHES, TOP_INCHES, BOTTOM_INCHES = 0.15, 0.6, 0.5
MIN_LEFT_INCHES, CHAR_INCHES = 0.95, 0.075
MAX_RULES = 1500  # distinct moments of injections across the width of the picture
CLEAR_RULES = 60  # more of them grow fainter, or they would hide the rest
RULE_ALPHA = 0.4
ROOM = 1.6  # above the slowest operation, and below the fastest: a factor

# What is not plainly done: marker, colour, size.
ODD = {INFO: ("^", "doubt", 6.0), FAIL: ("X", "bad", 6.0), OPEN: (">", "bad", 6.0)}


def draw(evidence: Evidence) -> Figure:
    """The whole picture. Needs at least one operation, injection or recovery."""
    when = numbers.ends(evidence)
    rows = [lanes.faults(evidence, when), *_clients(evidence, when), lanes.lives(evidence, when)]
    rows = [row for row in rows if row.names]
    figure = _assemble(rows, evidence.injections, when)
    _explain(figure, evidence)
    return figure


def _assemble(rows: list[Row], injections: Sequence[Injection], when: numbers.Ends) -> Figure:
    heights = [row.inches for row in rows]
    inner = sum(heights) + GAP_INCHES * (len(rows) - 1)
    figure = Figure(figsize=(svg.WIDTH_INCHES, inner + TOP_INCHES + BOTTOM_INCHES))
    longest = max(len(name) for row in rows for name in row.names)
    left = max(MIN_LEFT_INCHES, 0.15 + CHAR_INCHES * longest)
    svg.margins(figure, left, RIGHT_INCHES, TOP_INCHES, BOTTOM_INCHES)
    gap = GAP_INCHES / (sum(heights) / len(rows))
    grid = figure.add_gridspec(len(rows), height_ratios=heights, hspace=gap)
    first = figure.add_subplot(grid[0])
    every = [first, *(figure.add_subplot(grid[at], sharex=first) for at in range(1, len(rows)))]
    for axes, row in zip(every, rows, strict=True):
        row.fill(axes)
        _rule(axes, injections, when)
        axes.tick_params(axis="x", labelbottom=axes is every[-1], length=0)
    total_s = when.second(when.ended_ns)
    first.set_xlim(-0.005 * total_s, 1.005 * total_s)
    every[-1].set_xlabel("seconds since the run began")
    return figure


def _rule(axes: Axes, injections: Sequence[Injection], when: numbers.Ends) -> None:
    """A line through everything wherever an injection landed."""
    step_ns = max(1, (when.ended_ns - when.begun_ns) // MAX_RULES)
    moments = {each.landed_ns // step_ns: each.landed_ns for each in injections if each.landed_ns}
    at = [when.second(at_ns) for at_ns in sorted(moments.values())]
    alpha = RULE_ALPHA * min(1.0, CLEAR_RULES / max(1, len(at)))
    xs = [x for second in at for x in (second, second, GAP)]
    ys = [0, 1, GAP] * len(at)
    upright = axes.get_xaxis_transform()  # time across, a share of the height upwards
    axes.plot(xs, ys, color=color("bad"), lw=0.7, alpha=alpha, zorder=1, transform=upright)


# --- clients ------------------------------------------------------------------------------------


def _clients(evidence: Evidence, when: numbers.Ends) -> list[Row]:
    """A row for each client, all on the same scale."""
    clients = [row.client for row in numbers.clients(evidence)]
    shown = numbers.thin(evidence.history, MAX_POINTS, when)
    latencies = [numbers.latency_ms(operation, when.ended_ns) for operation in shown]
    limits = (min(latencies) / ROOM, max(latencies) * ROOM) if latencies else (0.1, 1.0)
    inches = CLIENT_INCHES if len(clients) < MANY_CLIENTS else CROWDED_INCHES
    rows = []
    for number, client in enumerate(clients):

        def fill(axes: Axes, number: int = number, client: str = client) -> None:
            own = [operation for operation in shown if operation.client == client]
            _draw_client(axes, own, number, when)
            axes.set_ylim(limits)
            axes.set_title(_title(evidence, client), loc="left", pad=4)

        rows.append(Row(inches, ["1,000"], fill))
    return rows


def _draw_client(axes: Axes, own: list[Operation], number: int, when: numbers.Ends) -> None:
    for outcome in (OK, *ODD):
        these = [operation for operation in own if operation.outcome == outcome]
        xs = [when.second(operation.begun_ns) for operation in these]
        ys = [numbers.latency_ms(operation, when.ended_ns) for operation in these]
        plain = (MARKS[number % len(MARKS)], SERIES[number % len(SERIES)], 2.6)
        marker, role, size = ODD.get(outcome, plain)
        front = 2 if outcome == OK else 4
        axes.plot(xs, ys, marker, ms=size, mew=0, color=color(role), zorder=front)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, numticks=5))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_ylabel("latency, ms")


def _title(evidence: Evidence, client: str) -> str:
    ops = [operation.op for operation in evidence.history if operation.client == client]
    role = " (bystander)" if client in evidence.bystanders else ""
    kinds = ", ".join(label(op) for op in sorted(set(ops)))
    return f"client {label(client)}{role}: {len(ops):,} operations, {kinds}"


# --- the legend ---------------------------------------------------------------------------------


def _explain(figure: Figure, evidence: Evidence) -> None:
    """What the marks mean, above everything; only of those that occur."""
    outcomes = {operation.outcome for operation in evidence.history}
    landed = any(injection.landed_ns for injection in evidence.injections)
    healed = any(injection.healed_ns for injection in evidence.injections)
    missed = any(not injection.landed_ns for injection in evidence.injections)
    died = bool(evidence.recoveries)
    point = {"linestyle": "none", "mew": 0}
    bar = {"lw": lanes.BAR_POINTS - 2, "solid_capstyle": "butt"}
    wanted: list[tuple[bool, str, str, dict[str, Any]]] = [
        (landed, "bad", "injection", {"marker": "v", "ms": 5, **point}),
        (healed, "bad", "until healed", {"alpha": lanes.HEALED_ALPHA, **bar}),
        (missed, "doubt", "never landed", {"linestyle": "none", "marker": "x", "ms": 5.5}),
    ]
    wanted += [
        (outcome in outcomes, role, OUTCOME_NAMES[outcome], {"marker": marker, "ms": size, **point})
        for outcome, (marker, role, size) in ODD.items()
    ]
    wanted += [(died, "life", "alive", bar), (died, "bad", "down", bar)]
    handles = [
        Line2D([], [], color=color(role), label=words, **style)
        for there, role, words, style in wanted
        if there
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        ncols=max(1, len(handles)),
        bbox_to_anchor=(0, 1),
        columnspacing=1.6,
        handlelength=1.6,
        handletextpad=0.6,
        borderaxespad=0.2,
    )
