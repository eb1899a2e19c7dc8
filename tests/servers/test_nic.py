"""The driver of a network card, on the card: no frame is lost or out of order, whoever is slow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from servers.nic import QUEUE
from tests.servers.card import MAC, PLAIN, Asked, Rig, Room
from ukernel.abi import network, virtio
from ukernel.abi.errors import DeadlinePassed, Overload, Protocol
from ukernel.abi.network import Card, TooLong
from ukernel.abi.virtio import NET_HEADER_BYTES

BOX = 2048  # bytes for a frame that comes
HEAD = NET_HEADER_BYTES
ALL = (
    network.OFFLOAD_CHECKSUM
    | network.OFFLOAD_SEGMENT
    | network.ACCEPT_UNCHECKED
    | network.ACCEPT_LONG
)
Make = Any


@pytest.fixture
def rig() -> Iterator[Make]:
    made: list[Rig] = []

    def make(**how: Any) -> Rig:
        made.append(Rig(**how))
        return made[-1]

    yield make
    for one in made:
        one.close()


def frame(number: int, size: int = 60) -> bytes:
    """One that can be told from any other."""
    return bytes(14) + number.to_bytes(4, "big") + bytes([number % 256]) * (size - 18)


def receive(rig: Rig, room: Room, box: int, size: int = BOX, client: int = 1) -> Asked:
    return rig.ask("receive", room.lend(box * BOX, size), client=client)


def taken(room: Room, box: int, asked: Asked) -> bytes:
    """The frame that has come there."""
    assert isinstance(asked.outcome, int), asked.outcomes
    got = bytes(room.view[box * BOX : box * BOX + asked.outcome])
    assert got[0] == 0
    return got[HEAD:]


def read(rig: Rig, room: Room, count: int) -> list[bytes]:
    """So many frames, one after the other."""
    found = []
    for _ in range(count):
        asked = receive(rig, room, 0)
        rig.turn()
        found.append(taken(room, 0, asked))
    return found


# --- what comes ----------------------------------------------------------------------------------


def test_a_card_says_what_it_is(rig: Make) -> None:
    assert rig().ask("card").outcome == Card(MAC, 1500, ALL)
    assert rig(offload=False, mtu=9000).ask("card").outcome == Card(MAC, 9000, 0)


def test_frames_before_and_after_the_calls_for_them_come_in_order(rig: Make) -> None:
    one = rig()
    room = one.room(32 * BOX)
    one.line.bring(frame(0), frame(1))
    one.turn()
    asked = [receive(one, room, n) for n in range(5)]
    one.turn()
    assert [a.outcome is None for a in asked] == [False, False, True, True, True]
    one.line.bring(frame(2, 1514), frame(3, 61))
    one.turn()
    one.line.bring(*map(frame, range(4, 8)))
    one.turn()
    assert [taken(room, n, a) for n, a in enumerate(asked)] == [
        frame(0), frame(1), frame(2, 1514), frame(3, 61), frame(4)
    ]  # fmt: skip
    assert read(one, room, 3) == [frame(5), frame(6), frame(7)]


def test_what_does_not_fit_is_dropped_and_its_reader_gets_the_next(rig: Make) -> None:
    one = rig()
    room = one.room(4 * BOX)
    room.view[:] = b"\xee" * len(room.view)
    small, large = receive(one, room, 0, HEAD + 100), receive(one, room, 1)
    one.line.bring(frame(1, 101), frame(2, 100), frame(3, 101))
    one.turn()
    assert taken(room, 0, small) == frame(2, 100)
    assert taken(room, 1, large) == frame(3, 101)
    assert bytes(room.view[HEAD + 100 : BOX]) == b"\xee" * (BOX - HEAD - 100)


def test_without_readers_the_device_keeps_what_the_driver_has_no_buffers_for(rig: Make) -> None:
    one = rig(offload=False)
    room = one.room(BOX)
    for number in range(QUEUE + 200):
        one.line.bring(frame(number))
        one.turn()
    assert len(one.line.inbox) == 200
    assert read(one, room, QUEUE + 200) == list(map(frame, range(QUEUE + 200)))
    assert len(one.line.inbox) == 0
    one.line.bring(frame(7))
    assert read(one, room, 1) == [frame(7)], "all buffers are with the device again"


def test_long_frames_fit(rig: Make) -> None:
    one = rig(mtu=1500)
    room = one.room(70_000)
    asked = one.ask("receive", room.lend(0, 66_000))
    one.line.bring(frame(1, 65_000))
    one.turn()
    assert bytes(room.view[HEAD : asked.outcome]) == frame(1, 65_000)


def test_who_has_died_gets_nothing_and_loses_nothing(rig: Make) -> None:
    one = rig()
    room = one.room(8 * BOX)
    dead = [receive(one, room, n) for n in range(3)]
    one.turn()
    for asked in dead[:2]:
        asked.closed = True
    one.line.bring(*map(frame, range(3)))
    one.turn()
    outcomes = [outcome for asked in dead[:2] for outcome in asked.outcomes]
    assert [type(outcome) for outcome in outcomes] == [DeadlinePassed] * 2, "they count no more"
    assert taken(room, 2, dead[2]) == frame(0)
    assert read(one, room, 2) == [frame(1), frame(2)]


def test_readers_of_an_earlier_life_give_way_when_there_are_too_many(rig: Make) -> None:
    """By way of the kernel nobody says that they are dead."""
    one = rig(window=8)
    room = one.room(8 * BOX)
    old = [receive(one, room, n, client=1) for n in range(4)]
    new = [receive(one, room, n, client=2) for n in range(4)]
    assert all(isinstance(asked.outcome, Overload) for asked in old)
    assert isinstance(receive(one, room, 4, client=2).outcome, Overload)
    one.line.bring(*map(frame, range(4)))
    one.turn()
    assert [taken(room, n, asked) for n, asked in enumerate(new)] == list(map(frame, range(4)))


def test_memory_that_is_none_is_refused_when_it_is_lent(rig: Make) -> None:
    one = rig()
    room = one.room(BOX)
    size = len(room.view)
    assert isinstance(one.ask("receive", room.lend(size - 10, 11)).outcome, Protocol)
    asked = one.ask("receive", room.lend(0, BOX))
    del one.lent[room.token]  # taken back: what is mapped is mapped
    one.line.bring(frame(1))
    one.turn()
    assert asked.outcome == HEAD + 60


# --- what goes -----------------------------------------------------------------------------------


def transmit(rig: Rig, room: Room, at: int, frame: bytes, cargo: int = 0) -> Asked:
    """A frame of which the last `cargo` bytes lie apart."""
    head = PLAIN + frame[: len(frame) - cargo]
    room.view[at : at + len(head)] = head
    end = len(room.view)
    room.view[end - cargo :] = frame[len(frame) - cargo :]
    return rig.ask("transmit", room.lend(at, len(head)), room.lend(end - cargo, cargo))


def test_a_frame_goes_from_one_piece_or_two(rig: Make) -> None:
    one = rig()
    room = one.room(8192)
    asked = [transmit(one, room, 0, frame(1, 1514), cargo=0)]
    one.turn()
    asked += [transmit(one, room, 2048, frame(2, 1514), cargo=1460)]
    one.turn()
    asked += [transmit(one, room, 2048, frame(3, 60), cargo=42)]
    one.turn()
    assert [a.outcomes for a in asked] == [[None]] * 3
    assert [f for _, f in one.line.sent] == [frame(1, 1514), frame(2, 1514), frame(3, 60)]
    assert one.net.refused == 0


@pytest.mark.parametrize(
    ("offload", "most"), [(True, virtio.NET_MOST_BYTES), (False, 1514)], ids=["long", "plain"]
)
def test_what_is_no_frame_is_refused(rig: Make, offload: bool, most: int) -> None:
    one = rig(offload=offload)
    room = one.room(2 * 65536)
    for head, cargo, kind in (
        (HEAD + 54, most - 53, TooLong),
        (HEAD + most + 1, 0, TooLong),
        (HEAD, 0, TooLong),
        (HEAD - 1, 100, Protocol),
        (0, 100, Protocol),
    ):
        asked = one.ask("transmit", room.lend(0, head), room.lend(65536, cargo))
        assert type(asked.outcome) is kind
    one.turn()
    assert one.line.sent == []
    room.view[:HEAD] = b"\xff" * HEAD  # what nobody has agreed on
    odd = one.ask("transmit", room.lend(0, HEAD + 54), room.lend(65536, most - 54))
    one.turn()
    assert odd.outcomes == [None]
    good = transmit(one, room, 0, frame(5))
    one.turn()
    assert (good.outcomes, one.line.sent[-1][1]) == ([None], frame(5))


def test_who_finds_the_queue_full_waits_and_keeps_the_order(rig: Make) -> None:
    one, count = rig(window=255), 200
    room = one.room(count * 128 + 4096)
    one.dev.deaf = True
    asked = [transmit(one, room, n * 128, frame(n, 80), cargo=20 * (n % 2)) for n in range(count)]
    one.turn()
    assert not any(a.outcomes for a in asked)
    assert one.nic.waiting
    one.dev.deaf = False
    one.look()
    one.look()
    assert [a.outcomes for a in asked] == [[None]] * count
    assert [f[:18] for _, f in one.line.sent] == [frame(n)[:18] for n in range(count)]
    assert not one.nic.waiting


def test_memory_that_was_taken_back_costs_its_owner_a_frame_and_nobody_else(rig: Make) -> None:
    one = rig()
    room, other = one.room(4096), one.room(4096)
    one.dev.deaf = True
    asked = transmit(one, room, 0, frame(1), cargo=30)
    one.dev.take_back(room.token)
    one.dev.deaf = False
    good = transmit(one, other, 0, frame(2), cargo=30)
    one.turn()
    assert asked.outcomes == good.outcomes == [None]
    assert [f for _, f in one.line.sent] == [frame(2)]


# --- deaths and losses ---------------------------------------------------------------------------


def test_a_driver_that_comes_back_finds_the_card_as_it_is(rig: Make) -> None:
    one = rig()
    room = one.room(8 * BOX)
    before = [receive(one, room, n) for n in range(3)]
    one.line.bring(frame(0))
    one.turn()
    one.dev.deaf = True
    lost = transmit(one, room, 4 * BOX, frame(100))
    one.start()
    one.line.bring(frame(1), frame(2))
    assert read(one, room, 2) == [frame(1), frame(2)]
    sent = transmit(one, room, 4 * BOX, frame(101))
    one.turn()
    assert [f for _, f in one.line.sent] == [frame(101)]
    assert (lost.outcomes, sent.outcomes) == ([], [None])
    assert [a.outcomes for a in before] == [[HEAD + 60], [], []]


@pytest.mark.parametrize("frames", [1, 3])
def test_an_interrupt_that_is_lost_delays_a_frame_and_no_more(rig: Make, frames: int) -> None:
    one = rig()
    room = one.room(8 * BOX)
    asked = [receive(one, room, n) for n in range(6)]
    one.turn()
    one.lost = True
    for number in range(frames):
        one.line.bring(frame(number))
    one.lost, before = False, one.raised
    one.line.bring(frame(frames))
    assert one.raised == before, "one that was not heard is not said again"
    one.look()
    assert [taken(room, n, asked[n]) for n in range(frames + 1)] == [
        frame(n) for n in range(frames + 1)
    ]
    one.line.bring(frame(50))
    one.turn()
    assert taken(room, frames + 1, asked[frames + 1]) == frame(50), "told as ever"


def test_neither_interrupt_nor_doorbell_is_needed_for_what_is_sent(rig: Make) -> None:
    one = rig()
    room = one.room(4096)
    one.lost = True
    asked = transmit(one, room, 0, frame(1))
    one.turn()
    one.look()
    assert asked.outcomes == [None]
    one.dev.deaf = True
    asked = transmit(one, room, 0, frame(2))
    one.turn()
    one.dev.deaf = False
    one.look()
    one.look()
    assert asked.outcomes == [None]
    assert [f for _, f in one.line.sent] == [frame(1), frame(2)]
