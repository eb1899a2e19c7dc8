"""sides: a run and what was done beside it in another placement, figure by figure. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from launcher.chaos import console, pulse
from launcher.chaos.evidence import Evidence, Line
from launcher.chaos.pulse import Pulse

ABSENT = "-"


class Side(NamedTuple):
    """What there is to say of one of them."""

    evidence: Evidence
    deaths: Counter[str]  # lives that ended, by server
    lines: dict[str, list[Line]]  # by machine

    @property
    def landed(self) -> int:
        return sum(each.landed_ns > 0 for each in self.evidence.injections)

    @property
    def processes(self) -> int:
        """That died: those who share one are reaped at one moment."""
        return len({each.dead_ns for each in self.evidence.recoveries})


def every(evidence: Evidence) -> list[Side]:
    """The run, and the one beside it."""
    return [_side(each) for each in (evidence, evidence.beside) if each is not None]


def sides(evidence: Evidence) -> list[Side]:
    """The same, to be compared; nothing when there is nothing beside the run."""
    return every(evidence) if evidence.beside is not None else []


def _side(evidence: Evidence) -> Side:
    lines: dict[str, list[Line]] = {}
    for line in evidence.lines:
        lines.setdefault(line.machine, []).append(line)
    return Side(evidence, Counter(each.server for each in evidence.recoveries), lines)


def columns(found: Sequence[Side]) -> list[str]:
    return ["", *(side.evidence.placement for side in found)]


def rows(found: Sequence[Side]) -> list[list[str]]:
    """What is compared, and how it was on each side."""
    told: list[tuple[str, Callable[[Side], str]]] = [
        ("faults that landed", lambda side: str(side.landed)),
        ("processes that died", lambda side: str(side.processes)),
        ("servers that died", lambda side: str(len(side.deaths))),
    ]
    for machine in dict.fromkeys(name for side in found for name in side.lines):
        told += _of_machine(found, machine)
    return [[name, *map(tell, found)] for name, tell in told]


def compared(found: Sequence[Side]) -> dict[str, dict[str, str]]:
    """The same by placement."""
    table = rows(found)
    return {
        side.evidence.placement: {name: told[at] for name, *told in table}
        for at, side in enumerate(found)
    }


def _of_machine(found: Sequence[Side], machine: str) -> list[tuple[str, Callable[[Side], str]]]:
    told: list[tuple[str, Callable[[Side], str]]] = [
        (f"{machine}: lives lost", lambda side: str(side.deaths[machine]))
    ]
    if any(heartbeat(side, machine) for side in found):
        told += [
            (f"{machine}: longest gap as seen, ms", _of_pulse(machine, "seen_gap_ms", ".1f")),
            (f"{machine}: time lost, ms", _of_pulse(machine, "behind_ms", ".1f")),
            (f"{machine}: lines said again", _of_pulse(machine, "repeated", "d")),
        ]
    if any(console.passes(side.lines.get(machine, ())) for side in found):
        told.append((f"{machine}: wrong bytes", lambda side: _wrong(side, machine)))
    return told


def heartbeat(side: Side, machine: str) -> Pulse | None:
    """From the line before the first kill on."""
    beats = console.beats(side.lines.get(machine, ()))
    return pulse.measured(pulse.disturbed(side.evidence, beats))


def _of_pulse(machine: str, figure: str, form: str) -> Callable[[Side], str]:
    def tell(side: Side) -> str:
        found = heartbeat(side, machine)
        return ABSENT if found is None else format(max(0, getattr(found, figure)), form)

    return tell


def _wrong(side: Side, machine: str) -> str:
    passes = console.passes(side.lines.get(machine, ()))
    return str(max(each.wrong for each in passes)) if passes else ABSENT
