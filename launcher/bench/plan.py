"""plan: what a run of the bench measures, and how often. A cell is a path between two cores."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from launcher.bench import cores
from launcher.bench.cores import Placement
from launcher.bench.job import CLOSED, GAP, OPEN, PIPELINED, Counts, Step
from launcher.bench.paths import KERNEL, PATHS, WORD, Path, absent

SIZE = 64  # of what is not about sizes
SIZES = (16, 1024, 16 * 1024, 256 * 1024)  # the others
GAPS_US = (100, 1000, 10_000)
LOADS = (0.1, 0.5, 0.8)
BRIEF = (KERNEL, "zmq_proxy_c", "bare_router")
CHANNELS = ("channel_spin", "channel_hybrid", "channel_block")
QUICK = ("timer", "cache_line", "unix_socket", "ring_spin", "channel_spin", "channel_block", *BRIEF)
MAP = ("cache_line", "unix_socket", "channel_block", KERNEL)  # between all pairs of cores

ONE = (Step(),)
DEEP = (Step(), Step(PIPELINED))
EVERYTHING = (
    *DEEP,
    *(Step(OPEN, load=load) for load in LOADS),
    *(Step(GAP, gap_us=gap_us) for gap_us in GAPS_US),
    *(Step(size=size) for size in SIZES),
)


class Cell(NamedTuple):
    path: Path
    where: Placement
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Plan:
    """Which paths, between which cores, under which loads, in how many fresh process sets."""

    paths: tuple[str, ...]
    places: tuple[Placement, ...]
    steps: tuple[Step, ...]
    sets: int = 5
    counts: Counts = field(default_factory=Counts)
    more_places: tuple[Placement, ...] = ()  # for a map of the cores: one load, few paths
    proven_on: tuple[str, ...] = ()  # paths of the self-tests
    hops_between: tuple[Placement, ...] = ()  # cores between which calls are cut into hops
    limit_s: float = math.inf  # sets that would end later are not begun
    faults: Mapping[str, str] = field(default_factory=dict)  # of servers: a test of the gates

    def cells(self) -> list[Cell]:
        """Everything that can be measured here."""
        there = [PATHS[name] for name in self.paths if not absent(PATHS[name])]
        found = [
            Cell(path, where, steps_of(path, self.steps))
            for path in there
            for where in self.places
            if can_be(path, where)
        ]
        mapped = [path for path in there if path.name in MAP]
        found += [
            Cell(path, where, steps_of(path, ONE))
            for path in mapped
            for where in self.more_places
            if can_be(path, where)
        ]
        return found

    def rounds(self) -> list[list[Cell]]:
        """Every cell once in a round, each round in an order of its own."""
        cells = self.cells()
        return [random.sample(cells, len(cells)) for _ in range(self.sets)]


def can_be(path: Path, where: Placement) -> bool:
    """A path that calls nobody has one core, one that spins has two."""
    return not where.is_cross if path.ends == 1 else path.same_core or where.is_cross


def steps_of(path: Path, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Those that the path can take."""
    if path.only_word:
        return (Step(CLOSED, WORD),)
    return tuple(step for step in steps if path.deep or step.mode != PIPELINED)


# --- the plans that there are -------------------------------------------------------------------


def brief() -> Plan:
    """The kernel and two brokers that do less, on one core, in some 20 s."""
    return replace(
        quick(),
        paths=BRIEF,
        places=_places()[:1],
        sets=5,
        counts=Counts(budget_ms=300),
        proven_on=(),
        hops_between=(),
    )


def quick() -> Plan:
    """The essentials within 40 s: three process sets of each, 64 B."""
    counts = Counts(budget_ms=100, pipelined=5000)
    plan = Plan(QUICK, _near_and_far(), DEEP, 3, counts, proven_on=("unix_socket",), limit_s=34)
    return replace(plan, hops_between=plan.places[:1])


def full(every_pair: bool = False) -> Plan:
    """All of it; `every_pair` of cores has a place on the map."""
    places = _places()
    more = [p for p in cores.every_pair(cores.allowed()) if p not in places] if every_pair else []
    plan = Plan(tuple(PATHS), places, EVERYTHING, proven_on=("unix_socket", KERNEL))
    return replace(plan, more_places=tuple(more), hops_between=places)


def _places() -> tuple[Placement, ...]:
    return tuple(cores.one_of_each_class(cores.allowed()))


def _near_and_far() -> tuple[Placement, ...]:
    """One core, and two that are real cores if there are."""
    places = _places()
    return places[:1] if len(places) == 1 else (places[0], places[-1])
