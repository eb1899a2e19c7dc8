"""radius: whom an experiment's faults are said to reach, by its author or by the graph of calls."""

from __future__ import annotations

from collections.abc import Iterable

from launcher.board import MACHINE
from launcher.chaos import blast
from launcher.chaos.evidence import Blast, Recovery
from launcher.chaos.experiment import Experiment
from launcher.chaos.injecting import Injecting
from ukernel.abi.manifest import Manifest


def dependents(manifest: Manifest, experiment: Experiment) -> dict[str, set[str]]:
    """The clients that each server's outage reaches, and that show its end by their answers. An
    operation of a bulk reader is a whole pass over its file, and one who looks at a guest waits
    until that says something: they show nothing."""
    patient = {client.client for client in experiment.workload if client.moves or client.shows}
    clients = {client.client for client in experiment.workload} - patient
    every = [*manifest.servers, MACHINE]
    return {name: {*blast.reach(manifest, every, [name])} & clients for name in every}


def predicted(
    manifest: Manifest,
    experiment: Experiment,
    injections: Iterable[Injecting],
    recoveries: Iterable[Recovery],
) -> Blast:
    """What the author says; else what follows from who was to die, and who died of a fault that
    he might have outlived."""
    if (said := experiment.predict) is not None:
        return Blast(said.down, said.degraded, said.untouched)
    victims = {name for i in injections if i.planned.deadly for name in i.planned.targets}
    victims |= {repair.server for repair in recoveries if repair.injected}
    clients = [client.client for client in experiment.workload if not client.outside]
    also = blast.taken_along(manifest, victims)
    return blast.predict(manifest, victims, clients=clients, also_down=also)
