"""connections: a capture, while it grows, and the connections that it shows, and none that it does
not."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.pcapng import INBOUND, OUTBOUND, Writer, interface, packet, section
from launcher.chaos import pcapng
from launcher.chaos.connections import ACK, RST, SYN, Connections, ones, parsed
from launcher.chaos.evidence import Connection

HOST, SYSTEM = bytes((10, 77, 0, 1)), bytes((10, 77, 0, 2))
PORT, HTTP = 40000, 80
ISN, THEIRS = 1000, 0xFFFF_FF00  # theirs goes round soon


def frame(
    flags: int,
    seq: int = ISN,
    ack: int = 0,
    *,
    port: int = PORT,
    payload: bytes = b"",
    source: bytes = HOST,
) -> bytes:
    """What the host sends."""
    ack %= 1 << 32
    head = struct.pack(">HHIIBBHHH", port, HTTP, seq, ack, 5 << 4, flags, 512, 0, 0)
    pseudo = source + SYSTEM + struct.pack(">HH", 6, len(head) + len(payload))
    tcp = summed(head + payload, 16, pseudo)
    length = 20 + len(tcp)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, 1, 0x4000, 64, 6, 0, source, SYSTEM)
    return bytes(12) + b"\x08\x00" + summed(ip, 10) + tcp


def summed(data: bytes, at: int, pseudo: bytes = b"") -> bytes:
    """With its checksum in its place."""
    missing = 0xFFFF - ones(pseudo + data)
    return data[:at] + missing.to_bytes(2, "big") + data[at + 2 :]


OPENED = [frame(SYN), frame(ACK, ISN + 1, THEIRS + 1)]
REQUEST = frame(ACK, ISN + 1, THEIRS + 1, payload=b"GET /big")


def acked(count: int, port: int = PORT) -> bytes:
    return frame(ACK, ISN + 9, THEIRS + 1 + count, port=port)


def found(*frames: bytes) -> list[Connection]:
    seen = Connections("nic0")
    for at_ns, each in enumerate(frames):
        seen.see(memoryview(each), at_ns)
    return seen.found


def test_what_was_acknowledged_from_the_first_to_the_last_segment() -> None:
    assert found(*OPENED, REQUEST, acked(300), acked(5000)) == [
        Connection("nic0", PORT, 0, 4, 5000)
    ]


def test_numbers_go_round_and_old_ones_say_nothing() -> None:
    frames = [acked(count << 30) for count in range(1, 9)]
    assert found(*OPENED, *frames)[0].acked_bytes == 8 << 30
    assert found(*OPENED, acked(5000), acked(300), acked(5001))[0].acked_bytes == 5001


def test_a_syn_that_is_sent_again_opens_nothing_and_another_does() -> None:
    assert len(found(frame(SYN), *OPENED, acked(10))) == 1
    first, second = found(*OPENED, acked(10), frame(SYN, ISN + 77), acked(0), acked(20))
    assert (first.acked_bytes, second.acked_bytes) == (10, 20)
    assert second.opened_ns == 3


def test_ports_are_told_apart() -> None:
    frames = [frame(SYN, port=PORT + 2), frame(ACK, ISN + 1, THEIRS + 1, port=PORT + 2)]
    one, two = found(*OPENED, *frames, acked(10), acked(20, PORT + 2))
    assert (one.port, one.acked_bytes, two.port, two.acked_bytes) == (PORT, 10, PORT + 2, 20)


def test_a_reset_acknowledges_nothing() -> None:
    assert found(*OPENED, frame(ACK | RST, ISN + 1, THEIRS + 1 + 99))[0].acked_bytes == 0


@pytest.mark.parametrize("flags", [ACK, SYN | ACK, RST])
def test_nothing_else_opens_a_connection(flags: int) -> None:
    assert found(frame(flags, ISN, THEIRS)) == []


@given(st.sampled_from([frame(SYN), REQUEST]), st.data())
def test_a_frame_with_one_other_bit_says_nothing(right: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(14 * 8, len(right) * 8 - 1))
    wrong = bytearray(right)
    wrong[at // 8] ^= 1 << at % 8
    assert parsed(memoryview(right)) is not None
    assert parsed(memoryview(wrong)) is None


@given(st.binary(max_size=80), st.integers(0, 60))
def test_whatever_comes_is_a_segment_or_nothing(junk: bytes, kept: int) -> None:
    parsed(memoryview(junk))
    parsed(memoryview(REQUEST[:kept] + junk))


# --- the file -----------------------------------------------------------------------------------


def test_what_the_machine_writes_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "nic0.pcapng"
    writer = Writer(str(path), "nic0", bytes(6))
    writer.add(1 << 40, INBOUND, REQUEST)
    writer.add((1 << 40) + 5, OUTBOUND, b"x" * 61)
    writer.close()
    data = path.read_bytes()
    (came, went), length = pcapng.frames(memoryview(data))
    assert length == len(data)
    assert (came.at_ns, came.inbound, bytes(came.octets)) == (1 << 40, True, REQUEST)
    assert (went.at_ns, went.inbound, bytes(went.octets)) == ((1 << 40) + 5, False, b"x" * 61)


def test_a_file_that_grows_is_read_as_one_that_is_whole() -> None:
    head = section() + interface("nic0", bytes(6))
    whole = head + b"".join(packet(at, INBOUND, b"y" * at) for at in range(9))
    for cut in range(len(whole)):
        first, length = pcapng.frames(memoryview(whole[:cut]))
        rest, end = pcapng.frames(memoryview(whole[length:]))
        assert [each.at_ns for each in (*first, *rest)] == list(range(9))
        assert length + end == len(whole)


@pytest.mark.parametrize(
    "damage",
    [
        struct.pack("<II", pcapng.PACKET, 8),  # shorter than any block
        struct.pack("<II", pcapng.PACKET, 33) + bytes(40),
        struct.pack("<III", pcapng.PACKET, 16, 0) + bytes(4),
        struct.pack("<IIIIIIII", pcapng.PACKET, 32, 0, 0, 0, 1000, 1000, 32),
    ],
)
def test_damage_is_told(damage: bytes) -> None:
    with pytest.raises(pcapng.Malformed):
        pcapng.frames(memoryview(section() + damage))


@given(st.binary(max_size=100))
def test_whatever_the_file_holds_is_read_or_refused(junk: bytes) -> None:
    for data in (junk, section() + junk, struct.pack("<II", pcapng.PACKET, 48) + junk):
        try:
            _, length = pcapng.frames(memoryview(data))
        except pcapng.Malformed:
            continue
        assert length <= len(data)
