"""Worlds to attack. Each is checked when its test is over: nobody else may have noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adversary.world import ROOT, World, system_of
from tests.conftest import own_runtime_dir

PLAIN = """
  target: {run: servers.echo, serves: echo, start: demand}
  attacker: {run: servers.client, calls: [{echo: {rights: [call, grant]}}, target], start: demand}
  victim: {run: servers.client, calls: [echo, {target: {rights: [call, grant]}}], start: demand}
  outsider: {run: servers.client, start: demand}
"""

WorldMaker = Callable[[str], World]


@pytest.fixture
def make_world(
    runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WorldMaker]:
    """Boots a system of the bystanders and the given servers; checks it at the end."""
    monkeypatch.chdir(ROOT)  # the programs of the tasks are modules of the tests
    made: list[World] = []

    def make(servers: str) -> World:
        made.append(World(system_of(tmp_path, servers)))
        return made[-1]

    yield make
    try:
        for world in made:
            if world.system.kernel is not None:
                world.check()
    finally:
        for world in made:
            world.close()


@pytest.fixture
def world(make_world: WorldMaker) -> World:
    return make_world(PLAIN)


@contextmanager
def shared_world(folder: Path, servers: str) -> Iterator[World]:
    """One world for many tests, each of which has tasks of its own in it and checks it."""
    with own_runtime_dir(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        world = World(system_of(folder, servers))
        try:
            yield world
        finally:
            world.close()
