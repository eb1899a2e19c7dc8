"""Wires of a running system: real servers below, which are killed, and at the other end programs
that nobody here wrote. Real processes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from launcher.config import load
from launcher.system import System
from servers.vmm.qemu.nbd import MOST_BYTES
from tests.adversary.world import World
from tests.conftest import own_runtime_dir
from tests.hwsim.card import plain
from tests.journey.guests import kill
from tests.servers.vmm.qemu.client import FUA, HELLO, Ask, Client, go, request
from tests.servers.vmm.qemu.tasks.wired import Told, Wired
from ukernel.abi.services import SECTOR

AT_ONCE = "restart: {max_restarts: 1000, backoff: {first_ms: 0}}, heartbeat: {period_ms: 0}"
SYSTEM = """
system: wires
hardware:
  disk0: {{model: virtio-blk, image: d.img, size: 8MiB}}
servers:
  disk: {{run: servers.disk, serves: block, devices: [disk0], window: 32, {at_once}}}
  switch:
    {{run: servers.switch, serves: ethernet, window: 64, args: {{ports: 2, mac: {mac}}}, {at_once}}}
  one:
    run: tests.servers.vmm.qemu.tasks.wired
    serves: "tests.servers.vmm.qemu.tasks.wired:Wired"
    calls: [{{disk: {{via: channel}}}}, {{switch: {{badge: 1, via: channel}}}}]
    args: {{disk: {folder}/disk, nic: {folder}/one}}
  two:
    run: tests.servers.vmm.qemu.tasks.wired
    serves: "tests.servers.vmm.qemu.tasks.wired:Wired"
    calls: [{{switch: {{badge: 2}}}}]
    args: {{nic: {folder}/two}}
"""
BYTES = 8 << 20
MAC = "02:00:00:00:00:00"  # of the switch; those of its ports follow
PATIENCE_S = 20.0
GARBAGE = int(os.environ.get("UKERNEL_GARBAGE_BYTES", "20000"))
EACH = 1000  # bytes of one stranger
GROWTH = 1 << 20  # bytes that strangers may cost


class Wires(NamedTuple):
    """A system, and where its wires end."""

    world: World
    folder: Path
    image: Path

    def plug(self, name: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        sock.connect(str(self.folder / name))
        return sock

    def told(self, what: str = "disk", name: str = "one") -> Told:
        stub = self.world.system.reach(Wired, name)
        told: Told = getattr(stub, what)()
        return told

    def more_writes(self, count: int) -> None:
        """Wait for so many."""
        before = self.told().counts[1]
        self.world.until(lambda: self.told().counts[1] > before + count, "more writes")

    def medium(self, offset: int, length: int) -> bytes:
        """What is there without what is in the device's cache."""
        with self.image.open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    @property
    def uri(self) -> str:
        return f"nbd+unix:///disk?socket={self.folder / 'disk'}"


@pytest.fixture(scope="module")
def wires() -> Iterator[Wires]:
    with tempfile.TemporaryDirectory(prefix="uk-wires-", dir="/tmp") as path, own_runtime_dir():
        folder = Path(path)
        text = SYSTEM.format(at_once=AT_ONCE, folder=folder, mac=f'"{MAC}"')
        (folder / "system.yaml").write_text(text)
        made = World(System(load(folder / "system.yaml")))
        try:
            yield Wires(made, folder, folder / "d.img")
            for name in ("one", "two"):
                assert (made.slot(name).life, made.slot(name).faults) == (1, 0)
            assert made.logs()["kernel"] == ""
        finally:
            made.close()


@pytest.fixture
def client(wires: Wires) -> Iterator[Client]:
    made = wires.world.alongside(lambda: Client(wires.plug("disk")))
    yield made
    made.close()


def had(program: str, package: str) -> str:
    """Where it is, or a skip that says how it can be had."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not here: apt-get install {package}")
    return path


# --- the disk -----------------------------------------------------------------------------------


def test_what_was_answered_is_durable_after_a_flush_whoever_died(
    wires: Wires, client: Client
) -> None:
    assert client.size == BYTES
    once, later = random.Random(1).randbytes(4096), random.Random(2).randbytes(4096)
    client.do(Ask.WRITE, 0, data=later)
    kill(wires.world, "disk")
    assert wires.medium(0, 4096) != later, "it is in the device's cache"
    client.do(Ask.WRITE, 8192, flags=FUA, data=once)
    assert wires.medium(8192, 4096) == once
    client.do(Ask.WRITE, 8192, data=later)
    kill(wires.world, "disk")
    client.do(Ask.FLUSH)
    assert wires.medium(0, 4096) == wires.medium(8192, 4096) == later
    client.do(Ask.TRIM, 8192, 4096)
    assert client.do(Ask.READ, 0, 4096) == later


def test_a_driver_that_is_killed_again_and_again_is_a_delay(wires: Wires, client: Client) -> None:
    """Blocks are written, many at a time, until it has died often enough; then all are right."""
    deaths, dice = wires.told().deaths, random.Random(3)
    last: dict[int, bytes] = {}
    stop = threading.Event()

    def write_on() -> None:
        free, answered = list(range(32)), 0
        under_way: dict[int, bytes] = {}
        while not stop.is_set() or under_way:
            while free and not stop.is_set():
                number = free.pop(dice.randrange(len(free)))
                under_way[number] = dice.randbytes(SECTOR) * dice.choice([1, 8, 64])
                flags = FUA * (dice.random() < 0.2)
                client.ask(Ask.WRITE, number, number << 16, flags=flags, data=under_way[number])
            number, error, _ = client.reply()
            assert error == 0
            last[number] = under_way.pop(number)
            free.append(number)
            answered += 1

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        for _ in range(5):
            wires.more_writes(40)
            kill(wires.world, "disk")
    finally:
        stop.set()
        writer.join()
    assert len(last) == 32
    client.do(Ask.FLUSH)
    for number, data in last.items():
        assert client.do(Ask.READ, number << 16, len(data)) == data
        assert wires.medium(number << 16, len(data)) == data
    told = wires.told()
    assert told.deaths > deaths  # it does not know of one that has cut nothing short
    assert told.counts[5] == 0


def test_who_fetches_nothing_waits_and_everybody_else_goes_on(wires: Wires, client: Client) -> None:
    before, count = wires.told().counts[0], 24
    for number in range(count):
        client.ask(Ask.READ, number, 0, MOST_BYTES)
    wires.world.until(lambda: wires.told().idle, "no more to be begun")
    assert wires.told().counts[0] < before + count
    whole = {client.reply()[:2] for _ in range(count)}
    assert whole == {(number, 0) for number in range(count)}


def nearly(dice: random.Random) -> bytes:
    """A request that may be one."""
    offset = dice.choice([0, SECTOR, BYTES - SECTOR, BYTES, dice.getrandbits(64)])
    length = dice.choice([0, SECTOR, 3 * SECTOR, 7, MOST_BYTES, dice.getrandbits(32)])
    flags = dice.choice([0, 0, FUA, dice.getrandbits(16)])
    data = dice.randbytes(dice.choice([SECTOR, 100]))
    return request(dice.choice([*range(8), 99]), 1, offset, length, flags, data)


STRANGERS: dict[str, list[Callable[[random.Random], bytes]]] = {
    "disk": [
        lambda dice: dice.randbytes(EACH),
        lambda dice: HELLO + b"IHAVEOPT" + dice.randbytes(EACH),
        lambda dice: HELLO + go() + dice.randbytes(EACH),
        lambda dice: HELLO + go() + b"".join(nearly(dice) for _ in range(EACH // 50)),
    ],
    "one": [
        lambda dice: dice.randbytes(EACH),
        lambda dice: b"".join(bytes([0, 0, 0, n]) + dice.randbytes(n) for n in (3, 60, 99, 200)),
    ],
}


def test_strangers_do_no_harm(wires: Wires) -> None:
    """Random bytes, and some that begin as what would be right."""
    world, dice = wires.world, random.Random(4)
    process = psutil.Process(world.slot("one").pid)

    def private() -> int:
        memory = process.memory_info()
        return int(memory.rss - memory.shared)  # what is lent was there before

    def call(kind: str, data: bytes) -> None:
        """Until it is hung up on."""
        with wires.plug(kind) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass

    def call_all() -> None:
        for kind, makers in STRANGERS.items():
            for make in makers:
                call(kind, make(dice))

    call_all()
    wires.told()
    before = private()
    for _ in range(GARBAGE // EACH // 6):
        call_all()
    with wires.plug("disk") as sock:
        client = world.alongside(lambda: Client(sock))
        client.do(Ask.READ, 0, SECTOR)
        client.close()
    ends = wires.told().ends
    assert any("broken the protocol" in end for end in ends)
    assert any("has gone" in end for end in ends)
    assert private() - before < GROWTH


def run(world: World, *argv: str | Path) -> str:
    """A program to its end, while the system goes on; what it has said."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        done = threading.Event()
        said = b""

        def read() -> None:
            nonlocal said
            assert process.stdout is not None
            said = process.stdout.read()
            done.set()

        reader = threading.Thread(target=read)
        reader.start()
        world.until(done.is_set, f"the end of {argv[0]}")
        reader.join()
    assert process.returncode == 0, said.decode()
    return said.decode()


def test_qemus_own_client_finds_a_disk(wires: Wires) -> None:
    qemu_io, qemu_img = had("qemu-io", "qemu-utils"), had("qemu-img", "qemu-utils")
    world, image = wires.world, wires.folder / "source.img"
    deeds = ["write -P 7 0 64k", "write -f -P 9 1M 3M", "discard 1M 1M", "write -z 2M 64k",
             "flush", "read -P 7 0 64k", "read -P 0 2M 64k", "read -P 9 3M 1M"]  # fmt: skip
    asked = [word for deed in deeds for word in ("-c", deed)]
    said = run(world, qemu_io, "-f", "raw", *asked, wires.uri)
    assert "failed" not in said
    image.write_bytes(random.Random(5).randbytes(BYTES))
    run(world, qemu_img, "convert", "-n", "-f", "raw", "-O", "raw", image, wires.uri)
    assert "identical" in run(world, qemu_img, "compare", "-f", "raw", image, wires.uri)
    assert wires.medium(0, BYTES) == image.read_bytes()


def test_libnbds_client_is_served_while_the_driver_is_killed(wires: Wires) -> None:
    nbdcopy, nbdinfo = had("nbdcopy", "libnbd-bin"), had("nbdinfo", "libnbd-bin")
    world, image = wires.world, wires.folder / "source.img"
    image.write_bytes(random.Random(6).randbytes(BYTES))
    said = run(world, nbdinfo, "--list", wires.uri)
    assert f"export-size: {BYTES}" in said
    assert "can_flush: true" in said
    assert "block_size_maximum: 1048576" in said
    world.system.signal("disk", signal.SIGSTOP)
    argv = [nbdcopy, "--flush", str(image), wires.uri]
    with subprocess.Popen(argv) as process:
        world.until(lambda: not wires.told().idle, "something that waits")
        assert process.poll() is None
        kill(world, "disk")
        world.until(lambda: process.poll() is not None, "the end of it")
    assert process.returncode == 0
    assert wires.medium(0, BYTES) == image.read_bytes()
    assert wires.told().deaths > 0


# --- the card -----------------------------------------------------------------------------------

ONE, TWO = (bytes.fromhex(f"02000000000{port}") for port in (1, 2))
NUMBERS = itertools.count()  # of frames


class Cable:
    """The other end of a card's wire. Nobody promises that a frame arrives."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._file = sock.makefile("rb")

    def send(self, frame: bytes) -> None:
        self.sock.sendall(len(frame).to_bytes(4, "big") + frame)

    def hear(self) -> bytes:
        return self._file.read(int.from_bytes(self._file.read(4), "big"))

    def close(self) -> None:
        self._file.close()
        self.sock.close()


@pytest.fixture
def cables(wires: Wires) -> Iterator[tuple[Cable, Cable]]:
    """Into port 1, and into port 2."""
    one, two = Cable(wires.plug("one")), Cable(wires.plug("two"))
    yield one, two
    one.close()
    two.close()


def frame(number: int, size: int = 60) -> bytes:
    """From port 1 to port 2."""
    return TWO + ONE + plain(number, size)[12:]


def arrives(wires: Wires, send: Callable[[bytes], None], hear: Callable[[], bytes]) -> None:
    """Frames that were never sent before are sent until one arrives."""
    sent: list[bytes] = []

    def listen() -> None:
        while hear() not in sent:
            pass

    def come() -> bool:
        sent.append(frame(next(NUMBERS)))
        send(sent[-1])
        return not listener.is_alive()

    listener = threading.Thread(target=listen)
    listener.start()
    wires.world.until(come, "a frame")
    listener.join()


def test_a_switch_that_is_killed_is_a_cable_that_was_pulled_out(
    wires: Wires, cables: tuple[Cable, Cable]
) -> None:
    one, two = cables
    arrives(wires, one.send, two.hear)
    deaths = wires.told("nic").deaths
    for _ in range(3):
        kill(wires.world, "switch")
        arrives(wires, one.send, two.hear)
    assert wires.told("nic").deaths >= deaths + 3
    assert wires.told("nic", "two").deaths >= deaths + 3


def test_frames_go_on_in_their_order(wires: Wires, cables: tuple[Cable, Cable]) -> None:
    """As many as fit into what there is of buffers on their way, which is what the switch keeps."""
    one, two = cables
    arrives(wires, one.send, two.hear)
    sent = [frame(number, 1000 + number) for number in range(200)]
    got: list[bytes] = []
    for each in sent:
        one.send(each)
        while len(got) < len(sent) and (heard := two.hear()):
            if heard == each:
                got.append(heard)
                break
    assert got == sent


def test_qemu_speaks_on_both_wires(wires: Wires, cables: tuple[Cable, Cable]) -> None:
    """A QEMU without a machine: its cable leads to a hub, and from there to a socket of ours."""
    qemu = had("qemu-system-x86_64", "qemu-system-x86")
    cables[0].close()
    with (
        wires.plug("one") as net,
        wires.plug("disk") as disk,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours,
    ):
        mine, its = wires.folder / "mine", wires.folder / "its"
        ours.bind(str(mine))
        argv = [
            qemu, "-machine", "none", "-nodefaults", "-display", "none",
            "-blockdev",
            f"driver=nbd,node-name=disk,server.type=fd,server.str={disk.fileno()},export=disk",
            "-netdev", f"stream,id=net,server=off,addr.type=fd,addr.str={net.fileno()}",
            "-netdev", f"dgram,id=out,local.type=unix,local.path={its},"
            f"remote.type=unix,remote.path={mine}",
            "-netdev", "hubport,id=h1,hubid=0,netdev=net",
            "-netdev", "hubport,id=h2,hubid=0,netdev=out",
        ]  # fmt: skip
        fds = net.fileno(), disk.fileno()
        with subprocess.Popen(argv, pass_fds=fds, stderr=subprocess.PIPE) as process:
            try:
                wires.world.until(lambda: its.exists() or process.poll() is not None, "its socket")
                assert process.poll() is None, process.stderr and process.stderr.read().decode()
                ours.connect(str(its))
                arrives(wires, lambda data: void(ours.send(data)), cables[1].hear)
                kill(wires.world, "switch")
                arrives(wires, lambda data: void(ours.send(data)), cables[1].hear)
            finally:
                process.kill()


def void(_: object) -> None:
    """What was sent is of no interest."""
