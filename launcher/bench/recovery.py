"""recovery: `ukernel bench recovery`: the outage that a client sees when its server is killed.

The same echo server under three settings of one system file, a plain restart loop and supervisord,
all in one run, killed in random order, so that what the host does meanwhile hits all alike. A
kill waits until whatever helps the next recovery is there again, and comes at a random moment of
the client's calls.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from launcher.bench import host
from launcher.bench.outages import Call, NoRecovery, RecoveryResult, Row, Sample, absent_row, row_of
from launcher.bench.subjects import LONE, OURS, PYPI, Subject, absent, lone, ours
from launcher.config import load
from launcher.kernel import SystemDown
from launcher.system import BootError, System

SYSTEM_FILE = Path(__file__).with_name("recovery.yaml")
KILLS, QUICK_KILLS = 40, 8  # of each
CALLS = (20, 200)  # answered between what has been made ready and the kill
EVENT_S, LOOK_S = 0.5, 0.005  # between two looks: at what comes as an event, and at what does not
PATIENCE_S = 30.0
KINDS = {**dict.fromkeys(OURS, "ours"), **dict.fromkeys(LONE, "baseline")}


class RunError(Exception):
    """The bench came to no result; the text says at which subject, and what did not happen."""


class Plan(NamedTuple):
    """Whom to kill, and how often each."""

    kills: int = KILLS
    variants: tuple[str, ...] = (*OURS, *LONE)


def measure(plan: Plan, progress: Callable[[str], None]) -> RecoveryResult:
    """Carry out a plan. Raises RunError when something does not come back."""
    facts = _facts()
    missing = {name: why for name in plan.variants if (why := absent(name))}
    found: dict[str, list[Sample]] = {name: [] for name in plan.variants if name not in missing}
    try:
        with _running(list(found)) as (system, subjects):
            todo = random.sample(subjects * plan.kills, len(subjects) * plan.kills)
            for number, subject in enumerate(todo, 1):
                sample = _one(system, subject)
                found[subject.name].append(sample)
                took = f"{sample.outage_ns / 1e6:8.2f} ms"
                progress(f"{number:3}/{len(todo)} {subject.name:12} {took}")
    except (BootError, SystemDown) as error:
        raise RunError(str(error)) from None
    rows = [_row(name, missing, found) for name in plan.variants]
    return RecoveryResult(facts, _versions(missing), host.commit(), rows)


def _facts() -> dict[str, Any]:
    """Nothing is bound to a core here. A start compiles what it has no bytecode of."""
    facts = host.facts(host.pick_core(0))
    del facts["core"]
    return {**facts, "bytecode": "not written" if sys.dont_write_bytecode else "written"}


def _row(name: str, missing: dict[str, str], found: dict[str, list[Sample]]) -> Row:
    if name in missing:
        return absent_row(name, KINDS[name], missing[name])
    return row_of(name, KINDS[name], found[name])


def _versions(missing: dict[str, str]) -> dict[str, str]:
    others = {name: metadata.version(pypi) for name, pypi in PYPI.items() if name not in missing}
    return {**host.versions(), **others}


@contextmanager
def _running(names: list[str]) -> Iterator[tuple[System, list[Subject]]]:
    """The system with all its clients, and the others beside it."""
    with System(load(SYSTEM_FILE), name=f"bench-{os.getpid()}") as system:
        system.boot()
        with ExitStack() as stack:
            begun = [ours(system, name) if name in OURS else lone(system, name) for name in names]
            yield system, [stack.enter_context(subject) for subject in begun]


def _one(system: System, subject: Subject) -> Sample:
    """One kill, from everything being ready to the next life having answered."""
    line = subject.line
    _until(system, subject, subject.prepared, "its next life was not made ready", LOOK_S)
    line.begin(random.randint(*CALLS))
    _until(system, subject, lambda: "under_way" in line.said, "its client got no answers")
    subject.kill()
    _until(system, subject, subject.recovered, "its next life did not answer")
    line.finish()
    _until(system, subject, lambda: "calls" in line.said, "its client did not tell its calls")
    try:
        return subject.sample([Call(*call) for call in line.said["calls"]])
    except NoRecovery as error:
        raise RunError(f"{subject.name}: {error}") from None


def _until(
    system: System,
    subject: Subject,
    happened: Callable[[], bool],
    otherwise: str,
    look_s: float = EVENT_S,
) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        if subject.line.ended or time.monotonic() > deadline:
            why = "its client ended" if subject.line.ended else f"{otherwise} in {PATIENCE_S:g} s"
            raise RunError(f"{subject.name}: {why}")
        system.pump(look_s)
