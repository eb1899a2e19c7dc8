"""The network card through its driver: what it offers, both directions, and what it does not
believe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.iommu import Iommu
from hwsim.switch import Wire as Link
from tests.hwsim.card import (
    ALL,
    FAR,
    LONG,
    NEAR,
    CardDriver,
    checks_out,
    pair,
    plain,
    segment,
    unchecked,
)
from tests.hwsim.harness import Line, Wire
from tests.hwsim.test_hostile import DATA, SIZE, HostileRing
from ukernel.abi import virtio
from ukernel.abi.virtio import DESC_F_WRITE, NetConfig, NetHeader, Reg, Status
from ukernel.lib.virtio.cable import NONE, Stage, nothing
from ukernel.lib.virtio.net import ALWAYS, OFFLOADS, TURN, Net
from ukernel.lib.virtio.queue import Views, scatter
from ukernel.lib.virtqueue import DeviceError, Segment, negotiate


class Endless:
    """A cable with frames, as many as one likes; `listened` tells what it was asked for."""

    def __init__(self, frames: int = 1 << 30) -> None:
        self.arrived = nothing
        self.left = frames
        self.listened: list[bool] = []
        self.accepted = 0

    def accept(self, features: int) -> None:
        self.accepted = features

    def listen(self, wanted: bool) -> None:
        if self.listened[-1:] != [wanted]:
            self.listened.append(wanted)

    def send(self, header: bytes, parts: Views) -> None:
        self.left += 1

    def flush(self) -> None: ...

    def receive(self, into: Views) -> int:
        if not self.left:
            return NONE
        self.left -= 1
        return scatter(bytes(12) + plain(self.left), into)

    def drops(self) -> int:
        return 0


# --- what it is ---------------------------------------------------------------------------------


def test_configuration() -> None:
    card = CardDriver(Link().port(), mtu=9000)
    config = NetConfig.unpack(card.wire.config(0, virtio.NET_CONFIG_BYTES))
    assert config == NetConfig(NEAR, virtio.NET_S_LINK_UP, 1, 9000)
    assert card.wire.load(Reg.DEVICE_ID) == virtio.DeviceId.NETWORK
    assert card.net.features & 0xFFFF_FFFF & ~virtio.F_EVENT_IDX == ALWAYS | OFFLOADS


def test_without_offloads_none_is_offered() -> None:
    net = Net("nic0", Iommu("nic0"), Line(), Link().port(), NEAR, offload=False)
    assert net.features & (ALWAYS | OFFLOADS) == ALWAYS


@pytest.mark.parametrize("alone", [virtio.NET_F_HOST_TSO4, virtio.NET_F_GUEST_TSO4])
def test_segments_are_not_agreed_on_without_checksums(alone: int) -> None:
    net = Net("nic0", Iommu("nic0"), Line(), Link().port(), NEAR)
    with pytest.raises(DeviceError, match="refuses the features"):
        negotiate(Wire(net), alone)


def test_the_cable_knows_what_the_driver_takes() -> None:
    cable = Endless(0)
    card = CardDriver(cable)
    assert cable.accepted & ALL == ALL
    card.net.reset()
    assert cable.accepted == 0


# --- both directions ----------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(), (12,), (5, 12, 13), (20,), (26, 66)])
def test_a_frame_goes_through_however_it_is_cut(cuts: tuple[int, ...]) -> None:
    near, far = pair()
    near.send(plain(1, 100), cuts=cuts)
    assert far.received() == [(NetHeader(num_buffers=1), plain(1, 100))]
    assert (near.net.sent, near.net.bytes_sent) == (1, 100)
    assert (far.net.received, far.net.bytes_received) == (1, 100)
    assert near.net.drops() == far.net.drops() == 0


@pytest.mark.parametrize("cuts", [(4,), (12,), (12, 40)])
def test_a_receive_buffer_may_be_in_parts(cuts: tuple[int, ...]) -> None:
    link = Link()
    near, far = CardDriver(link.port()), CardDriver(link.port(), slots=0)
    buffer = far.give(2048, cuts)
    near.send(plain(1, 100))
    assert bytes(buffer.view[12:112]) == plain(1, 100)


def test_long_frames_up_to_the_largest_mtu() -> None:
    link = Link()
    near, far = CardDriver(link.port(), mtu=65535), CardDriver(link.port(), mtu=65535)
    near.send(plain(1, 65549))
    assert far.frames() == [plain(1, 65549)]


def test_one_interrupt_for_what_comes_together_and_none_before() -> None:
    near, far = pair()
    assert far.line.raised == 0
    near.send(plain())
    assert far.line.raised == 1
    assert far.frames() == [plain()]


def test_frames_wait_for_buffers_and_nobody_looks_at_them() -> None:
    cable = Endless(0)
    card = CardDriver(cable, slots=2)
    assert cable.listened[-1], "two buffers, no frame"
    cable.left = 5
    cable.arrived()
    assert (cable.left, cable.listened[-1], card.net.backlog) == (3, False, False)
    assert len(card.frames()) == 2, "which gives the buffers back"
    assert (cable.left, cable.listened[-1]) == (1, False)
    assert len(card.frames()) == 2
    assert (cable.left, cable.listened[-1]) == (0, True)


def test_a_turn_is_bounded_and_another_is_asked_for() -> None:
    cable, asked = Endless(0), []
    card = CardDriver(cable, slots=8)
    card.net.look_again = lambda: asked.append(True)
    cable.left = 1 << 30

    class Greedy(Stage):
        def receive(self, into: Views) -> int:
            count = super().receive(into)
            card.frames()  # so there are always buffers
            return count

    before = card.net.received
    card.net.capture = Greedy()
    card.net.notify(virtio.NET_RECEIVEQ)
    assert card.net.received - before == TURN
    assert card.net.backlog
    assert asked == []
    cable.arrived()
    assert asked == [True]


def test_the_cable_is_left_alone_when_there_is_no_driver() -> None:
    cable = Endless(0)
    card = CardDriver(cable)
    card.wire.store(Reg.STATUS, card.net.status | Status.FAILED)
    assert cable.listened[-1]
    cable.left = 9
    cable.arrived()
    assert (cable.left, cable.listened[-1]) == (9, False)
    card.net.reset()
    card.up()
    assert len(card.frames()) == 4
    assert cable.listened[-1] is False


def test_what_waits_outlasts_the_driver() -> None:
    near, far = pair()
    far.net.reset()
    near.send(plain(1))
    near.send(plain(2))
    assert not far.frames()
    far.up()
    assert far.frames() == [plain(1), plain(2)]


u8, u16 = st.integers(0, 255), st.integers(0, 65535)

# --- what is not believed -----------------------------------------------------------------------

LONG_SEGMENT = segment(b"x" * 4000)


@pytest.mark.parametrize(
    ("frame", "header", "why"),
    [
        (plain()[:13], NetHeader(), "a frame of 13 bytes, at least 14"),
        (plain(0, 1515), NetHeader(), "at most 1514"),
        (segment(b"x"), NetHeader(1, csum_start=34, csum_offset=20), "a checksum from 34 at 20"),
        (segment(b"x"), NetHeader(1, csum_start=65535, csum_offset=65535), "a checksum from 65535"),
        (segment(b"x"), NetHeader(1, csum_start=13, csum_offset=16), "a checksum from 13"),
        (LONG_SEGMENT, unchecked(size=1), "to cut by 1 bytes"),
        (LONG_SEGMENT, unchecked(size=1501), "to cut by 1501 bytes"),
        (LONG_SEGMENT, unchecked(size=1460)._replace(hdr_len=9999), "behind 9999"),
        (LONG_SEGMENT, unchecked(size=1460)._replace(flags=0), "without a checksum to complete"),
        (LONG_SEGMENT, unchecked(size=1460)._replace(gso_type=3), "a segment of kind 3"),
        (LONG_SEGMENT, unchecked(size=1460)._replace(gso_type=0x81), "a segment of kind 129"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_header_is_told_of_and_its_frame_dropped(
    frame: bytes, header: NetHeader, why: str
) -> None:
    near, far = pair()
    near.send(frame, header)
    assert why in near.net.faults.recent[0].why
    assert (near.net.drops(), near.net.sent, near.broken) == (1, 0, False)
    near.send(plain(1))
    assert far.frames() == [plain(1)]


@pytest.mark.parametrize("header", [unchecked(), unchecked(size=1460)], ids=["sum", "segment"])
def test_what_was_not_agreed_is_not_used(header: NetHeader) -> None:
    near, far = pair(near=0)
    near.send(segment(b"x" * 1400), header)
    assert "not agreed" in near.net.faults.recent[0].why
    assert not far.frames()


def test_bits_for_nobody_are_not_passed_on() -> None:
    near, far = pair()
    near.send(plain(), NetHeader(flags=0xFE, hdr_len=5, gso_size=7, csum_start=9, num_buffers=3))
    assert far.received() == [(NetHeader(num_buffers=1), plain())]


def test_less_than_a_header_is_no_frame() -> None:
    near, _ = pair()
    near.transmit.submit([Segment(near.memory.iova, 5, False)], None)
    near.transmit.kick()
    assert (near.net.faults.total, near.broken) == (1, False)


@pytest.mark.parametrize("queue", [virtio.NET_RECEIVEQ, virtio.NET_TRANSMITQ])
def test_buffers_of_the_wrong_direction_stop_the_device(queue: int) -> None:
    cable = Endless()
    ring = HostileRing(Net("nic0", Iommu("nic0"), Line(), cable, NEAR), queue)
    ring.describe(0, DATA, 64, DESC_F_WRITE if queue == virtio.NET_TRANSMITQ else 0)
    ring.offer(0)
    ring.failed_with("§5.1.6")
    assert cable.listened[-1:] in ([], [False])


def test_a_ring_of_nonsense_stops_only_this_card() -> None:
    link = Link()
    far = CardDriver(link.port())
    ring = HostileRing(Net("nic0", Iommu("nic0"), Line(), link.port(), NEAR))
    ring.offer(idx=SIZE + 1)
    ring.failed_with("claims")
    far.send(plain())
    assert not far.broken


@given(
    st.builds(
        NetHeader,
        u8,
        st.sampled_from([0, 1, 3, 0x81]),
        u16,
        u16,
        u16,
        st.sampled_from([6, 16]) | u16,
        u16,
    ),
    st.binary(min_size=14, max_size=200) | st.binary(max_size=3000).map(segment),
    st.sampled_from([0, virtio.NET_F_GUEST_CSUM, ALL]),
)
def test_whatever_the_header_and_the_frame_are(header: NetHeader, frame: bytes, takes: int) -> None:
    near, far = pair(far=takes)
    near.send(frame[:3000], header)
    near.send(plain(1))
    assert not near.broken
    assert not far.broken
    for came, _ in far.received():
        assert not came.gso_type or takes == ALL
        assert not came.flags or takes


# --- memory that was taken back -----------------------------------------------------------------


def test_a_frame_whose_memory_is_gone_is_dropped_and_its_chain_returned() -> None:
    near, far = pair()
    lent = near.wire.dma(4096)
    near.transmit.submit(
        [Segment(near.memory.iova, 12, False), Segment(lent.iova, 60, False)], None
    )
    near.domain.unmap(lent.iova)
    near.transmit.kick()
    assert [written for _, written in near.transmit.completed()] == [0]
    assert (near.broken, near.net.drops(), near.net.faults.total) == (False, 1, 1)
    near.send(plain(2))
    assert far.frames() == [plain(2)]


def test_a_buffer_whose_memory_is_gone_comes_back_empty_and_the_frame_is_in_the_next() -> None:
    link = Link()
    near, far = CardDriver(link.port()), CardDriver(link.port(), slots=0)
    gone, kept = far.give(), far.give()
    far.domain.unmap(gone.iova)
    near.send(plain(3))
    (first, nothing_there), (second, length) = far.receive.completed()
    assert (first, nothing_there) == (gone, 0)
    assert second is kept
    assert bytes(kept.view[12:length]) == plain(3)
    assert not any(gone.view)
    assert not far.broken


def test_all_of_them_gone_and_the_frame_still_waits() -> None:
    link = Link()
    near, far = CardDriver(link.port()), CardDriver(link.port(), slots=0)
    for _ in range(3):
        far.domain.unmap(far.give().iova)
    near.send(plain(4))
    assert [length for _, length in far.receive.completed()] == [0, 0, 0]
    far.give()
    assert far.frames() == [plain(4)]


def test_the_ring_may_move_under_a_buffer_that_waits() -> None:
    """A chain that no frame was there for is looked at anew, so nothing of it is kept."""
    near, far = pair()
    spare = far.wire.dma(LONG)
    far.domain.unmap(spare.iova)  # another generation of the domain
    near.send(plain(5))
    assert far.frames() == [plain(5)]


def test_what_does_not_fit_is_dropped() -> None:
    link = Link()
    near, far = CardDriver(link.port()), CardDriver(link.port(), slots=0)
    far.give(4096)
    near.send(segment(b"x" * 9000), unchecked(size=1460))
    near.send(plain(6))
    assert far.frames() == [plain(6)]
    assert far.net.drops() == 1


def test_a_long_segment_is_one_frame_to_who_takes_it() -> None:
    near, far = pair()
    frame = segment(b"payload " * 8000)
    near.send(frame, unchecked(size=1460), cuts=(66,))
    assert far.received() == [(unchecked(size=1460)._replace(num_buffers=1), frame)]
    assert far.net.mac == FAR


def test_and_many_to_who_does_not() -> None:
    near, far = pair(far=0)
    for _ in range(6):
        far.give()
    near.send(segment(b"payload " * 1000), unchecked(size=1460))
    pieces = far.received()
    assert len(pieces) == 6
    assert all(header == NetHeader(num_buffers=1) for header, _ in pieces)
    assert b"".join(piece[54:] for _, piece in pieces) == b"payload " * 1000
    assert all(checks_out(piece) for _, piece in pieces)
