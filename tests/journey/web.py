"""web: a running system at the end of a cable, and whatever this host has to speak to it with.

The other end of the cable is in a network namespace: programs are run in there (`Site.run`), and
sockets come out of there (`Cable.opened`), so that a test can use them as if they were its own.
The system runs in a launcher of its own, as `ukernel up` makes it.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from launcher.cables import holder, inside
from launcher.client import Client
from tests.conftest import own_runtime_dir
from tests.hwsim.test_pcapng import packets
from tests.journey.world import CONFIGS
from tests.tools import no_own_network

PATIENCE_S = 60.0  # for what takes some seconds on a machine that has nothing else to do
ERRORS = "_ws.malformed || _ws.expert.severity == error"
CHECKED = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
           "-o", "udp.check_checksum:TRUE")  # fmt: skip
DOOR = """
import socket, sys
line = socket.socket(fileno=int(sys.argv[1]))
line.send(b" ")
while asked := line.recv(64):
    with socket.socket(*map(int, asked.split())) as made:
        socket.send_fds(line, [b" "], [made.fileno()])
"""
Done = subprocess.CompletedProcess[str]


class Cable:
    """The namespace at the end of one card's cable."""

    def __init__(self, device: str, pid: int, peer: str) -> None:
        self.device = device
        self.peer = peer  # the system's address
        self._pid = pid
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, "-I", "-S", "-c", DOOR, str(theirs.fileno())]
            self._door = subprocess.Popen(inside(pid, argv), pass_fds=[theirs.fileno()])
        self._line.settimeout(PATIENCE_S)
        assert self._line.recv(1) == b" "

    def close(self) -> None:
        self._line.close()
        assert self._door.wait(PATIENCE_S) == 0

    def opened(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket that is in there."""
        self._line.send(f"{family} {kind} {protocol}".encode())
        _, (fd,), _, _ = socket.recv_fds(self._line, 1, 1)
        made = socket.socket(fileno=fd)
        made.settimeout(PATIENCE_S)
        return made

    def tcp(self) -> socket.socket:
        return self.opened(socket.AF_INET, socket.SOCK_STREAM)

    def connected(self, port: int) -> socket.socket:
        """A TCP connection of Linux with the system."""
        made = self.tcp()
        made.connect((self.peer, port))
        return made

    def command(self, *argv: str) -> list[str]:
        return inside(self._pid, argv)

    def run(self, *argv: str, status: int = 0, stdin: str = "") -> str:
        """What a program in there prints, its errors as well."""
        done = subprocess.run(
            self.command(*argv), input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout
        return done.stdout


class Site:
    """The system. What is below `/www` is `files`."""

    def __init__(self, client: Client, folder: Path, cables: dict[str, Cable]) -> None:
        self.client = client
        self.folder = folder
        self.cables = cables
        self.files: dict[str, bytes] = {}

    @property
    def cable(self) -> Cable:
        return self.cables["nic0"]

    def url(self, name: str) -> str:
        return f"http://{self.cable.peer}/{name}"

    def put(self, name: str, size: int) -> None:
        """A file of seeded bytes below /www."""
        self.files[name] = data = random.Random(name).randbytes(size)
        source = self.folder / "source"
        source.write_bytes(data)
        assert self.command("shell", "put", str(source), f"/www/{name}")[0] == 0
        source.unlink()

    def digest(self, name: str) -> str:
        return hashlib.sha256(self.files[name]).hexdigest()

    def command(self, name: str, *argv: str) -> tuple[int, str]:
        """Run a `start: demand` server: its exit status, and what it prints."""
        output = self.folder / "output"
        with output.open("wb") as out, open(os.devnull, "rb") as nothing, Client() as own:
            stdio = (nothing.fileno(), out.fileno(), out.fileno())
            status = own.run(name, list(argv), stdio)
        return status, output.read_text()

    # --- lives ----------------------------------------------------------------------------------

    def row(self, name: str) -> dict[str, Any]:
        return next(row for row in self.client.ask("ps") if row["name"] == name)

    def kill(self, name: str) -> int:
        """SIGKILL; which life it was."""
        life: int = self.client.ask("kill", name, signal.SIGKILL)["life"]
        return life

    def lives(self, name: str, life: int) -> bool:
        """Whether a later life than this one serves."""
        row = self.row(name)
        return bool(row["life"] > life and row["state"] == "ready")

    def restart(self, name: str) -> None:
        """Returns when the next life serves."""
        self.client.ask("restart", name)

    # --- what the stack says --------------------------------------------------------------------

    def interface(self, server: str = "net") -> dict[str, Any]:
        (row,) = self.client.ask_server(server, "interfaces", patience_s=PATIENCE_S)
        return dict(row)

    def sockets(self, server: str = "net") -> list[dict[str, Any]]:
        """All of them, page by page."""
        rows: list[dict[str, Any]] = []
        while page := self.client.ask_server(server, "sockets", len(rows), patience_s=PATIENCE_S):
            rows += page
        return rows

    def state(self, port: int, server: str = "net") -> str:
        """Of the connection with this port of the other end; empty: there is none."""
        rows = self.sockets(server)
        return next((str(row["state"]) for row in rows if row["peer"]["port"] == port), "")

    @contextmanager
    def captured(self, device: str, path: Path) -> Iterator[Path]:
        """What passes a card meanwhile, in a file."""
        self.client.ask("capture", device, str(path))
        try:
            yield path
        finally:
            self.client.ask("end")


def shark(path: Path, *args: str) -> list[str]:
    """The lines that tshark prints of a capture, checksums verified. A stream is not put together,
    so that each frame is judged by itself."""
    apart = ("-o", "tcp.desegment_tcp_streams:FALSE")
    done = subprocess.run(
        ["tshark", "-r", str(path), *CHECKED, *apart, *args],
        capture_output=True, text=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    return done.stdout.splitlines()


def nothing_is_wrong(path: Path, least: int) -> None:
    """tshark has read so many frames at least, and none of them is malformed."""
    assert shark(path, "-Y", ERRORS) == []
    assert len(packets(path)) >= least


def by_user_namespace(more_hardware: str = "", more_servers: str = "") -> str:
    """configs/web.yaml with its card's cable in a namespace, so that nobody needs to be root, and
    a larger disk."""
    text = (CONFIGS / "web.yaml").read_text()
    for old, new in (
        ("backend: tap, interface: uk0,", "backend: userns,"),
        ("size: 64MiB}", "size: 128MiB}"),
        ("\nservers:\n", f"{more_hardware}\nservers:\n"),
    ):
        assert old in text
        text = text.replace(old, new)
    return text + more_servers


@contextmanager
def running(folder: Path, text: str, peers: dict[str, str]) -> Iterator[Site]:
    """A system from its text; `peers`: by card, the system's address. When it is over nothing of it
    may be left."""
    if why := no_own_network():
        pytest.skip(why)
    config = folder / "web.yaml"
    config.write_text(text)
    launcher = [sys.executable, "-m", "launcher.cli"]
    with own_runtime_dir():
        up = [*launcher, "up", str(config), "--detach"]
        subprocess.run(up, check=True, timeout=PATIENCE_S, stdout=subprocess.DEVNULL)
        with Client() as client, ExitStack() as stack:
            stack.callback(client.down)
            cables = {}
            for device, peer in peers.items():
                cables[device] = Cable(device, holder(client.run_dir, device), peer)
                stack.callback(cables[device].close)
            site = Site(client, folder, cables)
            assert site.command("shell", "mkdir", "/www")[0] == 0
            yield site
