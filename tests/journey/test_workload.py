"""Clients of an experiment work while servers are killed, and write down what became of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from launcher.chaos import history
from launcher.chaos.evidence import INFO, OK, Operation
from launcher.config import load
from launcher.system import System
from launcher.tasks import Task
from tests.journey.world import wait_for
from ukernel.abi.syscalls import READY

CONFIG = """
system: workload
hardware:
  disk0: {model: virtio-blk, image: disk.img, size: 32MiB}
  con0: {model: virtio-console}
  clock: {model: timer}
  rng0: {model: virtio-rng, seed: 1}
servers:
  disk:
    run: servers.disk
    serves: block
    devices: [disk0]
    restart: {max_restarts: 1000, backoff: {first_ms: 0}}
  console: {run: servers.console, serves: console, devices: [con0]}
  timer: {run: servers.timer, serves: timer, devices: [clock]}
  rng: {run: servers.rng, serves: entropy, devices: [rng0]}
  echo: {run: servers.echo, serves: echo}
  fs:
    run: servers.fs
    serves: file
    calls: [disk]
    state: persistent
    args: {format_if_blank: true}
    restart: {max_restarts: 1000, backoff: {first_ms: 0}}
  workload: {run: servers.workload, calls: [fs, console, timer, rng, echo], start: demand}
"""
SIZE = f"size={1 << 20}"
RUNS = {
    "writer": ["files", "writer", "to=fs", "files=8", "size=20000", "seed=7"],
    "reader": ["read", "reader", "to=fs", SIZE],
    "echoer": ["echo", "echoer", "to=echo"],
    "watch": ["clock", "watch", "to=timer"],
    "gambler": ["entropy", "gambler", "to=rng"],
    "talker": ["console", "talker", "to=console"],
}
KILLS = ("fs", "disk", "fs", "disk")
PATIENCE_S = 0.02  # between two looks at what the clients have written
AT_LEAST = 10  # operations of every client between two kills


class Client:
    """A client at work, from `run_task` to the end of its input."""

    def __init__(self, system: System, argv: list[str], output: Path) -> None:
        self.system = system
        self.output = output
        theirs, self._input = os.pipe()
        self.task: Task = start(system, argv, output, theirs)
        os.close(theirs)

    def told(self, outcome: str) -> int:
        """How many operations have ended so."""
        return self.output.read_text().count(f'"do": "{outcome}"')

    def close(self) -> None:
        os.close(self._input)
        wait_until_gone(self.system, self.task)


def start(system: System, argv: list[str], output: Path, input_fd: int) -> Task:
    with output.open("wb") as out:
        return system.run_task("workload", argv, (input_fd, out.fileno(), 2))


def run(system: System, argv: list[str], output: Path) -> Path:
    """A command that needs no input, to its end."""
    with open(os.devnull, "rb") as nothing:
        task = start(system, argv, output, nothing.fileno())
    wait_until_gone(system, task)
    assert task.status == 0
    return output


def wait_until_gone(system: System, task: Task) -> None:
    wait_for(system, lambda: task.process is None)


@pytest.fixture
def system(tmp_path: Path, runtime_dir: Path) -> Iterator[System]:
    config = tmp_path / "workload.yaml"
    config.write_text(CONFIG)
    with System(load(config)) as system:
        system.boot()
        yield system


def test_clients_work_through_kills_and_say_what_they_saw(system: System, tmp_path: Path) -> None:
    outputs = {name: tmp_path / name for name in RUNS}
    digest = history.prepared(run(system, ["prepare", *RUNS["reader"]], tmp_path / "prepared"))
    with ExitStack() as stack:
        clients = [Client(system, argv, outputs[name]) for name, argv in RUNS.items()]
        for client in clients:
            stack.callback(client.close)
        for victim in KILLS:
            let_work(clients)
            kill(system, victim)
        let_work(clients)
    assert [client.task.status for client in clients] == [0] * len(clients)
    seen = {name: history.read(path, name) for name, path in outputs.items()}
    for name, operations in seen.items():
        assert {(op.outcome, op.error) for op in operations} == {(OK, "")}, name
        ended = history.ended(outputs[name])
        assert ended is not None
        assert ended["ok"] >= len(operations)
        assert ended["failed"] == ended["unknown"] == 0
    assert {op.value for op in seen["reader"]} == {digest}
    check_light_runs(seen)
    check_bulk_progress(outputs["reader"], len(seen["reader"]))
    check_files(seen["writer"])
    there = history.found(run(system, ["verify", *RUNS["writer"]], tmp_path / "found"))
    assert there == {op.key: op.value for op in seen["writer"] if op.op == "write"}


def let_work(clients: list[Client]) -> None:
    """Until every client has made some more good operations."""
    goals = [(client, client.told(OK) + AT_LEAST) for client in clients]
    wait_for(clients[0].system, lambda: all(c.told(OK) >= n for c, n in goals), PATIENCE_S)


def kill(system: System, name: str) -> None:
    """SIGKILL, and wait until the next life serves."""
    task, life = system.tasks[name], system.tasks[name].life
    system.signal(name, signal.SIGKILL)
    wait_for(system, lambda: task.life > life and task.state == READY)


def pause(system: System, name: str, clients: list[Client]) -> None:
    """SIGSTOP, until every client has waited in vain."""
    before = [(client, client.told(INFO)) for client in clients]
    system.signal(name, signal.SIGSTOP)
    wait_for(system, lambda: all(c.told(INFO) > count for c, count in before), PATIENCE_S)
    with suppress(LookupError):  # taken for hung, it may have been ended meanwhile
        system.signal(name, signal.SIGCONT)


def check_light_runs(seen: dict[str, list[Operation]]) -> None:
    assert all(op.key == f"echoer.{op.value}" for op in seen["echoer"])
    shown = [int(op.value) for op in seen["watch"]]
    assert shown == sorted(shown)
    assert {op.op for op in seen["watch"]} == {"now", "sleep"}
    assert {len(op.value) for op in seen["gambler"]} == {32}
    assert [op.value.rstrip(".") for op in seen["talker"]] == [
        f"talker {number}" for number in range(len(seen["talker"]))
    ]


def check_bulk_progress(output: Path, passes: int) -> None:
    moved = history.moved(output)
    assert moved == sorted(moved)
    assert 0 < moved[-1].moved_bytes <= passes << 20


def check_files(operations: list[Operation]) -> None:
    """Every read brought what was written last."""
    written: dict[str, str] = {}
    for op in operations:
        if op.op == "write":
            assert written.get(op.key) != op.value
            written[op.key] = op.value
        else:
            assert op.value == written[op.key]
    assert {op.op for op in operations} == {"write", "read"}


def test_what_a_deadline_cut_short_is_in_doubt_and_harms_nothing_else(
    system: System, tmp_path: Path
) -> None:
    hasty = {name: [*RUNS[name], "timeout_ms=100"] for name in ("writer", "reader")}
    digest = history.prepared(run(system, ["prepare", *RUNS["reader"]], tmp_path / "prepared"))
    with ExitStack() as stack:
        clients = [Client(system, argv, tmp_path / name) for name, argv in hasty.items()]
        for client in clients:
            stack.callback(client.close)
        for _ in range(3):
            let_work(clients)
            pause(system, "fs", clients)
        let_work(clients)
    passes = history.read(tmp_path / "reader", "reader")
    assert {op.value for op in passes if op.outcome == OK} == {digest}
    possible = explained(history.read(tmp_path / "writer", "writer"))
    there = history.found(run(system, ["verify", *RUNS["writer"]], tmp_path / "found"))
    assert there is not None
    assert there.keys() <= possible.keys()
    assert all(there.get(key, "") in values for key, values in possible.items())


def explained(operations: list[Operation]) -> dict[str, set[str]]:
    """What each file may hold in the end; on the way, that no read saw anything else."""
    possible: dict[str, set[str]] = {}
    for op in operations:
        values = possible.setdefault(op.key, {""})
        if op.op == "read":
            assert op.outcome != OK or op.value in values
        elif op.outcome == OK:
            possible[op.key] = {op.value}
        elif op.outcome == INFO:
            values.add(op.value)
    return possible


def test_a_refused_command_line_says_how_to_write_it(system: System, tmp_path: Path) -> None:
    with open(os.devnull, "rb") as nothing, (tmp_path / "err").open("wb") as errors:
        for status, argv in ((1, ["read", "reader", "to=disk"]), (2, ["dance", "reader"])):
            task = system.run_task("workload", argv, (nothing.fileno(), 1, errors.fileno()))
            wait_until_gone(system, task)
            assert task.status == status
    refused, usage = (tmp_path / "err").read_text().splitlines()
    assert "add disk to servers.workload.calls" in refused
    assert "RUN is files, kv, read" in usage
