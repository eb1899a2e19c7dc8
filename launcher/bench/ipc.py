"""ipc: `ukernel bench ipc --quick`: the kernel's path against brokers that do less, on one core.

Every path is client, broker and server in three processes. Each is run in several fresh process
sets, interleaved in random order, so that what the host does meanwhile hits all of them alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from launcher.bench import host
from launcher.bench.load import Counts, Run
from launcher.bench.result import QuickResult, print_table, ratios_of, row_of
from launcher.bench.runs import KERNEL, PEERS, run

__all__ = ["Plan", "QuickResult", "measure", "print_table", "run_quick"]


class Plan(NamedTuple):
    """What to measure, and how often."""

    core: int
    sets: int = 5  # fresh process sets of each path
    counts: Counts = Counts()
    faulty: frozenset[str] = frozenset()  # peers that shall give wrong echoes: a test of the gate


def run_quick(
    json_file: Path | None, progress: Callable[[str], None], cores: int = 0
) -> QuickResult:
    """Measure for some 20 s on core `cores`; write the JSON too when a file is given."""
    result = measure(Plan(host.pick_core(cores)), progress)
    if json_file is not None:
        result.write(json_file)
    return result


def measure(plan: Plan, progress: Callable[[str], None]) -> QuickResult:
    """Carry out a plan. Raises RunError when a process set comes to no result."""
    facts = host.facts(plan.core)
    runs: dict[str, list[Run]] = {name: [] for name in (KERNEL, *PEERS)}
    todo = _order(plan.sets)
    for number, name in enumerate(todo, 1):
        done = run(name, plan.core, plan.counts, name in plan.faulty)
        runs[name].append(done)
        progress(f"{number:2}/{len(todo)} {name:12} {_median_us(done):7.1f} us")
    rows = [row_of(name, of_path, plan.counts, plan.core) for name, of_path in runs.items()]
    return QuickResult(facts, host.versions(), host.commit(), rows, ratios_of(rows))


def _order(sets: int) -> list[str]:
    """Every path once in a round, each round in an order of its own."""
    return [name for _ in range(sets) for name in random.sample((KERNEL, *PEERS), 1 + len(PEERS))]


def _median_us(done: Run) -> float:
    return sorted(done.samples)[len(done.samples) // 2] / 1000
