"""Who looks at a virtual machine: each line once, whole, and nothing that was not to be seen."""

from __future__ import annotations

import pytest

from launcher.chaos import history
from launcher.chaos.evidence import FAIL, OK
from servers.workload import guest
from servers.workload.guest import GuestRun
from tests.servers.workload import Kept, client_of, told
from ukernel.abi.vm import Output, VirtualMachine, VmStatus

KEPT = 64  # bytes of what was shown


class Guest(VirtualMachine):
    """Shows what it is told to."""

    def __init__(self) -> None:
        self.shown = b""
        self.faults = 0

    def output(self, at: int) -> Output:
        at = max(at, len(self.shown) - KEPT)
        return Output(at, self.shown[at : at + 16])

    def status(self) -> VmStatus:
        found = dict.fromkeys(VmStatus._fields, 0) | {"state": "running", "faults": self.faults}
        return VmStatus(**found)  # type: ignore[arg-type]


@pytest.fixture
def vm() -> Guest:
    return Guest()


@pytest.fixture
def client(vm: Guest, monkeypatch: pytest.MonkeyPatch) -> GuestRun:
    made = client_of(GuestRun, vm, to="vm-a")
    assert made.step()  # the first is a status
    monkeypatch.setattr(guest, "STATUS_NS", 1 << 62)
    made.step()
    return made


def lines(client: GuestRun) -> list[str]:
    assert isinstance(client.history, Kept)
    return [text for _, text in history.shown(client.history.text)]


def test_each_line_is_told_when_it_is_whole(vm: Guest, client: GuestRun) -> None:
    vm.shown = "first\nthe second ünd".encode()
    assert all(client.step() for _ in range(3))
    assert lines(client) == ["first"]
    vm.shown += b" its end\n\n"
    assert all(client.step() for _ in range(2))
    assert lines(client) == ["first", "the second ünd its end", ""]
    looks = [op for op in told(client) if op.op == "look"]
    assert {(op.key, op.outcome) for op in looks} == {("vm-a", OK)}
    assert sum(int(op.value) for op in looks) == len(vm.shown)


def test_what_it_comes_too_late_for_is_no_answer(vm: Guest, client: GuestRun) -> None:
    vm.shown = b"x" * 10 + b"\n" + b"y" * KEPT + b"\n"
    assert not client.step()
    last = told(client)[-1]
    assert (last.outcome, last.error) == (
        FAIL,
        "NotDone: 12 bytes before were not to be seen any more",
    )
    assert all(client.step() for _ in range(4))
    assert lines(client)[-1] == "y" * (KEPT - 1)


def test_how_it_is_is_asked_now_and_then(
    vm: Guest, client: GuestRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm.faults = 2
    monkeypatch.setattr(guest, "STATUS_NS", 0)
    client._status_ns = 0
    assert client.step()
    assert isinstance(client.history, Kept)
    seen = [each[1:] for each in history.health(client.history.text)]
    assert seen[0] == ("running", 0, 0)
    assert seen[-1] == ("running", 2, 0)
    assert told(client)[-1].value == "running, 2 faults, 0 resets"
