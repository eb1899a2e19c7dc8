"""The guests as they are checked in: built from these sources, and the same on another machine."""

from __future__ import annotations

import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servers.vmm import atomics, elf
from servers.vmm.board import RAM
from servers.vmm.engine import Exit, Kind
from servers.vmm.guest_memory import GuestMemory
from tests.servers.vmm.board import GUESTS, Machine, Medium
from ukernel.abi.virtio import NET_HEADER_BYTES
from ukernel.lib.virtio.cable import NONE, nothing
from ukernel.lib.virtio.net import Net
from ukernel.lib.virtio.queue import Views, scatter

CC, QEMU = "riscv64-linux-gnu-gcc", "qemu-system-riscv64"
VIRT = [QEMU, "-M", "virt", "-global", "virtio-mmio.force-legacy=false", "-nographic"]
MODES = Path(__file__).parent / "modes.txt"
NAMES = sorted(path.stem for path in GUESTS.glob("*.elf"))


def test_they_are_all_there_and_small() -> None:
    assert {"hello", "heartbeat", "diskcheck", "netping", "hostile", "speed"} < {*NAMES}
    assert max(path.stat().st_size for path in GUESTS.glob("*.elf")) < 40 << 10


def test_they_are_what_their_sources_say(tmp_path: Path) -> None:
    """Byte for byte, by the compiler that made them."""
    if not shutil.which(CC) or not shutil.which("make"):
        pytest.skip(f"needs {CC} and make")
    version = subprocess.check_output([CC, "--version"], text=True).splitlines()[0]
    if version != (GUESTS / "built-with").read_text().strip():
        pytest.skip(f"needs {(GUESTS / 'built-with').read_text().strip()}, not {version}")
    subprocess.run(["make", "-s", "-C", str(GUESTS), f"OUT={tmp_path}"], check=True, timeout=60)
    differ = [
        name
        for name in NAMES
        if (tmp_path / f"{name}.elf").read_bytes() != (GUESTS / f"{name}.elf").read_bytes()
    ]
    assert differ == []


@pytest.mark.parametrize("name", NAMES)
def test_behind_what_is_loaded_there_are_zeros(name: str) -> None:
    """So nobody needs to look there for atomic instructions, which two of them have."""
    memory, program = bytearray(1 << 20), (GUESTS / f"{name}.elf").read_bytes()
    elf.load(program, memoryview(memory), RAM)
    end = elf.extent(program, RAM)
    assert 0 < end < len(memory)
    assert not any(memory[end:])
    assert atomics.found(memoryview(memory)[:end]) == (name in ("atomics", "hostile"))


# --- on QEMU ----------------------------------------------------------------------------------


def on_qemu(guest: str, lines: int) -> list[str]:
    """The first lines that a guest shows on QEMU's machine `virt`."""
    if not shutil.which(QEMU):
        pytest.skip(f"needs {QEMU}")
    image = str(GUESTS / f"{guest}.elf")
    qemu = subprocess.Popen(
        [*VIRT, "-bios", "none", "-kernel", image],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with qemu:
        assert qemu.stdout is not None
        found = [line.rstrip() for line, _ in zip(qemu.stdout, range(lines), strict=False)]
        qemu.terminate()
    return found


def counts(lines: list[str]) -> list[list[str]]:
    """What of the heartbeat is no time."""
    return [line.split()[:2] for line in lines]


def here(guest: str, lines: int) -> list[str]:
    machine = Machine(guest, console=False)
    machine.run(lambda: len(machine.lines) >= lines)
    machine.close()
    return machine.lines[:lines]


def test_hello_says_the_same_on_qemu() -> None:
    assert on_qemu("hello", 9) == here("hello", 9)


def test_the_heart_beats_the_same_on_qemu() -> None:
    assert counts(on_qemu("heartbeat", 4)) == counts(here("heartbeat", 4))


def test_the_modes_are_the_same_on_qemu() -> None:
    assert on_qemu("modes", 99) == MODES.read_text().splitlines()


# --- on a network -----------------------------------------------------------------------------

MAC, PEER = bytes.fromhex("020000000005"), bytes.fromhex("020000000001")
BROADCAST = b"\xff" * 6
GUEST_IP, PEER_IP = bytes((10, 0, 0, 5)), bytes((10, 0, 0, 1))


class Cable:
    """Holds what the guest has sent, and what it is to receive."""

    def __init__(self) -> None:
        self.arrived: Callable[[], None] = nothing
        self.sent: list[bytes] = []
        self.waiting: deque[bytes] = deque()

    def accept(self, features: int) -> None: ...

    def listen(self, wanted: bool) -> None: ...

    def flush(self) -> None: ...

    def send(self, header: bytes, parts: Views) -> None:
        self.sent.append(b"".join(parts))

    def receive(self, into: Views) -> int:
        return (
            scatter(bytes(NET_HEADER_BYTES) + self.waiting.popleft(), into)
            if self.waiting
            else NONE
        )

    def drops(self) -> int:
        return 0

    def put(self, frame: bytes) -> None:
        self.waiting.append(frame)
        self.arrived()


@pytest.fixture(scope="module")
def netping() -> Iterator[tuple[Machine, Cable]]:
    machine, cable = Machine("netping"), Cable()

    def card(memory: GuestMemory, interrupt: Callable[[], None]) -> Net:
        return Net("card", memory, interrupt, cable, MAC)

    machine.plug(card)
    machine.reset()
    machine.run(lambda: cable.sent)
    yield machine, cable
    machine.close()


def asked(netping: tuple[Machine, Cable], frame: bytes) -> bytes:
    machine, cable = netping
    cable.sent.clear()
    cable.put(frame)
    machine.run(lambda: cable.sent)
    return cable.sent[0]


def total(data: bytes) -> int:
    """The internet checksum of RFC 1071."""
    return int.from_bytes(data.ljust(len(data) + len(data) % 2, b"\0"), "big") % 0xFFFF


def packet(protocol: int, payload: bytes) -> bytes:
    head = bytearray(bytes.fromhex("4500000000010000400000000a0000010a000005"))
    head[2:4] = (20 + len(payload)).to_bytes(2, "big")
    head[9] = protocol
    head[10:12] = (0xFFFF - total(bytes(head))).to_bytes(2, "big")
    return MAC + PEER + b"\x08\x00" + head + payload


def test_it_tells_of_itself(netping: tuple[Machine, Cable]) -> None:
    machine, _ = netping
    assert machine.lines[0] == "netping at 10.0.0.5"


def test_arp_is_answered(netping: tuple[Machine, Cable]) -> None:
    request = bytes.fromhex("0806 0001 0800 0604 0001") + PEER + PEER_IP + bytes(6) + GUEST_IP
    answer = asked(netping, BROADCAST + PEER + request)
    told = bytes.fromhex("0806 0001 0800 0604 0002") + MAC + GUEST_IP + PEER + PEER_IP
    assert answer == PEER + MAC + told


def test_a_ping_is_answered(netping: tuple[Machine, Cable]) -> None:
    echo = bytearray(b"\x08\x00\x00\x00\x12\x34\x00\x01some data")
    echo[2:4] = (0xFFFF - total(bytes(echo))).to_bytes(2, "big")
    answer = asked(netping, packet(1, bytes(echo)))
    assert (answer[:12], answer[26:34]) == (PEER + MAC, GUEST_IP + PEER_IP)
    assert (answer[34], answer[38:]) == (0, bytes(echo[4:]))
    assert total(answer[14:34]) == total(answer[34:]) == 0


def test_udp_is_echoed(netping: tuple[Machine, Cable]) -> None:
    answer = asked(netping, packet(17, bytes.fromhex("3039 0007 000d 0000") + b"hello"))
    assert answer[34:] == bytes.fromhex("0007 3039 000d 0000") + b"hello"


def test_what_is_not_for_it_is_not_answered(netping: tuple[Machine, Cable]) -> None:
    _, cable = netping
    for frame in (
        b"",
        b"x" * 60,
        packet(6, bytes(20)),
        packet(17, bytes.fromhex("3039000800080000")),
    ):
        cable.put(frame)
    broken = bytearray(packet(17, bytes.fromhex("3039 0007 0008 0000")))
    broken[25] ^= 1
    cable.put(bytes(broken))
    good = packet(17, bytes.fromhex("3039 0007 0009 0000") + b"!")
    assert asked(netping, good)[-1:] == b"!"


def test_speed_says_how_many_instructions() -> None:
    machine = Machine("speed", disk=Medium(512))
    assert machine.run() == Exit(Kind.HALT, "pass")
    rates = [int(line.split()[1]) for line in machine.lines]
    assert len(rates) == 5
    assert min(rates) > 0
    assert not machine.engine.counts
    machine.close()
