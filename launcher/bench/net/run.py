"""run: `ukernel bench net`: the same client downloads from our stack and from others, in one run.

Every visit is to a stack that was set up for it, and the visits take turns in random order, so
that what the host does meanwhile hits all alike.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from launcher.bench import host
from launcher.bench.net import busy, places, pytcp
from launcher.bench.net.places import Place, PlaceError
from launcher.bench.net.plan import OURS, PEER, VARIANTS, Plan, Variant
from launcher.bench.net.result import NetResult, Row, Visit, absent_row, hold_to_floor, row_of
from launcher.bench.net.visit import NoResult, visit

Progress = Callable[[str], None]
Way = Callable[[], AbstractContextManager[Place]]  # sets a stack up for one visit
OTHERS: dict[str, Any] = {"linux": places.linux, "loopback": places.loopback}


def measure(plan: Plan, progress: Progress) -> NetResult:
    """Carry out a plan. A visit that comes to no result makes its row invalid. Raises PlaceError
    when this host has no namespaces to do it in, or the disk cannot be filled."""
    facts = host.facts(host.pick_core(0))
    del facts["core"]  # nothing is bound to one
    if (others := busy.by_others()) > busy.MUCH:
        progress(f"others use {others:.0%} of the processors, and all figures suffer from it")
    asked = [VARIANTS[name] for name in plan.names]
    visits: dict[str, list[Visit]] = defaultdict(list)
    failures: dict[str, list[str]] = defaultdict(list)
    with _set_up(plan, asked, progress) as (ways, missing):
        for number, name in enumerate(plan.order(list(ways)), 1):
            told = _one(plan, VARIANTS[name], ways[name], visits[name], failures[name])
            progress(f"{number:3}/{len(ways) * plan.rounds} {name:14} {told}")
    rows = [
        absent_row(variant, missing[variant.name])
        if variant.name in missing
        else row_of(variant, plan.of(variant), visits[variant.name], failures[variant.name])
        for variant in asked
    ]
    hold_to_floor(rows)
    return NetResult(facts, _versions(rows), host.commit(), plan.bytes_, plan.rounds, rows)


def _versions(rows: list[Row]) -> dict[str, str]:
    """Linux's is among the facts of the host."""
    measured = any(row.kind == PEER and row.throughput for row in rows)
    return host.versions() | ({pytcp.PACKAGE: pytcp.VERSION} if measured else {})


def _one(plan: Plan, variant: Variant, way: Way, visits: list[Visit], failures: list[str]) -> str:
    """One visit; what to say of it."""
    others = busy.by_others()
    try:
        with way() as place:
            visits.append(visit(place, plan.steps(variant), others))
    except (NoResult, PlaceError) as error:
        failures.append(str(error))
        return failures[-1]
    return f"{visits[-1].mib_per_s:9.1f} MiB/s"


@contextmanager
def _set_up(
    plan: Plan, asked: list[Variant], progress: Progress
) -> Iterator[tuple[dict[str, Way], dict[str, str]]]:
    """How each stack is set up, and why there is none of those that are missing."""
    with (
        tempfile.TemporaryDirectory(prefix="ukernel-bench-") as folder,
        places.opened_room() as room,
    ):
        ours = [variant for variant in asked if variant.kind == OURS]
        image = places.filled(Path(folder), ours, plan.bytes_)
        ways: dict[str, Way] = {}
        missing: dict[str, str] = {}
        for variant in asked:
            if variant.kind == OURS:
                ways[variant.name] = partial(places.ours, variant, image)
            elif variant.kind == PEER:
                try:
                    python = pytcp.python(pytcp.home(), progress)
                    ways[variant.name] = partial(places.pytcp, room, python)
                except pytcp.CannotInstall as error:
                    missing[variant.name] = str(error)
            else:
                ways[variant.name] = partial(OTHERS[variant.name], room)
        yield ways, missing
