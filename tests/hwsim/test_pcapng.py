"""Capture files: tshark reads them, and they hold what the driver has sent and got."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsim.capture import Capture
from hwsim.pcapng import INBOUND, OUTBOUND, WAITING, Writer
from tests.hwsim.card import NEAR, CardDriver, arp, pair, plain, segment, unchecked

FIELDS = (
    "frame.interface_name", "frame.len", "frame.packet_flags_direction", "frame.time_epoch",
    "ip.checksum.status", "tcp.checksum.status", "_ws.malformed",
)  # fmt: skip
AT_NS = 1_700_000_000_123_456_789


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """Kind and body of each block of a file, which has to be whole."""
    found, at = [], 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert size % 4 == 0
        assert struct.unpack_from("<I", data, at + size - 4) == (size,)
        found.append((kind, data[at + 8 : at + size - 4]))
        at += size
    assert at == len(data)
    return found


def packets(path: Path) -> list[tuple[int, bytes]]:
    """Direction and bytes of each frame in a file."""
    found = []
    for kind, body in blocks(path.read_bytes()):
        if kind == 6:
            size, whole = struct.unpack_from("<II", body, 12)
            assert size == whole
            (direction,) = struct.unpack_from("<I", body, 20 + size + -size % 4 + 4)
            found.append((direction, body[20 : 20 + size]))
    return found


def tshark(path: Path, *fields: str) -> list[list[str]]:
    """What tshark says of each frame, checksums verified."""
    argv = ["tshark", "-r", str(path), "-T", "fields", "-o", "tcp.check_checksum:TRUE",
            "-o", "ip.check_checksum:TRUE"]  # fmt: skip
    for field in fields:
        argv += ["-e", field]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


class Captured:
    """A pair of cards, and what passes the near one in a file."""

    def __init__(self, path: Path, far: int) -> None:
        self.near, self.far = pair(far=far)
        self.path = path
        self.soon: list[Callable[[], None]] = []
        self.writer = Writer(str(path), "nic0", NEAR)
        self.near.net.capture = self.stage = Capture(self.writer, self.soon.append)


@pytest.fixture
def captured(tmp_path: Path) -> Captured:
    return Captured(tmp_path / "nic0.pcapng", far=0)


def test_a_file_is_whole_whenever_it_is_read(captured: Captured) -> None:
    assert [kind for kind, _ in blocks(captured.path.read_bytes())] == [0x0A0D0D0A, 1]
    captured.near.send(arp())
    captured.near.send(plain(1))
    assert len(captured.soon) == 1, "one flush for what comes together"
    assert not packets(captured.path)
    captured.soon.pop()()
    assert packets(captured.path) == [(OUTBOUND, arp()), (OUTBOUND, plain(1))]
    captured.near.send(plain(2))
    captured.stage.close()
    assert len(packets(captured.path)) == 3
    captured.soon.pop()()
    assert len(packets(captured.path)) == 3, "a flush that comes too late"


def test_both_directions_as_the_driver_sees_them(captured: Captured) -> None:
    captured.near.send(plain(1))
    captured.far.send(plain(2))
    captured.stage.close()
    assert packets(captured.path) == [(OUTBOUND, plain(1)), (INBOUND, plain(2))]
    assert captured.near.frames() == [plain(2)]
    assert (captured.writer.frames, captured.writer.octets) == (2, 120)


def test_when_it_is_over_nothing_stands_before_the_cable(captured: Captured) -> None:
    captured.near.net.capture = None
    captured.stage.close()
    captured.near.send(plain(1))
    captured.far.send(plain(2))
    assert (captured.near.frames(), captured.far.frames()) == ([plain(2)], [plain(1)])
    assert not packets(captured.path)


def test_what_waits_is_bounded(captured: Captured) -> None:
    frame = segment(b"x" * 60_000)
    for _ in range(WAITING // len(frame) + 1):
        captured.near.send(frame, unchecked(size=1460))
    assert packets(captured.path)


def test_without_room_the_capture_ends_and_the_card_goes_on(tmp_path: Path) -> None:
    near, far = pair()
    writer = Writer("/dev/full", "nic0", NEAR)
    near.net.capture = Capture(writer, lambda _: None)
    assert writer.failed == "No space left on device"
    near.send(plain(1))
    assert far.frames() == [plain(1)]
    assert (writer.frames, writer.lost) == (0, 1)
    near.net.capture.close()


def test_tshark_finds_nothing_malformed(captured: Captured) -> None:
    """One run of it, since it takes a second: what it says of every frame."""
    if shutil.which("tshark") is None:
        pytest.fail("tshark is not installed: apt-get install tshark")
    captured.near.send(arp())
    captured.near.send(segment(b"GET / HTTP/1.0\r\n\r\n"), unchecked())
    captured.near.send(segment(b"payload " * 1000, seq=2000), unchecked(size=1460))
    captured.writer.add(AT_NS, INBOUND, arp())
    captured.stage.close()
    rows = tshark(captured.path, *FIELDS)
    assert [row[:2] for row in rows] == [["nic0", size] for size in ("42", "72", "8054", "42")]
    assert [int(row[2], 0) for row in rows] == [OUTBOUND] * 3 + [INBOUND]
    assert rows[-1][3] == "1700000000.123456789"
    assert [row[4:] for row in rows] == [["", "", ""], ["1", "1", ""], ["1", "1", ""], [""] * 3]


def test_a_file_that_cannot_be_made_is_no_capture(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Writer(str(tmp_path / "absent" / "x.pcapng"), "nic0", NEAR)


def test_a_card_can_be_captured_anew(captured: Captured, tmp_path: Path) -> None:
    card: CardDriver = captured.near
    card.net.capture = Capture(Writer(str(tmp_path / "b.pcapng"), "nic0", NEAR), lambda _: None)
    captured.stage.close()
    card.send(plain(1))
    card.net.capture.close()
    assert not packets(captured.path)
    assert packets(tmp_path / "b.pcapng") == [(OUTBOUND, plain(1))]
