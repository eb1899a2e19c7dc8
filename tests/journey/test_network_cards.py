"""Network cards of a running system: their cables and captures, and what cannot be had."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import cables
from launcher.board import MACHINE
from launcher.config import load
from launcher.system import BootError, System
from tests.hwsim.test_cable import may_have_taps
from tests.hwsim.test_pcapng import blocks, packets
from tests.journey.world import wait_for
from ukernel.abi.captures import CaptureFailed, Captures, CardRow
from ukernel.abi.faults import LOSE_FRAME, DeviceFaults, NoSuchDevice, NoSuchFault
from ukernel.abi.manifest import derived_mac

CONFIG = """
system: cards
hardware:
  nic0: {model: virtio-net, backend: userns, host_address: 10.213.8.1/24, capture: nic0.pcapng}
  nic1: {model: virtio-net, backend: switch, switch: lab, mac: "02:00:00:00:00:01", offload: false}
  nic2: {model: virtio-net, backend: switch, switch: lab, mtu: 9000, faults: {loss: 0.5}}
  rng0: {model: virtio-rng}
servers:
  nic: {run: servers.nic, serves: ethernet, devices: [nic0]}
"""
ASK = ["python3", "-c", "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
       "s.sendto(b'x', ('10.213.8.2', 9))"]  # fmt: skip


@pytest.fixture
def system(tmp_path: Path, runtime_dir: Path) -> Iterator[System]:
    with System(load(written(tmp_path, CONFIG)), name="cards") as system:
        told = booted(system)
        if not told:
            yield system
            return
    assert "hardware.nic0: this host gives its users no network namespaces" in told
    forbidden = CONFIG.replace("userns, host_address: 10.213.8.1/24", "switch, switch: other")
    with System(load(written(tmp_path, forbidden)), name="cards") as system:
        system.boot()
        yield system


def written(directory: Path, text: str) -> Path:
    path = directory / "cards.yaml"
    path.write_text(text)
    return path


def booted(system: System) -> str:
    """Boot; what it says when it cannot."""
    try:
        system.boot()
    except BootError as error:
        return str(error)
    return ""


def rows(system: System) -> dict[str, CardRow]:
    return {row.device: row for row in system.reach(Captures, MACHINE).cards()}


def test_cards_are_what_the_file_says_and_their_frames_are_noted(
    system: System, tmp_path: Path
) -> None:
    """From the host's kernel through the card to its driver, and into two files."""
    found = rows(system)
    assert [row.mtu for row in found.values()] == [1500, 1500, 9000]
    assert [row.backend for row in found.values()][1:] == ["switch", "switch"]
    assert found["nic0"].mac.hex(":") == derived_mac("cards", "nic0")
    assert found["nic1"].mac == bytes.fromhex("020000000001")
    noted = tmp_path / "nic0.pcapng"
    assert found["nic0"].capture == str(noted)
    captures, path = system.reach(Captures, MACHINE), str(tmp_path / "again.pcapng")
    if found["nic0"].backend == "userns":
        pid = cables.holder(system.run.path, "nic0")
        subprocess.run(cables.inside(pid, ASK), check=True)
        wait_for(system, lambda: rows(system)["nic0"].received > 0)
        captures.start_capture("nic0", path)
        (direction, frame) = packets(noted)[0]
        assert (direction, frame[12:14], frame[38:42]) == (1, b"\x08\x06", bytes((10, 213, 8, 2)))
    captures.start_capture("nic0", path)
    done = captures.stop_capture("nic0")
    assert (done.path, done.lost) == (path, 0)
    assert [kind for kind, _ in blocks(Path(path).read_bytes())][:2] == [0x0A0D0D0A, 1]
    _refusals(system, tmp_path)


def _refusals(system: System, tmp_path: Path) -> None:
    captures, faults = system.reach(Captures, MACHINE), system.reach(DeviceFaults, MACHINE)
    with pytest.raises(CaptureFailed, match="frames of nic0 are not being captured"):
        captures.stop_capture("nic0")
    with pytest.raises(CaptureFailed, match="No such file"):
        captures.start_capture("nic0", str(tmp_path / "absent" / "x.pcapng"))
    with pytest.raises(NoSuchDevice, match="rng0 is no network card"):
        captures.start_capture("rng0", str(tmp_path / "x.pcapng"))
    with pytest.raises(NoSuchDevice, match="the machine has no device 'nic9'"):
        captures.stop_capture("nic9")
    with pytest.raises(NoSuchFault, match="rng0 cannot break by 'lose_frame'"):
        faults.break_device("rng0", LOSE_FRAME, 0, 1.0, 1)
    faults.break_device("nic1", LOSE_FRAME, 0, 1.0, 1)
    assert [landed.times for landed in faults.broken()] == [0]
    faults.mend()


@pytest.mark.parametrize(
    ("card", "why"),
    [
        ("backend: tap, interface: lo", "hardware.nic0: the interface lo is there and is no TAP"),
        ("backend: switch, switch: s, capture: no/x.pcapng", "nic0.capture: .*no/x.pcapng cannot"),
    ],
)
def test_what_cannot_be_had_is_said(card: str, why: str, tmp_path: Path, runtime_dir: Path) -> None:
    if "tap" in card and not may_have_taps():
        why = "hardware.nic0: .*(CAP_NET_ADMIN|/dev/net/tun)"
    text = (
        f"system: s\nhardware:\n  nic0: {{model: virtio-net, {card}}}\n"
        "servers:\n  nic: {run: servers.nic, serves: ethernet, devices: [nic0]}\n"
    )
    with System(load(written(tmp_path, text))) as system, pytest.raises(BootError, match=why):
        system.boot()
