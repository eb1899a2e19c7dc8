"""When a guest runs: its share, its sleep, its ends. The machine is one that does as it is told."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.vmm.engine import Exit, Kind
from servers.vmm.machine import BadMachine, Machine
from servers.vmm.runner import RESET_EVERY_NS, Runner
from servers.vmm.settings import GUESTS, BadSettings, Settings
from servers.vmm.share import WINDOW_NS, Share
from ukernel.abi.vm import FAILED, HALTED, PAUSED, RUNNING

MS = 1_000_000


class Fake:
    """A Machine, its board and its engine in one."""

    def __init__(self) -> None:
        self.exits: list[Exit] = []
        self.ran: list[int] = []
        self.lines = 0
        self.soon: int | None = None
        self.halted = ""
        self.idle = True
        self.boots = 0
        self.resets = 0
        self.paused = True
        self.bad = ""
        self.wrongs = {"bus": 3}
        self.windows: list[Any] = [SimpleNamespace(device=SimpleNamespace(backlog=False))]
        self.board = self.engine = self

    def run(self, budget_us: int) -> Exit:
        assert not self.paused
        self.ran.append(budget_us)
        return self.exits.pop(0) if self.exits else Exit(Kind.SLICE)

    def boot(self) -> None:
        assert self.idle
        self.boots += 1
        if self.bad:
            raise BadMachine(self.bad)

    def poll(self) -> int | None:
        return self.soon

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def reset(self) -> None:
        self.resets += 1

    def work(self) -> bool:
        return False


@pytest.fixture
def machine() -> Fake:
    return Fake()


@pytest.fixture
def runner(machine: Fake) -> Runner:
    made = Runner(cast(Machine, machine), 100, lambda _: None)
    made.boot()
    made.resume()
    return made


def left(runner: Runner, machine: Fake, *exits: Exit) -> int:
    """Have it end like this; the time."""
    machine.exits[:] = exits
    at = time.monotonic_ns()
    for _ in exits:
        runner.turn(at)
    assert not machine.exits
    return at


def test_it_runs_in_slices_while_it_has_something_to_do(runner: Runner, machine: Fake) -> None:
    at = time.monotonic_ns()
    assert runner.due_ns(at) == at
    for _ in range(3):
        runner.turn(at)
    assert len(machine.ran) == 3
    assert all(0 < budget <= 3000 for budget in machine.ran)
    runner.pause()
    runner.turn(at)
    assert (len(machine.ran), runner.due_ns(at), runner.state) == (3, 0, PAUSED)


def test_it_sleeps_until_a_line_rises_or_its_timer_is_due(runner: Runner, machine: Fake) -> None:
    machine.lines = 0b01  # one that it does not want
    at = left(runner, machine, Exit(Kind.WFI))
    assert runner.due_ns(at) == 0
    machine.soon = 5 * MS
    assert runner.due_ns(at) == at + 5 * MS
    runner.turn(at)
    assert len(machine.ran) == 1
    machine.lines = 0b11
    assert runner.due_ns(at) == at
    left(runner, machine, Exit(Kind.WFI))
    assert runner.due_ns(at) == at + 5 * MS
    machine.lines = 0b01
    runner.due_ns(at)
    machine.lines = 0b11  # again
    assert runner.due_ns(at) == at
    left(runner, machine, Exit(Kind.WFI))
    machine.windows[0].device.backlog = True
    assert runner.due_ns(at) == at


def test_one_that_cannot_go_on_is_reset_but_not_too_often(runner: Runner, machine: Fake) -> None:
    machine.idle = False
    at = left(runner, machine, Exit(Kind.FAULT, "why"))
    assert (runner.due_ns(at), runner.settled) == (0, False)  # a device writes into its memory
    machine.idle = True
    runner.turn(at)
    assert (machine.boots, runner.resets, runner.faults, runner.state) == (2, 1, 1, RUNNING)
    left(runner, machine, Exit(Kind.FAULT, "why"))
    assert runner.due_ns(at) == at + RESET_EVERY_NS
    runner.pause()
    assert not runner.whole
    runner.resume()
    runner.turn(at + RESET_EVERY_NS - 1)
    assert runner.resets == 1
    runner.turn(at + RESET_EVERY_NS)
    assert (runner.resets, runner.faults) == (2, 2)
    left(runner, machine, Exit(Kind.HALT, "reset"))
    machine.bad = "the file is gone"
    runner.turn(at + 3 * RESET_EVERY_NS)
    assert (runner.state, runner.why, runner.faults) == (FAILED, "the file is gone", 2)


def test_one_that_is_off_stays_off(runner: Runner, machine: Fake) -> None:
    at = left(runner, machine, Exit(Kind.HALT, "pass"))
    assert (runner.state, runner.due_ns(at), runner.settled) == (HALTED, 0, True)
    machine.halted = "fail 3"
    runner.restored()
    assert runner.state == HALTED


@given(st.integers(1, 100), st.lists(st.integers(0, 20 * MS), min_size=1, max_size=60))
def test_nobody_gets_more_than_its_share(percent: int, waits: list[int]) -> None:
    """It always uses what it may, in slices of 3 ms, and waits so long between them."""
    share, at, used = Share(percent, 0), 0, 0
    for wait in waits:
        budget = share.budget_ns(at)
        if budget > 0:
            slice_ns = min(budget, 3 * MS)
            share.spent(slice_ns)
            used += slice_ns
            at += slice_ns
        ready = share.ready_ns(at)
        assert ready >= at
        at = max(ready, at) if wait == 0 else at + wait
        assert share.budget_ns(ready) > 0
        assert used <= (at + WINDOW_NS) * percent / 100 + 1


def test_settings() -> None:
    made = Settings.of({"image": "hello", "memory": "4MiB", "ip": "10.0.0.2"})
    assert (made.memory, made.share, made.program) == (4 << 20, 100, GUESTS / "hello.elf")
    assert str(Settings.of({"image": "./hello"}).program) == "hello"
    assert Settings.of({"empty": True}).empty
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"image": "hello", "disc": "x"}, "args.disc: a monitor knows"),
        ({"image": "hello", "memory": 5000}, "say whole pages"),
        ({"image": "hello", "memory": "0"}, "say whole pages"),
        ({"image": "hello", "share": 0}, "args.share is 0"),
        ({"image": "hello", "share": True}, "args.share is True"),
        ({"image": "hello", "snapshot_every_ms": -1}, "args.snapshot_every_ms is -1"),
        ({"image": "hello", "engine": "bochs"}, "say unicorn"),
        ({"image": "hello", "ip": "10.0.2"}, "args.ip is '10.0.2'"),
        ({"image": "hello", "ip": "10.0.0.2/24"}, "args.ip is '10.0.0.2/24'"),
        ({"image": "hello", "accel": "kvm"}, "args.accel: a monitor knows"),
        ({}, "args.image is missing"),
    ]
    for args, why in wrong:
        with pytest.raises(BadSettings, match=why):
            Settings.of(args)
