"""beside: an experiment once more in another placement, until its first kill has been repaired.

It boots, lets the same clients work, kills whom the plan kills first, and waits until all are READY
again and have worked for a while. What is seen is evidence of its own, to stand beside the other.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from launcher.chaos import radius, witness
from launcher.chaos.actions import performer
from launcher.chaos.cast import Cast
from launcher.chaos.ensemble import with_clients
from launcher.chaos.evidence import Blast, Evidence
from launcher.chaos.experiment import ExperimentFile
from launcher.chaos.nemesis import KILLS
from launcher.chaos.plan import Planned, plan
from launcher.chaos.schedule import Nemesis
from launcher.chaos.stage import Armed, Stage, Tell
from launcher.config import placed
from launcher.placement import units
from ukernel.abi.manifest import Manifest

WARM_S = 1.0  # of work before the kill counts
AFTER_S = 2.0  # of work when all are READY again
GRACE_S = 20.0  # for a target that was not READY
TURN_S = 0.05


def play(file: ExperimentFile, seed: int, scratch: Path, tell: Tell, armed: Armed) -> Evidence:
    """Do it, in an empty directory. Raises what a run of the system may raise, and ClientFailed."""
    experiment = file.experiment
    killing = experiment.model_copy(
        update={"nemesis": tuple(a for a in experiment.nemesis if a.do in KILLS)}
    )
    assert experiment.beside is not None
    there = replace(
        file, experiment=killing, system=placed(file.system, experiment.beside)
    )  # and without interposers: nobody comes between two in one process
    cast = Cast(experiment.workload, seed, scratch)
    with Stage(there, scratch, tell, armed) as stage, cast:
        return _play(stage, cast, there, seed, first_kill(plan(experiment, seed)))


def first_kill(planned: list[Planned]) -> Planned:
    return next(each for each in planned if each.action in KILLS)


def _play(stage: Stage, cast: Cast, file: ExperimentFile, seed: int, planned: Planned) -> Evidence:
    manifest = file.system.manifest
    cast.prepare(stage)
    cast.start(stage)
    cast.work(stage, WARM_S)
    lives = {task.name: stage.life(task)[1] for task in stage.booted()}
    begun_ns = time.monotonic_ns()
    with closing(Nemesis([planned], performer(stage))) as nemesis:
        nemesis.begin(begun_ns)
        while not nemesis.over:
            stage.pump(min(nemesis.act(), TURN_S))
            cast.check()
            if nemesis.elapsed_s > planned.at_s + GRACE_S:
                nemesis.give_up()
    stage.settle()
    cast.work(stage, AFTER_S)
    cast.end(stage)
    history = cast.operations()
    return Evidence(
        seed=seed,
        placement=manifest.placement,
        begun_ns=begun_ns,
        ended_ns=time.monotonic_ns(),
        history=history,
        injections=[each.record for each in nemesis.injections],
        recoveries=witness.recoveries(
            stage.repairs(),
            nemesis.injections,
            stage.cut,
            history,
            radius.dependents(with_clients(file), file.experiment),
        ),
        lines=cast.lines(),
        health=cast.health(),
        predicted=_sharing(manifest, planned.targets),
        observed=_died(stage, lives),
        bystanders=tuple(c.client for c in file.experiment.workload if c.bystander),
    )


def _sharing(manifest: Manifest, targets: tuple[str, ...]) -> Blast:
    """Who is in a process with one of these, and so dies with it."""
    every = [unit.members for unit in units(manifest)]
    down = tuple(name for names in every if {*names} & {*targets} for name in names)
    rest = tuple(name for names in every for name in names if name not in down)
    return Blast(down, (), rest)


def _died(stage: Stage, before: dict[str, int]) -> Blast:
    """Who has another life than before."""
    after = {task.name: stage.life(task)[1] for task in stage.booted()}
    down = tuple(name for name, life in after.items() if life > before[name])
    return Blast(down, (), tuple(name for name in after if name not in down))
