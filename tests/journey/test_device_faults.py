"""Devices break under running drivers: no request is lost, and no driver waits for ever."""

from __future__ import annotations

import hashlib
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.config import load
from launcher.job import Job
from launcher.system import System
from tests.journey.world import sources, wait_for
from ukernel.abi.errors import DeadlinePassed
from ukernel.abi.faults import (
    IO_ERROR,
    LOST_INTERRUPT,
    NO_ROOM,
    SPURIOUS_INTERRUPT,
    STUCK,
    TORN_WRITE,
    DeviceFaults,
    NoSuchDevice,
    NoSuchFault,
)
from ukernel.abi.services import Console, Entropy, Timer
from ukernel.abi.syscalls import READY

MACHINE = "machine"
ALWAYS, SEED = 1.0, 7
SLEEP_NS = 50_000_000  # a call takes less, mostly: then the timer has to ring
CONFIG = """
system: faulty
hardware:
  disk0: {model: virtio-blk, image: disk.img, size: 8MiB}
  con0: {model: virtio-console}
  clock: {model: timer}
  rng0: {model: virtio-rng}
servers:
  disk: {run: servers.disk, serves: block, devices: [disk0], args: {request_timeout_s: DISK_S}}
  console: {run: servers.console, serves: console, devices: [con0]}
  timer: {run: servers.timer, serves: timer, devices: [clock]}
  rng: {run: servers.rng, serves: entropy, devices: [rng0], args: {request_timeout_s: 0.1}}
  fs: {run: servers.fs, serves: file, calls: [disk], args: {format_if_blank: true}, state: disk}
  shell: {run: servers.shell, calls: [fs], start: demand}
"""


@pytest.fixture
def system(tmp_path: Path, runtime_dir: Path, disk_s: str) -> Iterator[System]:
    config = tmp_path / "faulty.yaml"
    config.write_text(CONFIG.replace("DISK_S", disk_s))
    with System(load(config)) as system:
        system.boot()
        yield system


@pytest.fixture
def disk_s() -> str:
    """How long a request may take the disk. Ample: a busy host is no broken device."""
    return "30"


def machine_faults(system: System) -> DeviceFaults:
    """What the machine can be asked to break."""
    return system.reach(DeviceFaults, MACHINE)


def landed(system: System) -> dict[tuple[str, str], int]:
    """How often each fault of each device has happened."""
    return {(where, fault): times for where, fault, times in machine_faults(system).broken()}


def restarts(system: System) -> dict[str, int]:
    return {name: task.restarts for name, task in system.tasks.items() if task.restarts}


def put_and_check(system: System, folder: Path) -> None:
    """Write files and read them back."""
    files = sources(folder / "src", [f"f{n}" for n in range(12)], 1)
    wanted = {path: hashlib.sha256(file.read_bytes()).hexdigest() for path, file in files.items()}
    commands = [f"put {file} {path}" for path, file in files.items()]
    with Job(system, [*commands, *(f"sha256 {path}" for path in files)]) as job:
        assert job.run() == 0
        assert job.digests == wanted


@pytest.mark.parametrize("probability", [ALWAYS, 0.5])
@pytest.mark.parametrize("fault", [LOST_INTERRUPT, SPURIOUS_INTERRUPT])
def test_files_are_written_whatever_the_line_does(
    system: System, tmp_path: Path, fault: str, probability: float
) -> None:
    machine_faults(system).break_device("disk0", fault, 0, probability, SEED)
    put_and_check(system, tmp_path)
    assert landed(system)["disk0", fault] > 0
    assert restarts(system) == {}


@pytest.mark.parametrize("fault", [LOST_INTERRUPT, SPURIOUS_INTERRUPT])
def test_the_other_drivers_do_not_need_their_line_either(system: System, fault: str) -> None:
    for device in ("con0", "clock", "rng0"):
        machine_faults(system).break_device(device, fault, 0, ALWAYS, SEED)
    entropy, console = system.reach(Entropy, "rng"), system.reach(Console, "console")
    # More than the entropy driver has buffers; and not every request needs the line: a driver that
    # is awake finds what is done by itself.
    for number in itertools.count():
        if number >= 10 and all(landed(system)[device, fault] for device in ("con0", "rng0")):
            break
        assert len(entropy.read(16)) == 16
        assert console.write(f"line {number}\n".encode()) == len(f"line {number}\n")
    timer = system.reach(Timer, "timer")
    while not landed(system)["clock", fault]:
        due = timer.now() + SLEEP_NS
        assert timer.sleep_until(due) >= due
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as terminal:
        terminal.connect(str(system.run.path / "con0.sock"))
        terminal.send(b"typed\n")
        assert console.read(64) == b"typed\n"
    assert restarts(system) == {}


@pytest.mark.parametrize("disk_s", ["0.1"])
def test_a_stuck_request_costs_the_driver_one_life_and_nobody_a_file(
    system: System, tmp_path: Path
) -> None:
    machine_faults(system).break_device("disk0", STUCK, 1, ALWAYS, SEED)
    put_and_check(system, tmp_path)
    assert landed(system) == {("disk0", STUCK): 1}
    assert restarts(system) == {"disk": 1}
    assert "disk0 keeps a request of queue 0" in system.run.log("disk").read_text()


def test_a_stuck_request_ends_with_an_error_when_it_is_mended(
    system: System, tmp_path: Path
) -> None:
    faults = machine_faults(system)
    faults.break_device("disk0", STUCK, 1, ALWAYS, SEED)

    def mend() -> float:
        if landed(system)["disk0", STUCK]:
            faults.mend()
        return 0.01

    [(path, file)] = sources(tmp_path / "one", ["file"], 2).items()
    with Job(system, [f"put {file} {path}"]) as job:
        assert job.run(mend) != 0
        assert job.lines[0]["error"] == "DeviceFailed"
    put_and_check(system, tmp_path)
    assert restarts(system) == {}


@pytest.mark.parametrize("fault", [IO_ERROR, TORN_WRITE, NO_ROOM])
def test_what_was_acknowledged_on_a_failing_disk_is_there(
    system: System, tmp_path: Path, fault: str
) -> None:
    files = sources(tmp_path / "src", [f"f{n}" for n in range(30)], 3)
    machine_faults(system).break_device("disk0", fault, 0, 0.1, SEED)
    with Job(system, [f"put {file} {path}" for path, file in files.items()]) as job:
        job.run()
    machine_faults(system).mend()
    assert landed(system)["disk0", fault] > 0
    outcomes = [line for line in job.lines if line.get("command") == "put"]
    assert len(outcomes) == len(files)
    written = [path for path, line in zip(files, outcomes, strict=True) if "error" not in line]
    with Job(system, [f"sha256 {path}" for path in written]) as check:
        assert check.run() == 0
        for path in written:
            assert check.digests[path] == hashlib.sha256(files[path].read_bytes()).hexdigest()
    put_and_check(system, tmp_path)
    assert "disk" not in restarts(system)


def test_a_driver_whose_device_is_silent_begins_anew(system: System) -> None:
    machine_faults(system).break_device("rng0", STUCK, 1, ALWAYS, SEED)
    entropy = system.reach(Entropy, "rng")
    with pytest.raises(DeadlinePassed):  # we do not restart anybody while we wait
        entropy.read(16)
    wait_for(system, lambda: restarts(system) == {"rng": 1})
    wait_for(system, lambda: system.tasks["rng"].state == READY)
    assert len(entropy.read(16)) == 16


def test_what_cannot_be_broken_is_refused(system: System) -> None:
    faults = machine_faults(system)
    with pytest.raises(NoSuchDevice, match="no device 'disk1', only disk0, con0, clock, rng0"):
        faults.break_device("disk1", STUCK, 1, ALWAYS, SEED)
    with pytest.raises(NoSuchFault, match="clock cannot break by 'stuck'"):
        faults.break_device("clock", STUCK, 1, ALWAYS, SEED)
    assert faults.broken() == []


def test_no_driver_can_ask_for_faults(system: System) -> None:
    machine_faults(system)
    rows = [row for row in system.caps() if row.object == MACHINE and row.badge == 0]
    assert {row.holder.partition("#")[0] for row in rows} <= {"kernel", "root", MACHINE}
