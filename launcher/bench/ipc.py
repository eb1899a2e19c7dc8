"""ipc: `ukernel bench ipc`: what a call costs, beside what others do and what cannot be beaten.

Client, server and broker are processes of their own, each on a core of its own choice or all on
one. Every path runs in several fresh process sets, interleaved in random order, so that what the
host does meanwhile hits all of them alike.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from launcher.bench import cores, host
from launcher.bench.gates import blame, hold_to_floors, judge
from launcher.bench.hop_runs import measure_hops
from launcher.bench.job import CLOSED, PIPELINED, Run, Seen, Step
from launcher.bench.paths import PATHS, absent
from launcher.bench.plan import SIZE, Cell, Plan
from launcher.bench.result import INVALID, Result, Row, absent_row, ratios_of, row_of
from launcher.bench.runs import RunError, run
from launcher.bench.selftest import self_tests

Progress = Callable[[str], None]
LONELY = "it spins: give this process two cores"
LEAST_SETS = 2
BUSY = 0.5  # load: a bench wants the machine for itself
PACKAGES = ("grpcio", "jeepney", "redis")


@dataclass
class Found:
    """What became of the process sets of a cell."""

    runs: list[Run] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def measure(plan: Plan, progress: Progress) -> Result:
    """Carry out a plan. A process set that comes to no result makes its rows invalid."""
    facts = _facts(plan)
    if facts["load"][0] > BUSY:
        progress(f"load {facts['load'][0]}: other work runs here, and all figures suffer from it")
    begun = time.monotonic()
    proofs = self_tests(plan.proven_on, plan.places[0], progress)
    found = _carry_out(plan, begun, progress)
    rows = [row for cell, of_cell in found.items() for row in _rows(plan, cell, of_cell)]
    hold_to_floors(rows)
    there = {cell.path for cell in found}
    missing = [PATHS[name] for name in plan.paths if PATHS[name] not in there]
    rows += [absent_row(path, absent(path) or LONELY) for path in missing]
    hops = measure_hops(plan.hops_between, SIZE, progress)
    return Result(facts, _versions(plan), host.commit(), rows, ratios_of(rows, SIZE), proofs, hops)


def _carry_out(plan: Plan, begun: float, progress: Progress) -> dict[Cell, Found]:
    """Round after round, as long as there is time for another, but twice in any case."""
    cells = plan.cells()
    found = {cell: Found() for cell in cells}
    started, total = time.monotonic(), len(cells) * plan.sets
    for number, one_round in enumerate(plan.rounds()):
        now = time.monotonic()
        if number >= LEAST_SETS and now + (now - started) / number > begun + plan.limit_s:
            progress(f"no time for more than {number} of {plan.sets} process sets of each")
            break
        for at, cell in enumerate(one_round, 1 + number * len(cells)):
            told = _run_once(plan, cell, found[cell])
            left_s = (time.monotonic() - started) / at * (total - at)
            what = f"{cell.path.name:15} {cell.where.client}-{cell.where.server}"
            progress(f"{at:3}/{total} {what} {told}, {_clock(left_s)} left")
    return found


def _run_once(plan: Plan, cell: Cell, found: Found) -> str:
    """One process set; what to say of it."""
    try:
        done = run(
            cell.path, cell.where, plan.counts, cell.steps, plan.faults.get(cell.path.name, "")
        )
    except RunError as error:
        found.failures.append(f"a run came to no result: {error}")
        return found.failures[-1]
    found.runs.append(done)
    return f"{done.seen[0].figures['p50'] / 1e3:9.2f} us"


def _rows(plan: Plan, cell: Cell, found: Found) -> list[Row]:
    """A row for each step, but the pipelined one: that belongs to the closed loop of its size."""
    rows = []
    for step in cell.steps:
        if step.mode == PIPELINED:
            continue
        seen, deep = _of(found.runs, step), _of(found.runs, Step(PIPELINED, step.size))
        deep = deep if step.mode == CLOSED else []
        row = row_of(cell.path, cell.where, step, seen, deep, plan.counts.depth)
        judge(row, found.runs, [*seen, *deep])
        for failure in found.failures:
            blame(row, INVALID, failure)
        rows.append(row)
    return rows


def _of(runs: list[Run], step: Step) -> list[Seen]:
    return [seen for one in runs for seen in one.seen if seen.step == step]


def _facts(plan: Plan) -> dict[str, Any]:
    facts = host.facts(plan.places[0].client)
    return {**facts, "topology": cores.topology(range(os.cpu_count() or 1))}


def _versions(plan: Plan) -> dict[str, str]:
    """Of everything on the measured paths."""
    programs = [PATHS[name].program for name in plan.paths if PATHS[name].program]
    found = {name: host.version_of(name) for name in PACKAGES}
    found |= {name: host.version_of_program(name) for name in programs}
    return host.versions() | {name: version for name, version in found.items() if version}


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
