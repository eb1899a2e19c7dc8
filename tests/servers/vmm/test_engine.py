"""The processor, with guests that say what they find."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.vmm.engine import BadState, Exit, Kind
from servers.vmm.unicorn_engine import UnicornEngine
from tests.servers.vmm.board import Machine, Medium

HELLO = ["hello from hart 0", "three ticks, bye"]
MODES = Path(__file__).parent / "modes.txt"


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    found: list[Machine] = []
    yield found
    for machine in found:
        machine.close()


@pytest.fixture
def machine(machines: list[Machine]) -> type[Machine]:
    """To be called as Machine is; closed at the end."""

    def make(*args: object, **kwargs: object) -> Machine:
        machines.append(Machine(*args, **kwargs))  # type: ignore[arg-type]
        return machines[-1]

    return make  # type: ignore[return-value]


@pytest.mark.parametrize("console", [True, False], ids=["virtio-console", "uart"])
def test_hello(machine: type[Machine], console: bool) -> None:
    guest = machine("hello", console=console)
    assert guest.run() == Exit(Kind.HALT, "pass")
    assert guest.lines == HELLO
    assert Kind.WFI in {found.kind for found in guest.exits}
    guest.reset()
    assert guest.run() == Exit(Kind.HALT, "pass")
    assert guest.lines == HELLO * 2


@pytest.mark.parametrize("counts", [False, True], ids=["stopped", "counted"])
def test_modes_traps_and_paging(machine: type[Machine], counts: bool) -> None:
    guest = machine("modes", console=False)
    if counts:
        guest.engine.count_instructions()
    assert guest.run() == Exit(Kind.HALT, "pass")
    assert guest.text == MODES.read_text()


def test_heartbeat(machine: type[Machine]) -> None:
    disk = Medium(64 * 512)
    guest = machine("heartbeat", disk=disk)
    guest.run(lambda: len(guest.lines) > 3)
    beats = [line.split() for line in guest.lines[1:4]]
    assert [int(beat[1]) // 10 for beat in beats] == [1, 2, 3]
    first = disk.data[:512]
    assert first.startswith(b"heartbea")
    numbers = [int.from_bytes(first[at : at + 8], "little") for at in (8, 16, 24)]
    assert numbers == [int(text) for text in beats[0][1:]]


def test_diskcheck(machine: type[Machine]) -> None:
    disk = Medium(64 * 512)
    guest = machine("diskcheck", disk=disk, rng=True)
    guest.run(lambda: len(guest.lines) > 2)
    assert guest.lines[:3] == [
        "diskcheck of 64 sectors",
        "diskcheck 1 sectors 64 wrong 0 errors 0",
        "diskcheck 2 sectors 64 wrong 0 errors 0",
    ]


def test_diskcheck_sees_a_wrong_byte(machine: type[Machine]) -> None:
    class Liar(Medium):
        def flush(self) -> None:
            self.data[513] ^= 0x10

    guest = machine("diskcheck", disk=Liar(64 * 512), rng=True)
    guest.run(lambda: len(guest.lines) > 2)
    assert guest.lines[1].startswith("diskcheck: pass 1 sector 1 byte 1: ")
    assert guest.lines[2] == "diskcheck 1 sectors 64 wrong 1 errors 0"


def test_hostile_is_its_own_enemy_only(machine: type[Machine]) -> None:
    """It does all that it can, and what ends it is a fault of its own making."""
    guest = machine("hostile", disk=Medium(64 * 512), rng=True)
    found = guest.run()
    assert found.kind is Kind.FAULT
    assert "where its handler is" in found.detail
    phases = [line for line in guest.lines if "phase" in line]
    assert [line.split()[2].rstrip(",") for line in phases] == [str(n) for n in range(1, 11)]
    assert guest.board.wild_times > 100
    assert guest.faults() > 20
    assert guest.engine.counts  # it has atomic instructions


ENDLESS = bytes.fromhex("01a0")  # j .
FAULTING = bytes.fromhex("0000")  # illegal, and no handler


def test_an_endless_loop_ends_with_its_slice(machine: type[Machine]) -> None:
    guest = machine(ENDLESS)
    assert {guest.turn(1000).kind for _ in range(20)} == {Kind.SLICE}
    guest.engine.count_instructions()
    assert {guest.turn(1000).kind for _ in range(20)} == {Kind.SLICE}


def test_a_guest_without_a_handler(machine: type[Machine]) -> None:
    guest = machine(FAULTING)
    assert guest.run().kind is Kind.FAULT


def test_a_kick_from_the_bus_of_another_thread(machine: type[Machine]) -> None:
    guest = machine(ENDLESS)
    guest.engine.kick()  # one that comes too early is lost
    assert guest.turn(1000).kind is Kind.SLICE


class Letters:
    """A bus that counts loads, and keeps what is stored."""

    lines, halted = 0, ""

    def __init__(self) -> None:
        self.loads = 0
        self.stored: list[int] = []

    def load(self, address: int, size: int) -> int:
        self.loads += 1
        return self.loads

    def store(self, address: int, size: int, value: int) -> None:
        self.stored.append(value)

    def poll(self) -> int | None:
        return None

    def time(self) -> int:
        return 0


COPYING = bytes.fromhex(
    "05 64"  # lui s0, 1
    "08 40"  # 1: lw a0, 0(s0)
    "48 c0"  # sw a0, 4(s0)
    "f5 bf"  # j 1b
)


@pytest.mark.parametrize("counts", [False, True], ids=["stopped", "counted"])
def test_an_access_of_the_bus_is_made_once(counts: bool) -> None:
    """However the slices fall."""
    bus = Letters()
    engine = UnicornEngine(bytearray(COPYING.ljust(1 << 16, b"\0")), bus)
    if counts:
        engine.count_instructions()
    while len(bus.stored) < 2000:
        assert engine.run(50).kind is Kind.SLICE
    engine.close()
    assert bus.stored == list(range(1, len(bus.stored) + 1))
    assert bus.loads - len(bus.stored) in (0, 1)


def test_another_process_goes_on_from_a_snapshot(machine: type[Machine], tmp_path: Path) -> None:
    guest = machine("heartbeat")
    guest.run(lambda: len(guest.lines) > 1)
    image = tmp_path / "image"
    image.write_bytes(guest.save())
    program = (
        "import sys; from pathlib import Path; from tests.servers.vmm.board import Machine\n"
        "guest = Machine('heartbeat'); guest.restore(Path(sys.argv[1]).read_bytes())\n"
        "guest.run(lambda: len(guest.lines) > 1); print(guest.text)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(image)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    counts = [int(line.split()[1]) // 10 for line in found.stdout.split("\n")[:2]]
    before = int(guest.lines[-1].split()[1]) // 10
    assert counts == [before + 1, before + 2]


def test_another_engine_goes_on_from_a_snapshot(machine: type[Machine]) -> None:
    disk = Medium(64 * 512)
    first = machine("diskcheck", disk=disk)
    first.run(lambda: len(first.lines) > 1)
    second = machine(ENDLESS, disk=disk)
    second.restore(first.save())
    second.run(lambda: len(second.lines) > 1)
    passes = [int(line.split()[1]) for line in second.lines]
    assert passes[0] == int(first.lines[-1].split()[1]) + 1
    assert all(line.endswith("wrong 0 errors 0") for line in second.lines)


@pytest.mark.parametrize(
    "damage",
    [lambda s: b"", lambda s: s[:-1], lambda s: b"x" + s[1:], lambda s: s[:24] + b"\xff" * 1528],
)
def test_what_is_no_state(machine: type[Machine], damage: object) -> None:
    guest = machine("hello")
    assert callable(damage)
    with pytest.raises(BadState):
        guest.engine.load(damage(guest.engine.save()))
