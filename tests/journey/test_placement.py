"""The same servers in one process, in several, and each in its own: what differs is who dies."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from launcher.config import load
from launcher.job import Job
from launcher.requests import perform
from launcher.system import System
from tests.conftest import CONFIGS, Ukernel
from tests.journey.tasks.neighbours import SCENES, High, Low
from tests.journey.world import sources, wait_for
from ukernel.abi import wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import READY, STOPPED

TASKS = "tests.journey.tasks.neighbours"
NEIGHBOURS = f"""
system: neighbours
servers:
  low: {{run: {TASKS}, serves: "{TASKS}:Low", args: {{role: low}}}}
  side: {{run: {TASKS}, serves: "{TASKS}:Low", args: {{role: side}}}}
  shelf: {{run: {TASKS}, serves: "{TASKS}:Low", args: {{role: shelf}}}}
  high:
    run: {TASKS}
    serves: "{TASKS}:High"
    calls: [low, side, {{shelf: {{badge: 7}}}}]
    args: {{role: high}}
  top: {{run: {TASKS}, serves: "{TASKS}:High", calls: [high], args: {{role: top}}}}
groups:
  pair: [high, low]
"""
HOWS = ("micro", "hybrid", "mono")


@contextmanager
def neighbours(tmp_path: Path, placement: str) -> Iterator[System]:
    config = tmp_path / "neighbours.yaml"
    config.write_text(NEIGHBOURS)
    with System(load(config), placement=placement) as system:
        system.boot()
        yield system


def pid_of(system: System, name: str) -> int:
    process = system.task(name).process
    assert process is not None
    return process.pid


def post(system: System, name: str, what: str) -> int:
    """Begin `tell(what)` of a server, as the launcher; its number."""
    assert system.kernel is not None
    system.reach(High, name)
    token = system._reached[name, 0]
    return system.kernel.connection.post(token, 1, wire.pack([what]))


def outcome(system: System, number: int) -> Any:
    """What came of it: a text, or the code that stands in its place."""
    assert system.kernel is not None
    line, replies = system.kernel.connection, list[wire.Message]()

    def come() -> bool:
        replies.extend(m for m in [line.collected(number)] if m is not None)
        return bool(replies)

    wait_for(system, come, patience_s=0.01)
    return Code(replies[0].status) if replies[0].status else wire.unpack(replies[0].body)


def test_calls_come_out_the_same_wherever_the_callee_lives(
    tmp_path: Path, runtime_dir: Path
) -> None:
    told: dict[str, dict[str, str]] = {}
    for how in HOWS:
        with neighbours(tmp_path, how) as system:
            alone = len({pid_of(system, name) for name in ("low", "high", "side", "top")})
            assert alone == {"micro": 4, "hybrid": 3, "mono": 1}[how]
            high = system.reach(High, "high")
            told[how] = {scene: high.tell(scene) for scene in SCENES if scene != "bug"}
            gift = high.give("gift")
            assert gift.name() == "gift"  # a thing of `low`, in the hands of a third,
            assert system.reach(Low, "side").ask(gift) == "gift"  # who lends it to a fourth
            assert system.reach(Low, "low").things() == ["gift"]
    assert told["mono"] == told["micro"]
    assert told["hybrid"] == told["micro"]
    assert told["micro"]["two at once"] == "(8, 4)"
    assert told["micro"]["an object that the file gives"] == "(12, [7], 5, 'kept')"
    assert "at its deadline" in told["micro"]["too late"]


def test_who_needs_a_busy_member_waits_and_the_others_do_not(
    tmp_path: Path, runtime_dir: Path
) -> None:
    with neighbours(tmp_path, "mono") as system:
        numbers = [post(system, name, what) for name, what in HASTE]
        assert [outcome(system, number) for number in numbers] == ["(8, 4)", "top: 3", "3"]


HASTE = (("high", "two at once"), ("top", "later"), ("high", "later"))


def test_a_bug_ends_the_whole_process_however_careless_its_caller_is(
    tmp_path: Path, runtime_dir: Path
) -> None:
    for how, dead in (("micro", {"low"}), ("hybrid", {"low", "high"})):
        with neighbours(tmp_path, how) as system:
            said = outcome(system, post(system, "high", "bug"))
            assert said == (repr("DeadUnknown") if how == "micro" else Code.E_DEAD_UNKNOWN)
            wait_for(system, lambda: all(system.task(n).state == READY for n in system.tasks))
            assert {name for name, task in system.tasks.items() if task.life == 2} == dead
            assert "a bug of low" in system.run.log("low").read_text()
            assert system.reach(High, "top").tell("add") == "top: 5"


@pytest.mark.parametrize("how", ["hybrid", "mono"])
def test_files_survive_the_death_of_the_process_that_they_go_through(
    how: str, tmp_path: Path, runtime_dir: Path
) -> None:
    config = tmp_path / "storage.yaml"
    text = (CONFIGS / "storage.yaml").read_text()
    config.write_text(text + "\ngroups: {files: [fs, disk], rest: [console, timer, rng]}\n")
    files = sources(tmp_path / "files", ["one", "two", "three"], seed=8)
    digests = {path: hashlib.sha256(file.read_bytes()).hexdigest() for path, file in files.items()}
    house = {"disk", "fs"} if how == "hybrid" else {"disk", "fs", "console", "timer", "rng"}
    with System(load(config), placement=how) as system:
        system.boot()
        pids = {name: pid_of(system, name) for name in (*house, "machine", "timer")}
        assert {name for name, pid in pids.items() if pid == pids["fs"]} == house
        with Job(system, [f"put {file} {path}" for path, file in files.items()]) as job:
            job.run(lambda: _strike(system, "disk", at=job.done("put")))
            again = (
                [] if job.done("put") == len(files) else [f"put {f} {p}" for p, f in files.items()]
            )
            assert job.calls("failed") == 0
        with Job(system, [*again, *(f"sha256 {path}" for path in files)]) as check:
            assert check.run() == 0
            assert check.digests == digests
        rows = system.slots()
        assert {name for name, row in rows.items() if row.life == 2 and row.pid} == house
        assert len({rows[name].pid for name in house}) == 1
        told = {event.who for event in system.events if event.kind == "died"}
        assert {f"{name}#1" for name in house} <= told


def _strike(system: System, name: str, at: int) -> float:
    """Kill a server once, when so much is done; when to look again, in seconds."""
    if at and system.task(name).life == 1 and system.task(name).state == READY:
        system.signal(name, 9)
    return 0.005


def test_what_is_done_to_one_is_done_to_all_of_its_process_and_said(
    tmp_path: Path, runtime_dir: Path
) -> None:
    config = tmp_path / "pair.yaml"
    config.write_text(PAIR)
    with System(load(config), placement="mono") as system:
        system.boot()
        assert perform(system, ["kill", "far", int(signal.SIGCONT)], []) == {
            "life": 1,
            "with": ["near"],
        }
        assert settled(system, "restart", "far") == {"life": 2, "with": ["near"]}
        assert settled(system, "stop", "near") == {"life": 2, "with": ["far"]}
        assert {row.state for row in system.slots().values() if row.name != "root"} == {STOPPED}


def settled(system: System, *request: str) -> Any:
    """What comes of a request in the end."""
    later, found = perform(system, list(request), []), list[Any]()

    def come() -> bool:
        found[:] = [later.outcome()]
        return found != [None]

    wait_for(system, come, patience_s=0.01)
    return found[0]


def test_the_command_line_says_where_servers_live(ukernel: Ukernel, tmp_path: Path) -> None:
    config = tmp_path / "pair.yaml"
    config.write_text(PAIR)
    table = ukernel("up", str(config), "--placement", "mono", "--for", "0").stdout
    pids = {line.split()[1] for line in table.splitlines() if line.startswith(("near", "far"))}
    assert len(pids) == 1


PAIR = """
system: pair
servers:
  near: {run: servers.echo, serves: echo, standby: true}
  far: {run: servers.echo, serves: echo}
"""
