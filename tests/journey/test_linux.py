"""A real Linux in a virtual machine that QEMU runs; its disk and its cable are ours.

Debian's kernel as it is, and real processes that are really killed. Linux is to notice a delay.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from launcher import moves
from launcher.config import load
from launcher.system import System
from servers.vmm.image import Image
from servers.vmm.qemu.monitor import packed
from tests.adversary.world import World
from tests.conftest import CONFIGS, own_runtime_dir
from tests.journey.guests import Machine, kill, put
from ukernel.abi import wire
from ukernel.abi.errors import CallError
from ukernel.abi.network import Network, TimedOut
from ukernel.abi.vm import (
    EMPTY,
    FAILED,
    HALTED,
    PAUSED,
    RUNNING,
    BadImage,
    VirtualMachine,
    VmFailed,
    WrongState,
)
from ukernel.lib.stub import begin

GUEST = Path(__file__).parents[2] / "build" / "linux-guest"
QEMU = "qemu-system-x86_64"
MISSING = [
    *([] if shutil.which(QEMU) else [f"{QEMU} is not here: apt-get install qemu-system-x86"]),
    *([] if (GUEST / "vmlinuz").is_file() else [f"{GUEST} is not there: make linux-guest"]),
]
needs_linux = pytest.mark.skipif(bool(MISSING), reason="; ".join(MISSING))

PATIENCE_S = 60.0  # for what a translated processor does on a busy machine
AT_ONCE = "restart: {max_restarts: 1000, backoff: {first_ms: 0}}"
DISK_MIB = 24
SHARE = 20
STRETCH_S = 1.5
KILLS = 4
SYSTEM = f"""
system: linux
hardware:
  disk0: {{model: virtio-blk, image: d.img, size: 32MiB}}
servers:
  echo: {{run: servers.echo, serves: echo}}
  witness: {{run: tests.adversary.tasks.witness, calls: [echo]}}
  disk: {{run: servers.disk, serves: block, devices: [disk0], {AT_ONCE}}}
  parts:
    run: servers.partitions
    serves: block
    calls: [{{disk: {{via: channel}}}}]
    window: 64
    args: {{parts: [1MiB, {DISK_MIB}MiB]}}
    {AT_ONCE}
  switch: {{run: servers.switch, serves: ethernet, window: 64, args: {{ports: 4}}, {AT_ONCE}}}
  net:
    run: servers.net
    serves: net
    calls: [{{switch: {{badge: 1, via: channel}}}}]
    window: 64
    state: persistent
    args: {{address: 10.78.0.2/24, connections: 8}}
vms:
  linux:
    engine: qemu
    image: {GUEST}/vmlinuz
    memory: 96MiB
    disk: {{server: parts, badge: 2}}
    nic: {{server: switch, port: 4}}
    snapshot_every: 1s
    args: {{ip: 10.78.0.9/24, accel: tcg}}
    {AT_ONCE}
  linux2: {{standby_for: linux}}
  slow:
    engine: qemu
    image: {GUEST}/vmlinuz
    memory: 80MiB
    share: {SHARE}
    args: {{accel: tcg}}
"""
CHECKSUM = re.compile(r"^[0-9a-f]{32}", re.M)
MAKE_UP = "dd if=/dev/urandom of=/tmp/a bs=64k count=256 2> /dev/null; md5sum < /tmp/a"  # 16 MiB
WRITE_AND_READ = (
    "dd if=/tmp/a of=/disk/a bs=64k 2> /dev/null; sync; echo 3 > /proc/sys/vm/drop_caches;"
    " md5sum < /disk/a; rm /disk/a"
)


class Linux(Machine):
    """As somebody has it who sits at its console."""

    numbers = count(1)

    @property
    def patient(self) -> VirtualMachine:
        """For what takes a while."""
        made: Any = self.stub
        made.timeout_ns = int(PATIENCE_S * 1e9)
        return cast(VirtualMachine, made)

    def enter(self, text: str) -> None:
        """Type it, as there is room for it."""
        left = [text.encode()]

        def typed() -> bool:
            left.append(left[-1][self.stub.enter(left[-1]) :])
            return not left[-1]

        self.world.until(typed, "room for what is typed")

    def begin(self, command: str) -> str:
        """Type a command; the pattern of what is shown when it is done."""
        number = next(self.numbers)
        self.forget()
        self.enter(f"{command}; echo do''ne {number}\n")  # as typed it is not what is shown
        return rf"done {number}\r\n"

    def run(self, command: str) -> str:
        """What a command shows."""
        end = self.begin(command)
        self.until_shown(end)
        shown = re.split(r"do''ne \d+\r\n", re.split(end, self.text)[0])[-1]
        return shown.replace("\r\n", "\n")

    def is_back(self) -> None:
        """It goes on from an earlier moment: somebody may have been typing then."""
        self.enter("\x03")

    def until_shown(self, pattern: str) -> None:
        def found() -> bool:
            self.look()
            return re.search(pattern, self.text) is not None

        self.world.until(found, f"{pattern} from {self.name}", PATIENCE_S)

    def up_s(self) -> float:
        """For how long it has run, as it sees that."""
        return float(self.run("cat /proc/uptime").split()[0])

    def qemus(self) -> list[int]:
        """Those that its monitor has."""
        monitor = self.world.slot(self.name).pid
        return [p.pid for p in psutil.Process(monitor).children() if p.name().startswith("qemu")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("linux")
    (folder / "system.yaml").write_text(SYSTEM)
    with own_runtime_dir():  # and in the end no process is left, nor a QEMU
        made = World(System(load(folder / "system.yaml")))
        yield made
        made.check()
        assert made.slot("linux").faults == 0
        made.close()


@pytest.fixture
def linux(world: World) -> Linux:
    return Linux(world, "linux")


@needs_linux
def test_it_keeps_to_its_share(world: World) -> None:
    """While it boots, which it does as fast as it may. A fifth more is for being looked at late."""
    slow = Linux(world, "slow")
    begun_us, begun_s = slow.status().run_us, time.monotonic()
    world.until(lambda: time.monotonic() > begun_s + STRETCH_S, "some time")
    used_us = slow.status().run_us - begun_us
    assert 0 < used_us < (time.monotonic() - begun_s) * 1e6 * SHARE / 100 * 1.2
    slow.patient.pause()


@needs_linux
def test_it_boots_to_a_shell_and_has_our_devices_and_no_other(linux: Linux) -> None:
    linux.until_shown(r"/ # ")
    assert "Linux" in linux.run("uname -a")
    partitions = linux.run("cat /proc/partitions").split("\n")[2:]
    assert [line.split()[2:] for line in partitions if line] == [[str(DISK_MIB << 10), "vda"]]
    mounted = [line.split()[:3] for line in linux.run("cat /proc/mounts").splitlines()]
    assert ["/dev/vda", "/disk", "ext2"] in mounted
    assert not [
        source for source, _, _ in mounted if source.startswith("/dev/") and "vda" not in source
    ]
    assert linux.run("ls /sys/class/net").split() == ["eth0", "lo"]
    status = linux.status()
    assert (status.engine, status.state, status.memory) == ("qemu/tcg", RUNNING, 96 << 20)
    assert len(linux.qemus()) == 1


@needs_linux
def test_the_network_in_both_directions(world: World, linux: Linux) -> None:
    assert "3 packets received" in linux.run("ping -c 3 -i 0.1 -W 20 10.78.0.2")
    net = world.system.reach(Network, "net")
    for size in (8, 1400):
        world.until(partial(answers, net, size), f"an answer of {size} bytes", PATIENCE_S)
    assert linux.status().frames_received > 3


def answers(net: Network, size: int) -> bool:
    try:
        return net.ping("10.78.0.9", size, 500) > 0
    except TimedOut:
        return False


@needs_linux
def test_no_byte_is_wrong_while_the_disks_driver_is_killed_every_second(
    world: World, linux: Linux
) -> None:
    (wanted,) = CHECKSUM.findall(linux.run(MAKE_UP))
    before, kills, next_s = linux.status().disk_requests, 0, time.monotonic()
    while kills < KILLS:
        end = linux.begin(WRITE_AND_READ)
        while not re.search(end, linux.text):
            if time.monotonic() >= next_s:
                next_s = time.monotonic() + 1
                kill(world, "disk")
                kills += 1
            linux.look()
        assert CHECKSUM.findall(linux.text) == [wanted]
    status = linux.status()
    assert (status.faults, status.resets) == (0, 0)
    assert status.disk_requests > before + 2 * 16  # of a MiB at most
    assert "error" not in linux.run("rm /tmp/a; dmesg | grep -i vda; true")
    assert world.slot("linux").life == 1


@needs_linux
def test_it_outlives_its_monitor(world: World, linux: Linux) -> None:
    linux.run("remembered=$((6 * 7))")
    taken = linux.status().snapshots
    world.until(lambda: linux.status().snapshots > taken + 1, "a snapshot that has it")
    up_s, old = linux.up_s(), linux.qemus()
    kill(world, "linux")
    linux.is_back()
    assert linux.run("echo $remembered") == "42\n"
    assert linux.up_s() > up_s - 5
    status = linux.status()
    assert (status.state, status.resets) == (RUNNING, 0)
    assert status.restored_from_ms > 0
    assert not psutil.pid_exists(old[0])
    assert len(linux.qemus()) == 1


@needs_linux
def test_it_outlives_its_qemu(world: World, linux: Linux) -> None:
    linux.run("remembered=43")
    taken = linux.status().snapshots
    world.until(lambda: linux.status().snapshots > taken + 1, "a snapshot that has it")
    psutil.Process(linux.qemus()[0]).kill()
    world.until(lambda: linux.status().resets, "another QEMU")
    linux.is_back()
    assert linux.run("echo $remembered") == "43\n"
    assert world.slot("linux").errors == 0


@needs_linux
def test_it_outlives_two_of_them_in_a_row(world: World, linux: Linux) -> None:
    """The second dies before it was copied again, and is paused while there is none."""
    before = linux.status()
    world.until(lambda: linux.status().snapshots > before.snapshots + 1, "two that have it")
    psutil.Process(linux.qemus()[0]).kill()
    loaded = before.moments.loaded
    world.until(lambda: linux.status().moments.loaded > loaded, "another QEMU", PATIENCE_S)
    psutil.Process(linux.qemus()[0]).kill()
    linux.stub.pause()
    world.until(lambda: linux.status().resets == before.resets + 2, "its end")
    assert linux.status().state == PAUSED
    linux.stub.resume()
    linux.is_back()
    assert linux.run("echo $remembered") == "43\n"


@needs_linux
def test_one_that_is_resumed_while_it_is_saved_is_not_saved(world: World, linux: Linux) -> None:
    """As by who has waited for long enough. What is saved next is of a guest that stands."""
    saving = begin(linux.patient.save)
    linux.stub.resume()
    with pytest.raises(WrongState, match="resumed meanwhile"):
        saving.result()
    assert linux.run("echo $remembered") == "43\n"
    linux.patient.save()
    uptime_ms = linux.status().uptime_ms
    linux.forget()
    linux.enter("echo it runs\n")
    assert linux.stub.output(linux.at).data == b""
    assert linux.status().uptime_ms == uptime_ms
    linux.stub.resume()
    linux.until_shown(r"\nit runs\r\n")


@needs_linux
def test_one_that_is_paused_stands_still(world: World, linux: Linux) -> None:
    up_s = linux.up_s()
    linux.patient.pause()
    linux.forget()
    status = linux.status()
    assert status.state == PAUSED
    assert linux.stub.output(linux.at).data == b""  # it has waited a second for it
    assert linux.status().uptime_ms == status.uptime_ms
    kill(world, "linux")
    assert linux.status().state == PAUSED
    stood_s = time.monotonic()
    world.until(lambda: world.slot("witness").calls > 50, "some time")
    linux.stub.resume()
    linux.is_back()
    assert linux.up_s() < up_s + 5 + (time.monotonic() - stood_s)
    assert linux.run("echo $remembered") == "43\n"


@needs_linux
def test_it_moves_to_another_monitor(world: World, linux: Linux) -> None:
    there = Linux(world, "linux2")
    assert (there.status().state, there.qemus()) == (EMPTY, [])
    linux.run("remembered=44; echo $remembered > /disk/kept")
    move = moves.migrate(world.system, "linux", "linux2")
    told = world.until(move.outcome, "the end of the move", PATIENCE_S)
    assert told["size"] < 96 << 20
    with pytest.raises(WrongState, match="it is running"):
        there.stub.start_loaded()
    assert (linux.status().state, linux.qemus()) == (EMPTY, [])
    there.at = linux.at  # positions go on
    assert there.run("echo $remembered; cat /disk/kept") == "44\n44\n"
    assert "1 packets received" in there.run("ping -c 1 -W 20 10.78.0.2")
    kill(world, "linux2")
    there.is_back()
    assert there.run("echo $remembered") == "44\n"
    life = world.slot("linux").life
    world.system.restart("linux")  # an orderly end of one that has none any more
    world.ready("linux", life + 1)
    assert linux.status().state == EMPTY
    assert "Traceback" not in world.logs()["linux"]


@needs_linux
def test_what_is_no_image_is_refused(world: World, tmp_path: Path) -> None:
    """By the monitor, or by its QEMU; it is as empty afterwards as before."""
    linux = Linux(world, "linux")
    memory = memoryview(bytearray(linux.status().memory))
    for kind, state, why in (
        ("qemu/kvm", b"QEVM", "it ran on qemu/kvm, and this is qemu/tcg"),
        ("qemu/tcg", b"QEVM, and then nothing that is known", "QEMU does not go on from it"),
    ):
        made = Image(wire.pack([packed(kind, 1, state), 0, b""]), memory)
        with (tmp_path / "image").open("w+b", buffering=0) as file:
            data = bytearray(made.size)
            assert made.fill(0, memoryview(data)) == len(data)
            file.write(data)
            file.seek(0)
            move = moves.load(world.system, "linux", "qemu/tcg", len(memory), file.fileno())
        with pytest.raises(CallError, match=why):
            world.until(move.outcome, "the end of it", PATIENCE_S)
    with pytest.raises(BadImage, match="0 bytes are no image"):
        linux.stub.start_loaded()
    put(linux, bytes(data))
    starting, again = begin(linux.patient.start_loaded), begin(linux.patient.start_loaded)
    with pytest.raises(WrongState, match="it is about to go on from what was loaded"):
        again.result()
    with pytest.raises(WrongState, match="it is about to go on from what was loaded"):
        put(linux, bytes(data))
    linux.stub.discard()
    with pytest.raises(BadImage, match="QEMU does not go on from it: QEMU has ended"):
        starting.result()
    assert (linux.status().state, linux.qemus()) == (EMPTY, [])


@needs_linux
def test_an_orderly_restart_costs_it_nothing_and_off_is_off(world: World) -> None:
    there = Linux(world, "linux2")
    there.run("remembered=45")
    old, life = there.qemus(), world.slot("linux2").life
    world.system.restart("linux2")
    world.ready("linux2", life + 1)
    assert not psutil.pid_exists(old[0])
    assert there.run("echo $remembered") == "45\n"
    there.enter("poweroff\n")
    world.until(lambda: there.status().state == HALTED, "its end", PATIENCE_S)
    assert there.qemus() == []
    kill(world, "linux2")
    assert there.status().state == HALTED
    world.system.restart("linux2")  # is its button
    world.ready("linux2", life + 3)
    assert there.status().state == RUNNING


SMALL = """
system: s
servers: {echo: {run: servers.echo, serves: echo}}
vms: {a: {engine: qemu, image: vmlinuz, memory: 128MiB, args: {accel: tcg}}}
"""


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (False, "apt-get install qemu-system-x86"),
        pytest.param(True, "it does not begin: QEMU has ended", marks=needs_linux),
    ],
)
def test_what_cannot_begin_has_failed_and_says_why(
    found: bool, why: str, tmp_path: Path, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not found:
        monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "vmlinuz").touch()
    (tmp_path / "system.yaml").write_text(SMALL)
    world = World(System(load(tmp_path / "system.yaml")))
    try:
        machine = Machine(world, "a")
        world.until(lambda: machine.status().state == FAILED, "its failure")
        assert why in world.logs()["a"]
        with pytest.raises(VmFailed, match=why):
            machine.stub.enter(b"x")
        assert world.slot("a").life == 1
    finally:
        world.close()


@needs_linux
def test_the_example_is_right() -> None:
    file = load(CONFIGS / "linux.yaml")
    assert file.manifest.vms["linux"].engine == "qemu"
    assert file.manifest.servers["linux"].run == "servers.vmm.qemu"
