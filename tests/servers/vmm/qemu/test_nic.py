"""A card's wire: frames pass in their order, whole and plain, while there is a card below. In one
process; test_wires.py has real ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers.vmm.qemu.frames import framed
from servers.vmm.qemu.nic import RECEIVES, SENDS
from tests.hwsim.card import arp, checks_out, plain, segment, unchecked
from tests.servers.vmm.harness import CARD
from tests.servers.vmm.qemu.rig import Loop
from ukernel.abi import network
from ukernel.abi.network import Card, TooLong
from ukernel.abi.virtio import NET_HEADER, NET_HEADER_BYTES, NetHeader
from ukernel.lib.virtio.offload import CAME, PLAIN


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def sent(*frames: bytes) -> bytes:
    return b"".join(framed(len(frame)) + frame for frame in frames)


def received(loop: Loop) -> list[bytes]:
    """Frames that have come out of the wire."""
    data, frames = loop.hear(), []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        frames.append(data[4:end])
        data = data[end:]
    return frames


def test_frames_go_in_their_order_while_there_is_room_for_them(loop: Loop) -> None:
    wire = loop.nic_wire()
    frames = [plain(number) for number in range(40)]
    loop.say(sent(*frames))
    assert len(loop.named("transmit")) == SENDS
    assert not wire.idle
    while calls := loop.named("transmit"):
        loop.end(calls[0], loop.perform(calls[0]))
    assert loop.sent == [PLAIN + frame for frame in frames]
    assert (wire.sent, wire.idle, wire.mac, wire.mtu) == (40, True, CARD.mac, CARD.mtu)


def test_frames_come_in_their_order_and_no_more_than_fit_into_the_socket(loop: Loop) -> None:
    wire, come = loop.nic_wire(), 0
    while loop.named("receive"):
        loop.come(CAME + plain(come % 200, 1500))
        come += 1
    assert wire.received == come
    got: list[bytes] = []
    while len(got) < come:
        data = b""
        while len(data) < 1504:
            data += loop.theirs.recv(1504 - len(data))
        got.append(data[4:])
        loop.turn()
    assert got == [plain(number % 200, 1500) for number in range(come)]
    assert len(loop.named("receive")) == RECEIVES


def test_what_comes_with_an_offload_is_made_plain(loop: Loop) -> None:
    wire = loop.nic_wire(Card(CARD.mac, 1500, network.ACCEPT_UNCHECKED | network.ACCEPT_LONG))
    loop.come(NET_HEADER.pack(*unchecked()) + segment(b"once"))
    loop.come(NET_HEADER.pack(*unchecked(size=1000)) + segment(b"x" * 2500))
    frames = received(loop)
    assert [len(frame) for frame in frames] == [58, 1054, 1054, 554]
    assert all(map(checks_out, frames))
    for frame in (b"", CAME + b"tiny", NET_HEADER.pack(*NetHeader(1, csum_start=999)) + plain(1)):
        loop.come(frame)
    assert (wire.received, wire.dropped) == (4, 3)
    assert len(loop.named("receive")) == RECEIVES


def test_what_is_no_frame_for_this_card_is_dropped(loop: Loop) -> None:
    wire = loop.nic_wire()
    loop.say(sent(b"", b"short", plain(1, 1515), plain(2, 1514)))
    [call] = loop.named("transmit")
    assert loop.seen(call.args[1]) == plain(2, 1514)
    loop.end(call, TooLong("no"))
    assert (wire.sent, wire.dropped) == (0, 4)


def test_a_death_is_a_cable_that_was_pulled_out(loop: Loop) -> None:
    wire = loop.nic_wire()
    loop.say(sent(arp()))
    loop.die()
    assert wire.idle
    loop.say(sent(arp()))
    assert wire.dropped == 2
    assert loop.calls == []
    loop.revive(CARD)
    assert len(loop.named("receive")) == RECEIVES
    loop.come(CAME + plain(5))
    assert received(loop) == [plain(5)]
    loop.say(sent(arp()))
    assert len(loop.named("transmit")) == 1


def test_who_is_not_plugged_in_asks_for_nothing(loop: Loop) -> None:
    wire = loop.nic_wire(plugged=False)
    assert not loop.calls
    wire.plug(True)
    assert len(loop.calls) == RECEIVES
    wire.plug(False)
    for number in range(RECEIVES):
        loop.come(CAME + plain(number))
    assert len(received(loop)) == RECEIVES
    assert not loop.calls
    loop.die()
    loop.revive(CARD)
    assert not loop.calls


def test_after_an_end_comes_another(loop: Loop) -> None:
    wire = loop.nic_wire()
    loop.say(b"\xff" * 100)
    assert loop.closed == ["it has broken the protocol: a frame of 4294967295 bytes, at most 69632"]
    loop.come(CAME + plain(1))
    assert wire.dropped == 1
    assert len(loop.calls) == RECEIVES - 1, "nobody is there"
    loop.again()
    wire.open(loop.ours)
    assert len(loop.calls) == RECEIVES
    loop.come(CAME + plain(2))
    assert received(loop) == [plain(2)]
    loop.theirs.close()
    loop.turn()
    assert loop.closed[1:] == ["the other end has gone"]
    assert not loop.watched


def test_a_header_is_not_seen_outside(loop: Loop) -> None:
    loop.nic_wire()
    loop.come(CAME + arp())
    assert loop.hear() == len(arp()).to_bytes(4, "big") + arp()
    assert len(CAME) == NET_HEADER_BYTES
