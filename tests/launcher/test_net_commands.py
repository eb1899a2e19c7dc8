"""net commands: tables, pings, refusals: asked of a stack that makes everything up."""

from __future__ import annotations

import json
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from launcher.asks import obstacle, plain
from launcher.board import MACHINE
from launcher.cli import app
from launcher.client import Answered, Client, Refused
from launcher.commands.net_ping import Echo, Tally
from launcher.commands.net_run import find_holder
from launcher.commands.stack import find_stack
from launcher.frames import dump
from launcher.requests import MOST_PATIENCE_MS
from tests.conftest import TIMEOUT_S, own_runtime_dir, until
from tests.launcher.tasks.stack import PING_NS, SOCKETS
from ukernel.abi.network import Address, Network, Ready, SocketRow

WIRED = """
system: wired
hardware:
  nic0: {model: virtio-net, backend: userns, host_address: 10.0.0.1/24}
  nic1: {model: virtio-net, backend: switch, switch: lonely}
  rng0: {model: virtio-rng}
servers:
  nic: {run: servers.nic, serves: ethernet, devices: [nic0]}
  net:
    run: servers.net
    serves: net
    calls: [nic]
    window: 64
    state: persistent
    args: {address: 10.0.0.2/24, connections: 8}
  stack:
    run: tests.launcher.tasks.stack
    serves: net
    state: persistent
    heartbeat: {period_ms: 0}
    restart: {backoff: {first_ms: 1, max_ms: 1}}
  echo: {run: servers.echo, serves: echo}
"""
USERNS = "backend: userns, host_address: 10.0.0.1/24"
PROBE = "command -v nsenter && unshare --user --net --map-root-user test -w /dev/net/tun"
REACHES_IN = subprocess.run(PROBE, shell=True, capture_output=True, check=False).returncode == 0
reaches_in = pytest.mark.skipif(not REACHES_IN, reason="this host has no TAP in a user namespace")


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One system for all of these tests, up."""
    config = tmp_path_factory.mktemp("wired") / "system.yaml"
    config.write_text(WIRED if REACHES_IN else WIRED.replace(USERNS, "backend: switch, switch: s"))
    with own_runtime_dir():
        subprocess.run(command("up", str(config), "--detach"), check=True, timeout=TIMEOUT_S)
        yield
        subprocess.run(command("down"), check=True, timeout=TIMEOUT_S)


@pytest.fixture
def client(wired: None) -> Iterator[Client]:
    with Client() as made:
        yield made


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "launcher.cli", *args]


def shown(*args: str, status: int = 0) -> str:
    """What a command prints, and why it was refused."""
    done = CliRunner().invoke(app, args)
    if isinstance(done.exception, Refused):
        assert done.exception.code == status
        return done.output + str(done.exception)
    assert done.exit_code == status, done.output
    return done.output


def asked(*args: str, status: int = 0) -> str:
    """What a command prints of the stack that makes everything up."""
    return shown("net", *args, "--server", "stack", status=status)


def as_json(*args: str) -> Any:
    return json.loads(asked(*args, "--json"))


# --- what the stack has -------------------------------------------------------------------------


@pytest.mark.usefixtures("wired")
def test_interfaces_and_neighbours() -> None:
    assert asked("ifconfig").splitlines()[1].split() == [
        "nic0", "up", "10.0.0.1/24", "-", "02:00:00:00:00:fe", "1500", "7", "8", "700", "800",
        "1", "2",
    ]  # fmt: skip
    (row,) = as_json("ifconfig")
    assert (row["mac"], row["frames_in"], row["up"]) == ("02:00:00:00:00:fe", 7, True)
    known, asked_for = asked("arp").splitlines()[1:]
    assert known.split() == ["10.0.0.2", "02:00:00:00:00:fe", "1.5"]
    assert "(asked for)" in asked_for
    assert as_json("arp")[1]["mac"] == ""


@pytest.mark.usefixtures("wired")
def test_sockets_of_more_than_one_page() -> None:
    rows = as_json("sockets")
    assert [row["local"]["port"] for row in rows] == [1000 + n for n in range(SOCKETS)]
    lines = asked("sockets").splitlines()
    assert len(lines) == 1 + SOCKETS
    assert lines[1].split() == [
        "tcp", "ESTABLISHED", "10.0.0.1:1000", "10.0.0.2:80", "1", "2", "3", "40", "5000", "6",
    ]  # fmt: skip


def test_which_stack_is_asked() -> None:
    def info(**serves: str) -> dict[str, Any]:
        return {"system": "s", "config": "s.yaml", "serves": serves}

    assert find_stack(info(a="net", b="echo"), "") == "a"
    assert find_stack(info(a="net", b="net"), "b") == "b"
    for serves, chosen, told in (
        ({"b": "echo"}, "", "no network stack: add a server with `serves: net` (s.yaml)"),
        ({"a": "net", "b": "net"}, "", "several network stacks: a, b; say --server NAME"),
        ({"a": "net", "b": "echo"}, "b", "no network stack 'b'; there is a"),
    ):
        with pytest.raises(Refused) as refused:
            find_stack(info(**serves), chosen)
        assert told in str(refused.value)
        assert refused.value.code == 2


# --- ping ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("wired")
def test_ping_is_told_like_ping() -> None:
    lines = asked("ping", "peer", "--count", "2", "--every", "0").splitlines()
    assert lines[:4] == [
        "PING peer (10.0.0.2) 56 bytes of data",
        "64 bytes from 10.0.0.2: icmp_seq=1 time=1.235 ms",
        "64 bytes from 10.0.0.2: icmp_seq=2 time=1.235 ms",
        "",
    ]
    assert lines[4] == "--- peer ping statistics ---"
    assert lines[5].startswith("2 packets transmitted, 2 received, 0% packet loss, time ")
    assert lines[6] == "rtt min/avg/max/mdev = 1.235/1.235/1.235/0.000 ms"


PINGS = [
    ("10.0.0.3", 0, "icmp_seq=1: no reply in 0.5 s", "2 received, 50% packet loss"),
    ("10.0.0.4", 1, "icmp_seq=4: no reply in 0.5 s", "0 received, 100% packet loss"),
    ("10.0.0.5", 1, "icmp_seq=2: no neighbour has this address", "4 packets transmitted, 0"),
    ("10.0.0.6", 0, "icmp_seq=1 time=1.235 ms", "4 received, 0% packet loss"),  # a life dies
]


@pytest.mark.usefixtures("wired")
@pytest.mark.parametrize(("host", "status", "line", "counts"), PINGS)
def test_what_comes_of_a_ping(host: str, status: int, line: str, counts: str) -> None:
    ask = ["ping", host, "--count", "4", "--every", "0", "--timeout", "0.5"]
    told = asked(*ask, status=status)
    assert line in told
    assert counts in told


@pytest.mark.usefixtures("wired")
def test_ping_as_json_and_of_nobody() -> None:
    lines = asked("ping", "10.0.0.3", "--count", "2", "--every", "0", "--json").splitlines()
    *echoes, summary = map(json.loads, lines)
    assert sorted(echo["ms"] for echo in echoes if echo["ms"]) == [PING_NS / 1e6]
    assert (summary["sent"], summary["received"]) == (2, 1)
    assert summary["rtt_ms"]["avg"] == PING_NS / 1e6
    told = asked("ping", "nobody", status=2)
    assert told == "no name server knows nobody"
    assert "a broadcast" in asked("ping", "10.0.0.7", "--count", "1", status=1)


@pytest.mark.usefixtures("wired")
def test_ctrl_c_of_a_ping_sums_up() -> None:
    ping = command("net", "ping", "10.0.0.2", "--server", "stack")
    with subprocess.Popen(ping, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "PING" in process.stdout.readline()
        assert "icmp_seq=1" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode == 0
    assert told.startswith("\n--- 10.0.0.2 ping statistics ---\n1 packets transmitted, 1 received")


def test_statistics() -> None:
    echoes = [Echo(1, 1_000_000), Echo(2, why="no reply in 2 s"), Echo(3, 3_000_000)]
    tally = Tally("h", "10.0.0.2", echoes, 2.0)
    assert tally.lines() == [
        "",
        "--- h ping statistics ---",
        "3 packets transmitted, 2 received, 33.3% packet loss, time 2000 ms",
        "rtt min/avg/max/mdev = 1.000/2.000/3.000/1.000 ms",
    ]
    assert tally.status == 0
    none = Tally("h", "10.0.0.2")
    assert (none.status, none.document()["rtt_ms"], none.document()["loss_percent"]) == (1, None, 0)
    assert len(none.lines()) == 3


# --- asking -------------------------------------------------------------------------------------


SENSELESS: list[tuple[list[Any], str]] = [
    (["nobody", "ping", []], "has no task 'nobody'"),
    (["echo", "echo", [""]], "echo cannot be asked 'echo', only None"),
    (["stack", "listen", [["0.0.0.0", 1], 1, 1]], "stack cannot be asked 'listen', only inter"),
    (["stack", "ping", ["10.0.0.2", 56]], "are no arguments of ping(host: str, size: u16"),
    (["stack", "ping", ["10.0.0.2", 1 << 70, 1]], "are no arguments of ping("),
    (["stack", "resolve", ["\ud800"]], "are no arguments of resolve("),
    ([MACHINE, "start_capture", ["nic0", "/x"]], "machine cannot be asked 'start_capture', only"),
]


def test_what_may_not_be_asked_is_refused(client: Client) -> None:
    for (server, operation, args), told in SENSELESS:
        with pytest.raises(Refused) as refused:
            client.ask_server(server, operation, *args)
        assert told in str(refused.value)
        assert refused.value.code == 2
    for patience_ms in (0, -1, MOST_PATIENCE_MS + 1):
        with pytest.raises(Refused, match="patience is"):
            client.ask("ask", "stack", "interfaces", [], patience_ms)


def test_the_stack_may_refuse_and_may_talk_rubbish(client: Client) -> None:
    with pytest.raises(Answered) as answered:
        client.ask_server("stack", "ping", "10.0.0.4", 56, 100)
    assert (answered.value.name, answered.value.code) == ("TimedOut", 1)
    with pytest.raises(Refused, match=r"stack answered what resolve\(.*never is"):
        client.ask_server("stack", "resolve", "half")
    assert client.ask_server("stack", "resolve", "peer") == ["10.0.0.2"]


def test_who_waits_in_vain_waits_alone(client: Client) -> None:
    """Neither a call without an answer nor a suspended server holds the launcher up."""
    with closing(Client()) as other:
        other._line.sendall(dump(["ask", "stack", "ping", ["10.0.0.8", 56, 1], 60_000]))
        client.ask("kill", "stack", signal.SIGSTOP)
        with pytest.raises(Refused, match=r"stack has not answered in 0\.05 s") as refused:
            client.ask_server("stack", "interfaces", patience_s=0.05)
        assert refused.value.code == 1
        client.ask("kill", "stack", signal.SIGCONT)
        assert client.ask_server("stack", "interfaces")
    assert client.ask("info")["system"] == "wired"  # the other has given up


def test_arguments_and_results_as_json_has_them() -> None:
    by_name = {operation.name: operation for operation in Network.ops.values()}
    assert not obstacle(by_name["ping"], ["a", 1, 2])
    assert obstacle(by_name["ping"], ["a", 1, True])
    row = SocketRow("tcp", Address("a", 1), Address("b", 2), "CLOSED", 0, 0, 0, 0, 0, 0)
    assert plain(row)["peer"] == {"host": "b", "port": 2}
    assert plain([b"\x01\xff", Ready(1, 2)]) == ["01ff", {"tag": 1, "events": 2}]


# --- running a command --------------------------------------------------------------------------


def test_where_a_command_is_run() -> None:
    assert find_holder("s", {"a": "userns", "b": "tap"}, {"a": 42}, "") == 42
    assert find_holder("s", {"a": "userns", "b": "userns"}, {"a": 7, "b": 42}, "a") == 7
    for backends, device, told in (
        ({}, "", "system s has no network card"),
        ({"a": "tap"}, "b", "no network card 'b'; there is a"),
        ({"a": "tap"}, "", "a is in the host's own network (`backend: tap`): run the command as"),
        ({"x": "userns", "b": "wire"}, "b", "not at the other end of b (`backend: wire`)"),
        ({"x": "userns", "y": "userns"}, "", "several cards have a namespace: x, y; say --device"),
    ):
        with pytest.raises(Refused) as refused:
            find_holder("s", backends, {"x": 1, "y": 2}, device)
        assert told in str(refused.value)
        assert refused.value.code == 2


@reaches_in
@pytest.mark.usefixtures("wired")
def test_a_command_runs_in_there() -> None:
    run = command("net", "run", "--", sys.executable, "-c", WHERE)
    done = subprocess.run(run, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 7
    assert done.stdout.split() == ["tap0", "10.0.0.1", "default"]
    assert "not at the other end of nic1" in shown("net", "run", "--device", "nic1", "x", status=2)


WHERE = """
import signal, socket, sys
names = [name for _, name in socket.if_nameindex() if name != "lo"]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.connect(("10.0.0.2", 9))
    print(*names, s.getsockname()[0])
print("default" if signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN else "broken")
sys.exit(7)
"""


@reaches_in
def test_a_real_stack_meets_the_host_in_there(client: Client) -> None:
    asking = ["--server", "net"]
    told = shown("net", "ping", "10.0.0.1", "--count", "2", "--every", "0", *asking)
    assert "2 packets transmitted, 2 received" in told
    assert re.search(r"(?m)^10\.0\.0\.1 +[0-9a-f:]{17} +\d+\.\d$", shown("net", "arp", *asking))
    (row,) = client.ask_server("net", "interfaces")
    assert (row["address"], row["up"]) == ("10.0.0.2", True)
    assert row["frames_in"] >= 3
    assert shown("net", "sockets", *asking).split()[0] == "KIND"
    told = shown("net", "ifconfig", status=2)
    assert told == "system wired has several network stacks: net, stack; say --server NAME"


# --- capturing ----------------------------------------------------------------------------------


@contextmanager
def capturing(*args: str) -> Iterator[subprocess.Popen[str]]:
    """`ukernel capture ARGS`, from when it has begun."""
    with subprocess.Popen(
        command("capture", *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("capturing ")
            yield process
        finally:
            process.kill()


def frames(file: Path) -> int:
    """The packets in a pcapng file, whose blocks are all whole."""
    data, at, found = file.read_bytes(), 0, 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert data[at + length - 4 : at + length] == struct.pack("<I", length)
        found += kind == 6  # an enhanced packet block
        at += length
    return found


NOISE = """
import select, socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        s.sendto(b"", ("10.0.0.255", 9))
"""


@pytest.fixture(scope="module")
def noise(wired: None) -> Iterator[None]:
    """Frames that come to nic0, one after the other."""
    run = command("net", "run", sys.executable, "-c", NOISE)
    with subprocess.Popen(run, stdin=subprocess.PIPE) as process:
        yield
        process.communicate(b"", timeout=TIMEOUT_S)


@reaches_in
@pytest.mark.usefixtures("noise")
def test_ctrl_c_of_a_capture_leaves_a_whole_file(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    with capturing("nic0", str(file)) as process:
        before = received(client)
        until(lambda: received(client) > before)
        process.send_signal(signal.SIGINT)
        told, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (0, "")
    assert frames(file) >= 1
    assert told.startswith(f"{file}: {frames(file)} frames, ")


@reaches_in
@pytest.mark.usefixtures("noise")
def test_a_capture_of_so_many_frames(tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    assert f"{file}: " in shown("capture", "nic0", str(file), "--count", "3")
    assert frames(file) >= 3


def received(client: Client) -> int:
    cards = client.ask_server(MACHINE, "cards")
    return next(int(card["received"]) for card in cards if card["device"] == "nic0")


def test_a_capture_ends_with_its_command(client: Client, tmp_path: Path) -> None:
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    with capturing("nic0", first) as process:
        told = shown("capture", "nic0", second, status=2)
        assert told == "nic0 is being captured already, by somebody else"
        process.kill()
        process.wait()
    until(lambda: not captured(client))
    assert frames(tmp_path / "a") >= 0
    assert f"{second}: " in shown("capture", "nic0", second, "--seconds", "0")
    assert not captured(client)


def captured(client: Client) -> list[str]:
    return [card["capture"] for card in client.ask_server(MACHINE, "cards") if card["capture"]]


@pytest.mark.usefixtures("wired")
def test_what_cannot_be_captured() -> None:
    cards = "its cards: nic0, nic1"
    for device, file, told in (
        ("nix", "/x", f"nix is no device of system wired; {cards}"),
        ("rng0", "/x", f"rng0 is no network card of system wired; {cards}"),
        ("nic0", "/no/such/x", "/no/such/x: No such file or directory"),
    ):
        for _ in range(2):  # it is not taken for a capture that goes on
            assert shown("capture", device, file, status=2) == told


def test_what_never_began_has_no_end(client: Client) -> None:
    for request in (["end"], ["capture", "nic0", "x"], ["capture", "nic0", "/\0"]):
        with pytest.raises(Refused) as refused:
            client.ask(*request)
        assert refused.value.code == 2
    first, second = [str(Path("/dev") / name) for name in ("null", "full")]
    client.ask("capture", "nic0", first)
    client.ask("capture", "nic1", second)  # instead of the first
    assert captured(client) == [second]
    client.ask("end")
    assert captured(client) == []
