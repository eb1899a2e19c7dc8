"""console: what the lines of the guests that come with the system mean. Pure.

    heartbeat COUNT MTIME LATE              ticks of 10 ms so far, the guest's clock (10 MHz), and
                                            the worst delay of a tick since the line before, in µs
    diskcheck PASS sectors N wrong N errors N   bytes, and requests that the disk has refused

Each guest says other things at its begin; whatever it says besides, it complains of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from launcher.chaos.evidence import Line

CLOCK_PER_MS = 10_000
BEAT = re.compile(r"heartbeat (\d+) (\d+) (\d+)")
PASS = re.compile(r"diskcheck (\d+) sectors \d+ wrong (\d+) errors (\d+)")
RIGHT = {
    "heartbeat": re.compile(rf"heartbeat with(out)? a disk|{BEAT.pattern}"),
    "diskcheck": re.compile(r"diskcheck of \d+ sectors|diskcheck \d+ sectors \d+ wrong 0 errors 0"),
    "netping": re.compile(r"netping at [\d.]+|netping: \d+ answered"),
}


class Beat(NamedTuple):
    """One line of a heartbeat."""

    at_ns: int  # when it was seen
    ticks: int  # since the guest has booted
    guest_ms: float  # its clock
    late_ms: float  # the worst delay of a tick since the line before


class Pass(NamedTuple):
    """One line of a check of the disk: what was wrong since the guest has booted."""

    at_ns: int
    wrong: int  # bytes
    errors: int  # requests that the disk has refused


def kind(lines: Sequence[Line]) -> str | None:
    """Which guest has shown this, by its first line; None: none that we know."""
    first = lines[0].text if lines else ""
    return next((name for name, right in RIGHT.items() if right.fullmatch(first)), None)


def beats(lines: Iterable[Line]) -> list[Beat]:
    """The heartbeat among these lines."""
    found = [(line, BEAT.fullmatch(line.text)) for line in lines]
    return [
        Beat(line.at_ns, int(said[1]), int(said[2]) / CLOCK_PER_MS, int(said[3]) / 1000)
        for line, said in found
        if said is not None
    ]


def passes(lines: Iterable[Line]) -> list[Pass]:
    """The checks of the disk that have come to their end."""
    found = [(line, PASS.fullmatch(line.text)) for line in lines]
    return [Pass(line.at_ns, int(said[2]), int(said[3])) for line, said in found if said]


def by_client(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """What each client has seen, in its order."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.client, []).append(line)
    return found
