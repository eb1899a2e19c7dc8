"""radius: whom the faults of an experiment are said to reach, when its author has not said."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.chaos.ensemble import with_clients
from launcher.chaos.evidence import Blast, Recovery
from launcher.chaos.experiment import ExperimentFile, load
from launcher.chaos.injecting import Injecting
from launcher.chaos.plan import plan
from launcher.chaos.radius import dependents, predicted

SYSTEM = """\
system: small
hardware:
  disk0: {model: virtio-blk, image: d.img, size: 1MiB}
  nic0: {model: virtio-net, backend: userns, host_address: 10.77.0.1/24}
servers:
  disk: {run: servers.disk, serves: block, devices: [disk0]}
  fs: {run: servers.fs, serves: file, calls: [disk]}
  echo: {run: servers.echo, serves: echo}
"""
EXPERIMENT = """\
version: 1
title: t
system: system.yaml
workload:
  - {client: writer, run: files}
  - {client: reader, run: read}
  - {client: talker, run: echo}
  - {client: fetcher, run: download, url: 'http://10.77.0.2/big'}
nemesis: NEMESIS
checkers: [kernel_alive]
"""
KILL = "[{at: 0, do: kill, target: disk}]"
PAUSE = "[{at: 0, do: pause, target: echo, for: 1s}]"
DEVICE = "[{at: 0, do: device, device: disk0, fault: io_error}]"
DROP = "[{at: 0, do: message, link: fs->disk, fault: drop}]"


def loaded(folder: Path, nemesis: str) -> ExperimentFile:
    (folder / "system.yaml").write_text(SYSTEM)
    path = folder / "experiment.yaml"
    path.write_text(EXPERIMENT.replace("NEMESIS", nemesis))
    return load(path)


def repaired(server: str, injected: bool) -> Recovery:
    return Recovery(server, 1, "hung", injected, 1, 2, 3, 4, 5, 6, 7)


ALL = ("machine", "disk", "fs", "echo", "writer", "reader", "talker")
NOBODY = Blast((), (), ALL)
OF_ECHO = Blast(("echo",), ("talker",), ("machine", "disk", "fs", "writer", "reader"))


@pytest.mark.parametrize(
    ("nemesis", "repairs", "expected"),
    [
        (KILL, [], Blast(("disk",), ("fs", "writer", "reader"), ("machine", "echo", "talker"))),
        (PAUSE, [], NOBODY),
        (PAUSE, [repaired("echo", True)], OF_ECHO),
        (PAUSE, [repaired("echo", False)], NOBODY),
        (DROP, [], NOBODY),
        (DEVICE, [], NOBODY),
    ],
)
def test_who_dies_reaches_whoever_may_call_it(
    tmp_path: Path, nemesis: str, repairs: list[Recovery], expected: Blast
) -> None:
    file = loaded(tmp_path, nemesis)
    injections = [Injecting(each) for each in plan(file.experiment)]
    assert predicted(with_clients(file), file.experiment, injections, repairs) == expected


def test_what_the_author_says_stands(tmp_path: Path) -> None:
    file = loaded(tmp_path, f"{KILL}\npredict: {{down: [disk], untouched: [echo]}}")
    found = predicted(with_clients(file), file.experiment, [], [])
    assert found == Blast(("disk",), (), ("echo",))


def test_the_kernel_sees_nothing_of_who_is_outside(tmp_path: Path) -> None:
    file = loaded(tmp_path, KILL)
    injections = [Injecting(each) for each in plan(file.experiment)]
    found = predicted(with_clients(file), file.experiment, injections, [])
    assert not any("fetcher" in part for part in found)


def test_a_bulk_reader_does_not_show_when_an_outage_ends(tmp_path: Path) -> None:
    file = loaded(tmp_path, KILL)
    reached = dependents(with_clients(file), file.experiment)
    assert reached["disk"] == {"writer"}
    assert reached["echo"] == {"talker"}
    assert reached["talker"] == set()
