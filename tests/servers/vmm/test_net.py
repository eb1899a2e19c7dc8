"""A guest's card: frames pass in their order, whole and plain, while there is a card below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.vmm.guest_memory import GuestMemory
from servers.vmm.net import RECEIVES, SENDS, VmNet
from tests.hwsim.card import arp, checks_out, plain, segment, unchecked
from tests.hwsim.harness import Region
from tests.servers.vmm.harness import CARD, Guest, Server
from ukernel.abi import network, virtio
from ukernel.abi.errors import DeadUnknown, Overload
from ukernel.abi.network import Card, TooLong
from ukernel.abi.virtio import (
    NET_HDR_F_DATA_VALID,
    NET_HEADER,
    NET_HEADER_BYTES,
    NetConfig,
    NetHeader,
    Reg,
    Status,
)
from ukernel.lib.virtio.offload import CAME, PLAIN
from ukernel.lib.virtqueue import Segment, Virtqueue, negotiate, start

BUFFER = 2048


class Rig:
    """A guest with a card and its driver."""

    def __init__(self, buffers: int = 4, card: Card = CARD) -> None:
        self.server = Server()
        self.guest = Guest(self.server)
        self.card = card
        self.guest.plug(self.make)
        self.bring_up(buffers)

    def make(self, memory: GuestMemory, interrupt: Callable[[], None]) -> VmNet:
        server, card = self.server, self.server.ethernet
        self.net = VmNet("eth0", memory, interrupt, server, card, card, self.card)
        return self.net

    def bring_up(self, buffers: int = 4) -> None:
        features = negotiate(self.guest, (1 << 32) - 1)
        self.coming: Virtqueue[Region] = Virtqueue(self.guest, virtio.NET_RECEIVEQ, 16, features)
        self.going: Virtqueue[None] = Virtqueue(self.guest, virtio.NET_TRANSMITQ, 64, features)
        self.memory = self.guest.dma(40 * BUFFER)
        start(self.guest)
        for _ in range(buffers):
            self.give(self.guest.dma(BUFFER))

    def give(self, region: Region) -> None:
        self.coming.submit([Segment(region.iova, BUFFER, True)], region)
        self.coming.kick()

    def received(self) -> list[bytes]:
        """What has come; its buffers are given again."""
        frames = []
        for region, length in list(self.coming.completed()):
            assert region.view[:NET_HEADER_BYTES] == CAME
            frames.append(bytes(region.view[NET_HEADER_BYTES:length]))
            self.give(region)
        return frames

    def send(
        self, frame: bytes, header: bytes = PLAIN, cuts: Sequence[int] = (), at: int = 0
    ) -> None:
        data, view = header + frame, self.memory.view[at * BUFFER :]
        edges = [0, *sorted({c for c in cuts if 0 < c < len(data)}), len(data)]
        chain = []
        for gap, (a, b) in enumerate(pairwise(edges)):
            view[a + gap : b + gap] = data[a:b]
            chain.append(Segment(self.memory.iova + at * BUFFER + a + gap, b - a, False))
        self.going.submit(chain, None)
        self.going.kick()

    def sent(self) -> list[bytes]:
        for call in self.server.named("transmit"):
            self.server.end(call, self.server.perform(call))
        frames, self.server.sent = self.server.sent, []
        assert all(frame[:NET_HEADER_BYTES] == PLAIN for frame in frames)
        return [frame[NET_HEADER_BYTES:] for frame in frames]

    @property
    def gone(self) -> int:
        return len(list(self.going.completed()))


def came(frame: bytes, header: NetHeader | None = None) -> bytes:
    return (CAME if header is None else NET_HEADER.pack(*header)) + frame


def test_it_is_the_card_below_without_its_offloads() -> None:
    rig = Rig()
    config = NetConfig.unpack(rig.guest.config(0, virtio.NET_CONFIG_BYTES))
    assert (config.mac, config.mtu) == (CARD.mac, CARD.mtu)
    assert not rig.net.features & (virtio.NET_F_CSUM | virtio.NET_F_HOST_TSO4)


def test_frames_come_in_their_order_and_wait_for_buffers() -> None:
    rig = Rig(buffers=2)
    frames = [plain(number) for number in range(RECEIVES)]
    for frame in frames:
        rig.server.come(came(frame))
    assert len(rig.server.named("receive")) == 2, "nobody asks for what there is no room for"
    got = rig.received()
    while more := rig.received():
        got += more
    assert got == frames
    assert len(rig.server.named("receive")) == RECEIVES


def test_a_frame_goes_from_the_guests_memory() -> None:
    rig = Rig()
    rig.send(arp())
    [call] = rig.server.named("transmit")
    assert call.args[1].token == b"ram"
    assert rig.gone == 0
    assert rig.sent() == [arp()]
    assert rig.gone == 1


@given(st.lists(st.integers(1, 80), max_size=5))
def test_a_frame_may_be_cut_anywhere(cuts: list[int]) -> None:
    rig = Rig()
    rig.send(plain(7, 90), cuts=cuts)
    assert rig.sent() == [plain(7, 90)]
    assert rig.gone == 1


def test_many_frames_go() -> None:
    rig = Rig()
    for number in range(40):
        rig.send(plain(number), at=number, cuts=(30,) if number % 2 else ())
    assert len(rig.server.named("transmit")) == SENDS
    sent = [frame for _ in range(3) for frame in rig.sent()]
    assert sent == [plain(number) for number in range(40)]
    assert rig.gone == 40


@pytest.mark.parametrize(
    ("frame", "header"),
    [
        (plain(), unchecked()),
        (segment(b"x" * 3000), unchecked(size=1000)),
        (plain(size=1515), NetHeader()),
        (b"short", NetHeader()),
    ],
)
def test_what_was_not_agreed_is_dropped_and_noted(frame: bytes, header: NetHeader) -> None:
    rig = Rig()
    rig.send(frame, NET_HEADER.pack(*header))
    assert rig.sent() == []
    assert (rig.gone, rig.net.dropped, rig.guest.memory.faults.total) == (1, 1, 1)


def test_what_comes_with_an_offload_is_made_plain() -> None:
    rig = Rig(card=Card(CARD.mac, 1500, network.ACCEPT_UNCHECKED | network.ACCEPT_LONG))
    rig.server.come(came(segment(b"once"), unchecked()))
    rig.server.come(came(segment(b"x" * 2500), unchecked(size=1000)))
    rig.server.come(came(plain(3), NetHeader(NET_HDR_F_DATA_VALID)))
    frames = rig.received() + rig.received()
    assert [len(frame) for frame in frames] == [58, 1054, 1054, 554, 60]
    assert all(map(checks_out, frames[:4]))
    assert len(rig.server.named("receive")) == RECEIVES


def test_what_is_no_frame_or_too_long_for_the_buffer_is_dropped() -> None:
    rig = Rig(buffers=0)
    small = rig.guest.dma(100)
    rig.coming.submit([Segment(small.iova, 50, True)], small)
    for frame in (came(b"tiny"), b"", came(plain(1)), came(plain(), NetHeader(1, csum_start=999))):
        rig.server.come(frame)
    assert list(rig.coming.completed()) == []
    assert rig.net.dropped == 4
    assert len(rig.server.named("receive")) == RECEIVES


def test_a_death_is_a_cable_that_was_pulled_out() -> None:
    rig = Rig()
    rig.send(arp())
    rig.server.die()
    assert rig.gone == 1
    rig.send(arp())
    assert (rig.gone, rig.net.dropped) == (1, 2)
    assert rig.server.calls == []
    rig.server.revive(CARD)
    assert len(rig.server.named("receive")) == RECEIVES
    rig.server.come(came(plain(5)))
    assert rig.received() == [plain(5)]
    rig.send(arp())
    assert rig.sent() == [arp()]


def test_frames_that_had_come_before_a_death_are_not_lost() -> None:
    rig = Rig(buffers=0)
    rig.server.come(came(plain(1)))
    rig.server.die()
    rig.server.revive(CARD)
    rig.give(rig.guest.dma(BUFFER))
    assert rig.received() == [plain(1)]
    assert len(rig.server.named("receive")) == RECEIVES


@pytest.mark.parametrize("error", [Overload("too many"), TooLong("no")])
def test_a_card_that_does_not_want_to_is_asked_later(error: Exception) -> None:
    rig = Rig()
    rig.server.end(rig.server.named("receive")[0], error)
    assert rig.net.upstream.wants_retry
    assert len(rig.server.named("receive")) == RECEIVES - 1
    rig.net.upstream.retry()
    rig.server.revive(CARD)
    assert len(rig.server.named("receive")) == RECEIVES


def test_a_refused_frame_is_a_dropped_one() -> None:
    rig = Rig()
    rig.send(arp())
    rig.server.end(rig.server.named("transmit")[0], TooLong("no"))
    assert (rig.gone, rig.net.dropped, rig.net.upstream.up) == (1, 1, True)


def test_without_a_driver_frames_are_dropped() -> None:
    rig = Rig(buffers=1)
    rig.server.come(came(plain(1)))
    rig.server.come(came(plain(2)))
    rig.guest.store(Reg.STATUS, 0)
    rig.server.come(came(plain(3)))
    assert len(rig.server.named("receive")) == RECEIVES
    rig.bring_up()
    assert rig.received() == []
    rig.server.come(came(plain(4)))
    assert rig.received() == [plain(4)]


def test_a_reset_waits_for_what_is_being_sent() -> None:
    rig = Rig()
    rig.send(arp())
    rig.guest.store(Reg.STATUS, 0)
    assert rig.guest.load(Reg.STATUS) & Status.DRIVER_OK
    rig.server.end(rig.server.named("transmit")[0], DeadUnknown("killed"))
    assert rig.guest.load(Reg.STATUS) == 0


def test_it_goes_on_elsewhere() -> None:
    rig = Rig()
    rig.send(plain(1))
    rig.server.come(came(plain(2)))
    saved = rig.guest.window.save()
    rig.server.calls.clear()
    rig.guest.plug(rig.make)
    rig.guest.window.restore(saved)
    assert rig.sent() == [plain(1)], "sent again, since nobody knows whether it was"
    assert rig.gone == 1
    rig.server.come(came(plain(3)))
    assert rig.received() == [plain(2), plain(3)]


def test_a_receive_buffer_that_cannot_be_written_breaks_the_card_alone() -> None:
    rig = Rig(buffers=0)
    region = rig.guest.dma(BUFFER)
    rig.coming.submit([Segment(region.iova, BUFFER, False)], region)
    rig.server.come(came(plain(1)))
    assert rig.guest.load(Reg.STATUS) & Status.NEEDS_RESET
    assert rig.guest.high
