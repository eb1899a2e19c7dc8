"""ensemble: clients and interposers are added to a system, and every name is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.chaos.ensemble import free_name, with_cast, with_clients
from launcher.chaos.experiment import ExperimentFile, load
from ukernel.abi.manifest import start_order

SYSTEM = """\
system: small
hardware:
  disk0: {model: virtio-blk, image: d.img, size: 1MiB}
servers:
  disk: {run: servers.disk, serves: block, devices: [disk0]}
  fs: {run: servers.fs, serves: file, calls: [disk]}
  fs-disk: {run: servers.echo, serves: echo}
"""
EXPERIMENT = """\
version: 1
title: t
system: system.yaml
workload: [{client: writer, run: files}]
nemesis:
  - {at: 0, do: message, link: fs->disk, fault: drop}
  - {at: 1, do: message, link: fs->disk, fault: delay, ms: 5}
  - {at: 1, do: message, link: writer->fs, fault: drop}
  - {at: 1, do: kill, target: disk}
checkers: [kernel_alive]
"""


@pytest.fixture
def file(tmp_path: Path) -> ExperimentFile:
    (tmp_path / "system.yaml").write_text(SYSTEM)
    path = tmp_path / "experiment.yaml"
    path.write_text(EXPERIMENT)
    return load(path)


def test_a_link_has_one_interposer_whatever_happens_on_it(file: ExperimentFile) -> None:
    whole, through = with_cast(file)
    assert through == {("fs", "disk"): "fs-disk-2", ("writer", "fs"): "writer-fs"}
    servers = whole.manifest.servers
    assert set(servers) == {"disk", "fs", "fs-disk", "writer", "fs-disk-2", "writer-fs"}
    middle = servers["fs-disk-2"]
    assert (middle.serves, list(middle.calls)) == ("block", ["disk"])
    assert middle.args == {"to": "disk", "serves": "block"}


def test_an_interposer_stands_for_the_object_that_its_caller_may_call(tmp_path: Path) -> None:
    given = "calls: [{disk: {badge: 3}}]"
    (tmp_path / "system.yaml").write_text(SYSTEM.replace("calls: [disk]", given))
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    servers = with_cast(load(tmp_path / "experiment.yaml"))[0].manifest.servers
    middle = servers["fs-disk-2"]
    assert (middle.calls["disk"].badge, middle.args["badge"]) == (3, 3)


def test_an_interposer_starts_between_its_callee_and_its_caller(file: ExperimentFile) -> None:
    order = start_order(with_cast(file)[0].manifest)
    assert order.index("disk") < order.index("fs-disk-2") < order.index("fs")


def test_a_client_may_call_its_server_and_nobody_else(file: ExperimentFile) -> None:
    client = with_clients(file).servers["writer"]
    assert (list(client.calls), client.start, client.restart.when) == (["fs"], "demand", "never")


def test_the_system_itself_stays_as_it_was(file: ExperimentFile) -> None:
    with_cast(file)
    servers = file.system.manifest.servers
    assert set(servers) == {"disk", "fs", "fs-disk"}
    assert list(servers["fs"].calls) == ["disk"]


def test_names_are_as_long_as_they_may_be_and_all_different() -> None:
    long = "a" * 20 + "-" + "b" * 20
    first = free_name(long, ())
    second = free_name(long, {first})
    assert free_name("fs-disk", ()) == "fs-disk"
    assert first != second
    assert {len(first), len(second)} == {32}
