"""control: the socket serves who behaves, and nobody else costs the system anything."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from launcher.client import Client, Refused
from launcher.control import MAX_PEERS
from launcher.frames import HEAD, MAX_ANSWER, MAX_REQUEST, Inflow, dump
from tests.conftest import TIMEOUT_S, gone


@pytest.fixture
def address(shared_minimal: Path) -> str:
    return str(shared_minimal / "ukernel" / "minimal" / "control")


@pytest.fixture
def line(address: str) -> Iterator[socket.socket]:
    """A connection that speaks in bytes."""
    with connected(address) as made:
        yield made


def connected(address: str) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.connect(address)
    line.settimeout(TIMEOUT_S)
    return line


def is_dropped(line: socket.socket) -> bool:
    """Whether the other end closes, instead of answering."""
    try:
        return line.recv(1) == b""
    except ConnectionResetError:
        return True


def is_served() -> bool:
    with Client() as client:
        return bool(client.ask("info")["system"] == "minimal")


def answers(line: socket.socket, count: int) -> list[dict[str, object]]:
    inflow, found = Inflow(MAX_ANSWER), list[dict[str, object]]()
    while len(found) < count:
        while (answer := inflow.take()) is not None:
            found.append(answer)
        if len(found) < count:
            assert inflow.receive(line)
    return found


def test_only_this_user_reaches_the_socket(address: str) -> None:
    for path, mode in ((address, 0o600), (os.path.dirname(address), 0o700)):
        status = os.stat(path)
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (mode, os.getuid())


RUBBISH = {
    "too long": HEAD.pack(MAX_REQUEST + 1),
    "far too long": HEAD.pack((1 << 32) - 1),
    "not JSON": HEAD.pack(4) + b"\xff\xfe{]",
    "nested": HEAD.pack(40_000) + b"[" * 40_000,
}


def test_rubbish_costs_the_connection_and_no_more(address: str) -> None:
    for rubbish in RUBBISH.values():
        with connected(address) as line:
            line.sendall(rubbish)
            assert is_dropped(line)
    assert is_served()


SENSELESS = [
    5, {}, [], ["reboot"], ["kill"], ["kill", "echo", "9"], ["kill", "echo", True],
    ["kill", "echo", 1], ["restart", ["echo"]], ["restart", "machine"], ["trace", -1],
    ["trace", 1 << 70], ["run", "client", [], "/"], ["run", "echo", [5], "/"], ["info", 1],
    [["info"]],
]  # fmt: skip


def test_a_request_that_makes_no_sense_is_refused(line: socket.socket) -> None:
    for request in SENSELESS:
        line.sendall(dump(request))
        (answer,) = answers(line, 1)
        assert answer["code"] == 2, request


def test_requests_sent_together_are_answered_in_order(line: socket.socket) -> None:
    line.sendall(dump(["info"]) + dump(["nonsense"]) + dump(["kstat"]))
    first, second, third = answers(line, 3)
    assert "ok" in first
    assert "error" in second
    assert "ok" in third


def test_half_a_request_holds_nobody_up(line: socket.socket) -> None:
    line.sendall(dump(["info"])[:-1])
    assert is_served()
    line.sendall(b"]")
    assert len(answers(line, 1)) == 1


def test_who_never_reads_is_dropped_or_waits_alone(address: str) -> None:
    with connected(address) as deaf:
        deaf.setblocking(False)
        with suppress(BlockingIOError, ConnectionError):
            while True:
                deaf.send(dump(["caps"]) * 100)
        assert is_served()


def test_too_many_descriptors_cost_the_connection(line: socket.socket) -> None:
    socket.send_fds(line, [dump(["info"])], [0] * 9)
    assert is_dropped(line)
    assert is_served()


def test_idle_connections_make_room(address: str) -> None:
    with ExitStack() as crowd:
        lines = [crowd.enter_context(connected(address)) for _ in range(MAX_PEERS + 6)]
        assert is_served()
        assert is_dropped(lines[0])


def test_names_that_are_not_there_are_told(address: str) -> None:
    with Client() as client:
        for request in (["kill", "nobody", 9], ["restart", "nobody"]):
            with pytest.raises(Refused, match="its tasks are echo, client") as refused:
                client.ask(*request)
            assert refused.value.code == 2


def test_restart_answers_when_the_next_life_is_ready(minimal: str) -> None:
    with Client() as client:
        assert client.ask("restart", "echo") == {"life": 2}
        states = {row["name"]: (row["life"], row["state"]) for row in client.ask("ps")}
    assert states["echo"] == (2, "ready")


def test_a_suspended_server_is_restarted_too(minimal: str) -> None:
    with Client() as client:
        client.ask("kill", "echo", signal.SIGSTOP)
        assert client.ask("restart", "echo") == {"life": 2}


def test_a_command_ends_when_nobody_waits_for_it(storage: str, runtime_dir: Path) -> None:
    read, write = os.pipe()  # nothing ever comes: the command waits for its input
    with Client() as watcher, open(os.devnull, "wb") as out, open(read, "rb") as stdin:
        with Client() as client:
            words = ["run", "shell", ["put", "-", "/never"], "/"]
            stdio = [stdin.fileno(), out.fileno(), out.fileno()]
            socket.send_fds(client._line, [dump(words)], stdio)
            while not (pid := pid_of(watcher, "shell")):
                continue
            process = psutil.Process(pid)
        assert gone([process])
        while pid_of(watcher, "shell"):
            continue
    os.close(write)


def pid_of(client: Client, name: str) -> int:
    """The process of a task that lives, else 0."""
    (row,) = [row for row in client.ask("ps") if row["name"] == name]
    return row["pid"] if row["state"] not in ("stopped", "new") else 0
