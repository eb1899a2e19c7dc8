"""run: `ukernel bench vm`: guests in their real monitors, and the same on QEMU, in one run.

Visits take turns in random order, so that what the host does meanwhile hits all alike.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from launcher.bench import host
from launcher.bench.net import busy
from launcher.bench.vm import qemu, selftest
from launcher.bench.vm.guest import NoResult
from launcher.bench.vm.plan import PEER, SIZES, Figure, Plan, full
from launcher.bench.vm.result import Row, SelfTest, Visit, VmResult, absent_row, exits_of, row_of
from launcher.bench.vm.visits import Visits
from launcher.config import SystemFile, load
from launcher.kernel import SystemDown
from launcher.system import BootError, System

SYSTEM_FILE = Path(__file__).parent.parent / "vm.yaml"
DISK = "disk0"  # as the system file has it
Progress = Callable[[str], None]


class RunError(Exception):
    """The bench came to no result; the text says why."""


@dataclass
class Found:
    """By whom was visited: the visits, and those that came to no result."""

    visits: dict[str, list[Visit]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def measure(plan: Plan, progress: Progress) -> VmResult:
    """Carry out a plan. A visit that comes to no result makes its rows invalid. Raises RunError
    when there are no machines to visit."""
    facts = host.facts(host.pick_core(0))
    del facts["core"]  # nothing is bound to one
    if (others := busy.by_others()) > busy.MUCH:
        progress(f"others use {others:.0%} of the processors, and all figures suffer from it")
    missing = qemu.absent()
    try:
        with _visits(plan) as visits:
            found = _go_round(plan, visits, progress, without_qemu=bool(missing))
            tests = [_boot_test(visits, plan)]
    except (BootError, SystemDown, OSError) as error:
        raise RunError(str(error)) from None
    rows = [_row(figure, found, missing) for figure in plan.figures]
    tests += [test for test in (selftest.of_share(rows),) if test is not None]
    exits = exits_of([visit for each in found.visits.values() for visit in each])
    return VmResult(facts, _versions(missing), host.commit(), plan.rounds, rows, exits, tests)


def _row(figure: Figure, found: Found, missing: str) -> Row:
    if figure.kind == PEER and missing:
        return absent_row(figure, missing)
    return row_of(figure, found.visits[figure.subject], found.failures[figure.subject])


def _versions(missing: str) -> dict[str, str]:
    known = {**host.versions(), "unicorn": host.version_of("unicorn")}
    return known if missing else {**known, "qemu": host.version_of_program(qemu.PROGRAM)}


# --- the rounds ---------------------------------------------------------------------------------


def _go_round(plan: Plan, visits: Visits, progress: Progress, without_qemu: bool) -> Found:
    found, others = Found(), 0.0
    for at, name in enumerate(order := list(plan.order())):
        if at % len(plan.subjects) == 0:
            others = busy.by_others()  # nothing of ours runs
        if without_qemu and name.startswith("qemu-"):
            continue
        told = _one(visits, name, others, found)
        progress(f"{at + 1:3}/{len(order)} {name:11} {told}")
    return found


def _one(visits: Visits, name: str, others: float, found: Found) -> str:
    """One visit; what to say of it."""
    before = busy.ticks()
    try:
        visit = visits.visit(name)
    except NoResult as error:
        found.failures[name].append(str(error))
        return str(error)
    visit.busy, visit.stolen = others, busy.ticks().since(before)[1]
    found.visits[name].append(visit)
    last = {key.name: samples[-1] for key, samples in visit.samples.items()}
    return ", ".join(f"{figure} {sample:.1f}" for figure, sample in last.items())


def _boot_test(visits: Visits, plan: Plan) -> SelfTest:
    try:
        return selftest.boot_held(visits, plan.tests)
    except NoResult as error:
        return SelfTest("boot", False, str(error))


# --- the system ---------------------------------------------------------------------------------


@contextmanager
def _visits(plan: Plan) -> Iterator[Visits]:
    """A system of machines that stand still."""
    with tempfile.TemporaryDirectory(prefix=f"ukernel-vms-{os.getpid()}-") as folder:
        file, image = system_file(plan), Path(folder) / "vm.img"
        with System(file, name=f"bench-{os.getpid()}", images={DISK: image}) as system:
            system.boot()
            visits = Visits(system, plan)
            try:
                visits.settle()
            except NoResult as error:
                raise RunError(str(error)) from None
            yield visits


def system_file(plan: Plan) -> SystemFile:
    """The one system file, without the machines whose sizes are not asked for."""
    file = load(SYSTEM_FILE)
    out = {f"{full(size)}{end}" for size in {*SIZES} - {*plan.sizes} for end in ("", "b")}
    manifest = file.manifest
    kept = {
        part: {name: what for name, what in getattr(manifest, part).items() if name not in out}
        for part in ("servers", "vms")
    }
    return replace(file, manifest=manifest.model_copy(update=kept))
