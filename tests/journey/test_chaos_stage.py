"""A stage: whom a fault may meet at this moment, and what is put right after scripts cut short."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest

from launcher.board import MACHINE
from launcher.chaos.disturbances import Hold
from launcher.chaos.experiment import load
from launcher.chaos.injecting import Injecting, OutOfReach
from launcher.chaos.plan import plan
from launcher.chaos.rollbacks import roll_back
from launcher.chaos.stage import Stage
from launcher.chaos.targets import ready
from launcher.process import Process
from tests.journey.experiments import STORAGE, WRITER, experiment, nothing_left
from ukernel.abi.errors import DeadlinePassed
from ukernel.abi.faults import DROP, STUCK, DeviceFaults, Interposer
from ukernel.abi.services import Block, Entropy

LINK = "fs->disk"
NEMESIS = [
    {"at": 0, "do": "message", "link": LINK, "fault": DROP},
    {"at": 0, "do": "pause", "target": "echo", "for": "1s"},
]
BOTH = ("resume_all", "clear_faults")


@pytest.fixture
def stage(tmp_path: Path, runtime_dir: Path) -> Iterator[Stage]:
    file = load(
        experiment(tmp_path, STORAGE, workload=[WRITER], nemesis=NEMESIS, checkers=["kernel_alive"])
    )
    with (
        nothing_left(),
        Stage(file, tmp_path, lambda kind, who, text: None, lambda selector: nullcontext()) as made,
    ):
        yield made


def process_of(stage: Stage, name: str) -> Process:
    process = stage.task(name).process
    assert process is not None
    return process


def kill(stage: Stage, name: str) -> None:
    """Until its next life is READY."""
    life = stage.life(stage.task(name))
    process_of(stage, name).send(signal.SIGKILL)
    while not (stage.is_past(life) and stage.is_ready(name)):
        stage.pump(0.1)


def may_be_met(stage: Stage, *names: str, held: bool = False) -> bool:
    """Whether something may be done to these servers now."""
    try:
        next(ready(stage, names, held=held))
    except StopIteration:
        return True
    return False


def test_who_is_dead_and_not_yet_missed_is_met_by_nothing(stage: Stage) -> None:
    assert may_be_met(stage, "echo", "rng")
    process = process_of(stage, "echo")
    process.send(signal.SIGKILL)
    select.select([process.fd], [], [])
    assert not may_be_met(stage, "echo")
    assert not may_be_met(stage, "rng", "echo")
    while not may_be_met(stage, "echo"):
        stage.pump(0.1)
    assert stage.life(stage.task("echo")) == ("echo", 2)
    assert stage.is_past(("echo", 1))
    assert not stage.is_past(("echo", 2))


def test_who_is_about_to_be_ended_by_others_is_met_by_nothing(stage: Stage) -> None:
    stage.system.lives.kill(stage.task("echo"), "hung: since yesterday")
    assert not may_be_met(stage, "echo")
    stage.system.stop("rng")
    assert not may_be_met(stage, "rng")
    while not stage.is_over("rng"):
        stage.pump(0.1)
    with pytest.raises(OutOfReach, match="rng had been given up, or stopped"):
        may_be_met(stage, "rng")


def test_a_life_meets_one_lethal_thing_and_who_is_suspended_only_a_kill(stage: Stage) -> None:
    echo = stage.task("echo")
    hold = Hold(stage, Injecting(plan(stage.file.experiment)[1]), echo)
    assert not may_be_met(stage, "echo")
    assert may_be_met(stage, "echo", held=True)
    hold.release()
    assert may_be_met(stage, "echo")
    stage.struck.add(stage.life(echo))
    assert not may_be_met(stage, "echo", held=True)


def test_what_is_released_is_the_life_that_was_held(stage: Stage) -> None:
    injecting = Injecting(plan(stage.file.experiment)[1])
    hold = Hold(stage, injecting, stage.task("echo"))
    assert injecting.ends.keys() == {("echo", 1)}
    kill(stage, "echo")
    second = Hold(stage, injecting, stage.task("echo"))
    os.waitid(os.P_PIDFD, process_of(stage, "echo").fd, os.WSTOPPED | os.WNOWAIT)
    hold.release()
    assert psutil.Process(process_of(stage, "echo").pid).status() == psutil.STATUS_STOPPED
    assert stage.held == {("echo", 2)}
    second.release()
    assert stage.held == set()


def test_rollbacks_put_right_what_was_left(stage: Stage) -> None:
    stage.system.signal("echo", signal.SIGSTOP)
    stage.task("timer").doomed = 3
    stage.task("timer").understudy = "servers.rogue"
    middle = stage.system.reach(Interposer, stage.middle(LINK))
    middle.disturb(DROP, 1.0, 0, 0, 1)
    stage.system.reach(DeviceFaults, MACHINE).break_device("rng0", STUCK, 0, 1.0, 1)
    disk = stage.system.reach(Block, stage.middle(LINK))
    roll_back(stage, ())
    with pytest.raises(DeadlinePassed):
        disk.capacity()
    roll_back(stage, BOTH)
    assert disk.capacity()
    assert len(stage.system.reach(Entropy, "rng").read(16)) == 16
    assert psutil.Process(process_of(stage, "echo").pid).status() != psutil.STATUS_STOPPED
    timer = stage.task("timer")
    assert (timer.doomed, timer.understudy) == (0, "")


def test_lives_are_counted_over_all_boots(stage: Stage) -> None:
    kill(stage, "echo")
    stage.struck.add(("rng", 1))  # it dies with the power: nothing is known of its end but that
    stage.reboot()
    assert stage.boots == 2
    assert stage.life(stage.task("echo")) == ("echo", 3)
    assert stage.life(stage.task("rng")) == ("rng", 2)
    assert [(r.server, r.life, r.cause) for r in stage.repairs()] == [
        ("echo", 1, "killed by SIGKILL"),
        ("rng", 1, "ended with the power"),
    ]
    assert stage.cut == {("echo", 1), ("rng", 1)}
