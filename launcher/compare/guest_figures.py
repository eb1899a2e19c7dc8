"""guest_figures: what is told of virtual machines, as measures of a run. Pure.

All are of the same stretch of work, the jobs of the application, in which the guests run too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from launcher.compare.figures import Measure
from launcher.compare.guests import Did
from launcher.compare.run import Run

Of = Callable[[Did], float | None]


def guest_measures(runs: Iterable[Run]) -> list[Measure]:
    """Those that any run has, by virtual machine, in the order of the table."""
    runs = list(runs)
    names = dict.fromkeys(name for run in runs for name in run.guests)
    return [measure for name in names for measure in _of(name, runs)]


def death_measures(runs: Iterable[Run], victims: Sequence[str]) -> list[Measure]:
    """The longest gap of heartbeats around each kill, of those that have any."""
    runs = list(runs)
    names = dict.fromkeys(name for run in runs for name in run.guests)
    made = [_gap(name, at, victim) for name in names for at, victim in enumerate(victims)]
    return [each for each in made if any(each.of(run) for run in runs)]


def _gap(name: str, at: int, victim: str) -> Measure:
    def value(run: Run) -> float | None:
        guest = run.guests.get(name)
        return guest.felt[at].gap_ms if guest is not None else None

    title = f"{name}: longest gap, {victim} killed"
    return Measure(f"{name}_gap_{victim}_killed_ms", title, "ms", value)


def exits_per_s(did: Did) -> float:
    return sum(did.exits_per_s.values())


def _of(name: str, runs: list[Run]) -> list[Measure]:
    every = [run.guests[name].did for run in runs if name in run.guests]
    kinds = sorted({kind for did in every for kind in did.exits_per_s})
    always = [
        _measure(name, "exits", "exits", "1/s", exits_per_s, None),
        _measure(name, "cpu", "of a CPU", "%", lambda did: 100 * did.cpu, None),
    ]
    made = [_exits(name, kind) for kind in kinds]
    made += [
        _measure(name, "requests", "requests to its disk", "1/s", lambda did: did.requests_per_s),
        _measure(name, "frames", "frames of its card", "1/s", lambda did: did.frames_per_s),
        _measure(name, "ticks", "its ticks of 10 ms", "1/s", lambda did: did.ticks_per_s),
        _measure(name, "late_ms", "its latest tick", "ms", lambda did: did.latest_ms, False),
    ]
    return [*always, *(each for each in made if any(each.of(run) for run in runs))]


def _exits(name: str, kind: str) -> Measure:
    def of(did: Did) -> float:
        return did.exits_per_s.get(kind, 0.0)

    return _measure(name, f"exits_{kind}", f"exits, {kind}", "1/s", of, None)


def _measure(
    name: str, key: str, title: str, unit: str, of: Of, more: bool | None = True
) -> Measure:
    def value(run: Run) -> float | None:
        guest = run.guests.get(name)
        return of(guest.did) if guest is not None else None

    return Measure(f"{name}_{key}", f"{name}: {title}", unit, value, more)
