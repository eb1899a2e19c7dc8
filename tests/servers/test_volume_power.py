"""A power cut at every device operation of a workload: what was answered is there, always."""

from __future__ import annotations

import pytest

from servers.fs.volume import Volume
from tests.servers.disk import Disk, PowerCut
from tests.servers.driver import behind
from tests.servers.model import Model, Tree, tree_of

SECTORS = 4096
Step = tuple[str, tuple[object, ...]]

WORKLOAD: list[Step] = [
    ("create", ("/a", True)),
    ("write", ("/a", 0, b"small enough to live in the directory")),
    ("mkdir", ("/d",)),
    ("create", ("/d/b", True)),
    ("write", ("/d/b", 0, bytes(range(256)) * 160)),
    ("write", ("/d/b", 10_000, b"in the middle" * 500)),
    ("write", ("/a", 3000, b"beyond the end: no longer in the directory")),
    ("rename", ("/a", "/c")),
    ("rename", ("/c", "/d/c")),
    ("create", ("/e", True)),
    ("write", ("/e", 0, b"e" * 9000)),
    ("rename", ("/e", "/d/b")),
    ("truncate", ("/d/b", 4000)),
    ("truncate", ("/d/b", 20_000)),
    ("mkdir", ("/d/empty",)),
    ("rename", ("/d", "/moved")),
    ("remove", ("/moved/empty",)),
    ("create", ("/moved/c", True)),
    ("remove", ("/moved/b",)),
    *[("create", (f"/moved/{n:03}", True)) for n in range(12)],
    *[("write", (f"/moved/{n:03}", 0, b"%d" % n * 400)) for n in range(12)],
    *[("remove", (f"/moved/{n:03}",)) for n in range(0, 12, 2)],
]


def states() -> list[Tree]:
    """The tree before each step, and after the last."""
    model, seen = Model(), []
    for name, arguments in WORKLOAD:
        seen.append(dict(model.tree))
        getattr(model, name)(*arguments)
    return [*seen, model.tree]


def run(volume: Volume) -> int:
    """Do the steps until the power goes; how many were answered."""
    for done, (name, arguments) in enumerate(WORKLOAD):
        try:
            getattr(volume, name)(*arguments)
        except PowerCut:
            return done
    return len(WORKLOAD)


def fresh() -> Disk:
    disk = Disk(SECTORS)
    Volume.mount(disk, True).unmount()
    return disk.after_power_cut(0)


def test_the_workload_ends_as_the_model_says() -> None:
    volume = Volume.mount(fresh(), False)
    assert run(volume) == len(WORKLOAD)
    assert tree_of(volume) == states()[-1]


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_at_every_operation_loses_nothing_answered(seed: int) -> None:
    expected, blank = states(), fresh()
    for cut in range(1, 10_000):
        disk = blank.after_power_cut(0)
        disk.fail_at(cut, PowerCut, for_good=True)
        try:
            done = run(Volume.mount(behind(disk, cut) if seed % 2 else disk, False))
        except PowerCut:
            done = 0
        if disk.operations < cut:
            break
        survivor = Volume.mount(disk.after_power_cut(seed * 10_000 + cut), False)
        assert tree_of(survivor) in expected[done : done + 2], (cut, WORKLOAD[done:][:1])
        survivor.create("/usable", True)
        assert survivor.write("/usable", 0, b"y" * 5000) == 5000
    assert cut > 100


@pytest.mark.parametrize("seed", range(8))
def test_a_cut_while_formatting_leaves_a_disk_that_can_be_used(seed: int) -> None:
    for cut in range(1, 100):
        disk = Disk(SECTORS)
        disk.fail_at(cut, PowerCut, for_good=True)
        try:
            Volume.mount(disk, True)
        except PowerCut:
            again = Volume.mount(disk.after_power_cut(seed), True)
            assert tree_of(again) == {}
            continue
        return
    pytest.fail("formatting never came to an end")
