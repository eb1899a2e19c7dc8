"""kv is killed at any moment: what `state:` promises its next life has, it has, and done once."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.config import load
from launcher.system import BootError, System
from tests.journey.test_kills import Killer
from tests.journey.world import Pipes, wait_for
from ukernel.abi.syscalls import READY

MEMORY = """
system: kv
servers:
  kv:
    run: servers.kv
    serves: kv
    state: STATE
    args: {remember: 20000}
    restart: {max_restarts: 1000, backoff: {first_ms: 0}}
  adder: {run: tests.journey.tasks.adder, calls: [kv], start: demand}
"""

DISK = """
system: kv
hardware:
  disk0: {model: virtio-blk, image: disk.img, size: 8MiB}
servers:
  disk:
    run: servers.disk
    serves: block
    devices: [disk0]
    restart: {max_restarts: 1000, backoff: {first_ms: 0}}
  fs:
    run: servers.fs
    serves: file
    calls: [disk]
    state: disk
    args: {format_if_blank: true}
    restart: {max_restarts: 1000, backoff: {first_ms: 0}}
  kv:
    run: servers.kv
    serves: kv
    calls: [fs]
    state: disk
    args: {remember: 20000, journal: JOURNAL}
    restart: {max_restarts: 1000, backoff: {first_ms: 0}}
  adder: {run: tests.journey.tasks.adder, calls: [kv], start: demand}
"""

KILLS = 8  # of each victim
ROUNDS = 20  # that the adder is told to make at once

pytestmark = pytest.mark.usefixtures("runtime_dir")


def in_memory(folder: Path, state: str) -> Path:
    path = folder / "kv.yaml"
    path.write_text(MEMORY.replace("STATE", state))
    return path


def on_disk(folder: Path, journal: str = "/kv/journal") -> Path:
    path = folder / "kv.yaml"
    path.write_text(DISK.replace("JOURNAL", journal))
    return path


def rounds_while_killing(system: System, victims: tuple[str, ...]) -> list[str]:
    """What an adder says of its rounds, with the victims dying all the time."""
    killer, adder = Killer(system, victims, 3), Pipes(system, "adder", [])
    assert adder.hear() == "0"
    said = []
    while not all(count >= KILLS for count in killer.kills.values()):
        said.append(adder.ask(str(ROUNDS)))
        for _ in range(ROUNDS - 1):
            killer.act()
            said.append(adder.hear())
    adder.close()
    for name in victims:
        wait_for(system, lambda name=name: system.tasks[name].state == READY)  # type: ignore[misc]
    return said


def said_again(system: System, count: int) -> tuple[int, list[str]]:
    """The number that a new adder finds, and what so many rounds say of theirs."""
    adder = Pipes(system, "adder", [])
    found = int(adder.hear())
    said = [adder.ask(str(count)), *(adder.hear() for _ in range(count - 1))]
    adder.close()
    return found, [line.split()[0] for line in said]


def sums(count: int) -> list[str]:
    """What so many rounds say when each is done once."""
    return [str(number * (number + 1) // 2) for number in range(1, count + 1)]


def test_a_kept_region_loses_no_change_and_does_none_twice(tmp_path: Path) -> None:
    with System(load(in_memory(tmp_path, "persistent"))) as system:
        system.boot()
        said = rounds_while_killing(system, ("kv",))
        wanted = sums(len(said))
        assert said == [f"{number} kept" for number in wanted]
        for _ in range(2):
            assert said_again(system, len(said)) == (int(wanted[-1]), wanted)


@pytest.mark.parametrize("victims", [("kv",), ("kv", "fs"), ("kv", "fs", "disk")])
def test_a_journal_on_disk_loses_no_change_and_does_none_twice(
    tmp_path: Path, victims: tuple[str, ...]
) -> None:
    config = on_disk(tmp_path)
    with System(load(config)) as system:
        system.boot()
        said = rounds_while_killing(system, victims)
        wanted = sums(len(said))
        assert said == [f"{number} kept" for number in wanted]
    with System(load(config)) as system:
        system.boot()
        for _ in range(2):
            assert said_again(system, len(said)) == (int(wanted[-1]), wanted)


def test_without_state_the_next_life_has_nothing(tmp_path: Path) -> None:
    with System(load(in_memory(tmp_path, "stateless"))) as system:
        system.boot()
        said = rounds_while_killing(system, ("kv",))
        wanted = sums(len(said))
        assert said != [f"{number} kept" for number in wanted]
        found, _ = said_again(system, 1)
        assert found < int(wanted[-1])


def test_a_state_that_it_cannot_have_is_refused_for_good(tmp_path: Path) -> None:
    text = r"servers\.kv\.state: client_held is not for kv; choose one of .* \(.*kv\.yaml:\d+\)"
    with System(load(in_memory(tmp_path, "client_held"))) as system:
        with pytest.raises(BootError, match=text):
            system.boot()
        assert system.tasks["kv"].life == 1


def test_a_journal_that_is_a_directory_is_refused_for_good(tmp_path: Path) -> None:
    with System(load(on_disk(tmp_path, "/"))) as system:
        with pytest.raises(BootError, match=r"servers\.kv\.args\.journal: .*IsADirectory"):
            system.boot()
        assert system.tasks["kv"].life == 1
