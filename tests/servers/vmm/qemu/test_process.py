"""QEMU itself: whether it can be had, what it is told, and how it is kept to its share."""

from __future__ import annotations

import os
import select
import shutil
import time
from pathlib import Path

import pytest

from servers.vmm.qemu import accel
from servers.vmm.qemu.brake import Brake
from servers.vmm.qemu.process import PROGRAM, Plan, Process, arguments, pairs
from servers.vmm.settings import QEMU, Settings

needs_qemu = pytest.mark.skipif(
    shutil.which(PROGRAM) is None, reason=f"{PROGRAM} is not here: apt-get install qemu-system-x86"
)
FOR_EVER = bytes((0xEB, 0xFE))  # 1: jmp 1b
STRETCH_NS = 1_500_000_000


class Simulated:
    """A process that always runs when it may; `pass_time` lets it."""

    def __init__(self) -> None:
        self.cpu_ns = 0
        self.held = False

    def halt(self) -> None:
        self.held = True

    def go(self) -> None:
        self.held = False

    def pass_time(self, ns: int) -> None:
        self.cpu_ns += 0 if self.held else ns


@pytest.mark.parametrize("percent", [1, 20, 60, 99])
def test_the_brake_gives_its_share_and_no_more(percent: int) -> None:
    process, now_ns = Simulated(), 0
    brake = Brake(process, percent, now_ns)
    while now_ns < 10_000_000_000:
        due_ns = brake.look(now_ns, free=False)
        assert due_ns > now_ns
        process.pass_time(due_ns - now_ns)
        now_ns = due_ns
    assert process.cpu_ns == pytest.approx(now_ns * percent / 100, rel=0.02)


def test_who_must_not_be_held_is_let_go_at_once_and_pays_later() -> None:
    process = Simulated()
    brake = Brake(process, 10, 0)
    now_ns = 0
    while not process.held:
        due_ns = brake.look(now_ns, free=False)
        process.pass_time(due_ns - now_ns)
        now_ns = due_ns
    brake.look(now_ns + 1, free=True)
    used_ns = process.cpu_ns
    process.pass_time(100_000_000)
    assert process.cpu_ns == used_ns + 100_000_000
    due_ns = brake.look(now_ns + 100_000_000, free=False)
    assert process.held
    assert due_ns - now_ns > 900_000_000
    assert brake.slices == 2


def test_a_whole_processor_is_never_looked_at() -> None:
    assert Brake(Simulated(), 100, 0).look(5, free=False) == 0


@needs_qemu
def test_a_program_that_counts_tells_what_works() -> None:
    assert accel.works(accel.TCG, PROGRAM)
    assert not accel.works("none-such", PROGRAM)
    assert not accel.works(accel.TCG, "/none/such")
    assert accel.chosen("tcg", PROGRAM) == "tcg"


@needs_qemu
def test_a_real_one_is_kept_to_its_share() -> None:
    """And a fifth more: it is looked at late when others have the processors."""
    percent = 10
    rom = os.memfd_create("rom")
    os.truncate(rom, accel.ROM_BYTES)
    os.pwrite(rom, FOR_EVER, accel.RESET_AT)
    process = Process(
        [PROGRAM, "-accel", "tcg,tb-size=1", "-M", "pc", "-m", "1M", "-nodefaults", "-display",
         "none", "-bios", f"/proc/self/fd/{rom}"],
        [rom],
    )  # fmt: skip
    os.close(rom)
    begun_ns = time.monotonic_ns()
    brake = Brake(process, percent, begun_ns)
    now_ns = begun_ns
    while now_ns < begun_ns + STRETCH_NS:
        due_ns = brake.look(now_ns, free=False)
        select.select([], [], [], max(0, due_ns - time.monotonic_ns()) / 1e9)
        now_ns = time.monotonic_ns()
    used_ns = process.cpu_ns
    assert process.end() == -9
    assert process.cpu_ns == 0
    assert 0 < used_ns < (now_ns - begun_ns) * percent / 100 * 1.2
    assert brake.slices > 3


def test_all_that_joins_it_to_the_monitor_is_inherited(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinuz"
    args = {"image": str(kernel), "memory": "96MiB", "disk": "parts", "nic": "switch",
            "ip": "10.0.0.2/24", "append": "single"}  # fmt: skip
    settings = Settings.of(args, QEMU)
    ours, its = pairs(settings)
    plan = Plan(settings, "vm-a", "tcg", bytes((2, 0, 0, 0, 0, 9)), goes_on=False)
    told = arguments(plan, its, 7)
    for end in its.all:
        assert any(f"={end.fileno()}" in word for word in told)
    assert any("mem-path=/proc/self/fd/7" in word for word in told)
    assert "virtio-net-pci,netdev=net,romfile=,mac=02:00:00:00:00:09" in told
    line = told[told.index("-append") + 1]
    assert line.endswith("ukernel.name=vm-a ukernel.ip=10.0.0.2/24 single")
    assert not {"-initrd", "-incoming"} & set(told)
    (tmp_path / "initrd").touch()
    told = arguments(plan._replace(goes_on=True), its, 7)
    assert told[told.index("-initrd") + 1] == str(tmp_path / "initrd")
    assert "-incoming" in told
    ours.close()
    its.close()


def test_without_disk_and_cable_there_are_none() -> None:
    settings = Settings.of({"image": "vmlinuz"}, QEMU)
    ours, its = pairs(settings)
    told = arguments(Plan(settings, "a", "kvm", bytes(6), goes_on=False), its, 7)
    assert not [word for word in told if "virtio-blk" in word or "virtio-net" in word]
    ours.close()
    its.close()
