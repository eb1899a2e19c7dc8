"""A disk's wire: what is asked is done, in any order, whatever dies below it, and no more at once
than there is room for. In one process; test_wires.py has real ones.
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Iterator

import pytest

from servers.vmm.qemu.disk import CALLS, REQUESTS, ROOM_BYTES, DiskWire
from servers.vmm.qemu.nbd import MOST_BYTES
from tests.servers.vmm.qemu.client import FUA, HELLO, Ask, go, option, request
from tests.servers.vmm.qemu.rig import SECTORS, Loop
from ukernel.abi.errors import Overload, Poison
from ukernel.abi.services import SECTOR, DeviceFailed

EIO = 5


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def answers(data: bytes) -> list[tuple[int, int]]:
    """Cookie and error of replies without data."""
    assert not len(data) % 16
    replies = [struct.unpack(">IIQ", data[at : at + 16]) for at in range(0, len(data), 16)]
    assert all(magic == 0x67446698 for magic, *_ in replies)
    return [(cookie, error) for _, error, cookie in replies]


def idle(wire: DiskWire) -> bool:
    """By now."""
    return wire.idle


def block(number: int) -> bytes:
    return bytes([number]) * SECTOR


def test_requests_are_under_way_together_and_end_in_any_order(loop: Loop) -> None:
    wire = loop.disk_wire()
    loop.disk[SECTOR : 2 * SECTOR] = block(7)
    loop.say(
        request(Ask.WRITE, 1, 0, data=block(1)),
        request(Ask.READ, 2, SECTOR, SECTOR),
        request(Ask.FLUSH, 3),
    )
    assert [call.name for call in loop.calls] == ["write", "read", "flush"]
    assert not idle(wire)
    loop.do(2)
    loop.do(1)
    loop.do(0)
    said = loop.hear()
    assert answers(said[:16]) == [(3, 0)]
    assert answers(said[16:32]) == [(2, 0)]
    assert said[32:-16] == block(7)
    assert answers(said[-16:]) == [(1, 0)]
    assert idle(wire)
    assert (wire.reads, wire.writes, wire.flushes) == (1, 1, 1)
    assert (wire.bytes_read, wire.bytes_written, wire.errors) == (SECTOR, SECTOR, 0)


@pytest.mark.parametrize("command", [Ask.WRITE, Ask.TRIM])
def test_with_fua_it_is_answered_after_a_flush_that_follows_it(loop: Loop, command: int) -> None:
    loop.disk_wire()
    loop.say(
        request(command, 4, 0, SECTOR, FUA, block(1)), request(Ask.WRITE, 5, SECTOR, data=block(2))
    )
    assert len(loop.calls) == 2, "no flush as long as it is not written"
    loop.end(loop.calls[0], SECTOR if command == Ask.WRITE else None)
    loop.do()
    assert answers(loop.hear()) == [(5, 0)]
    loop.die()
    loop.revive(SECTORS)
    assert [call.name for call in loop.calls] == ["flush"], "what was done is not done again"
    loop.do()
    assert answers(loop.hear()) == [(4, 0)]


def test_what_a_death_has_cut_short_is_asked_for_again(loop: Loop) -> None:
    wire, dice = loop.disk_wire(), random.Random(1)
    for number in range(1, 25):
        loop.say(request(Ask.WRITE, number, number * SECTOR, data=block(number)))
    assert len(loop.calls) == CALLS
    told: list[tuple[int, int]] = []
    for _ in range(3):
        loop.do()
        told += answers(loop.hear())
        loop.die(lambda: dice.random() < 0.5)
        assert idle(wire)
        assert not loop.calls
        loop.revive(SECTORS)
    loop.do_all()
    told += answers(loop.hear())
    assert sorted(told) == [(number, 0) for number in range(1, 25)]
    assert loop.disk[SECTOR : 25 * SECTOR] == b"".join(map(block, range(1, 25)))
    assert wire.upstream.deaths == 3


@pytest.mark.parametrize("error", [DeviceFailed("no"), Poison("two lives died of it")])
def test_a_refusal_is_an_error_of_its_request_alone(loop: Loop, error: Exception) -> None:
    wire = loop.disk_wire()
    loop.say(
        request(Ask.READ, 1, 0, SECTOR),
        request(Ask.WRITE, 2, 0, data=block(1)),
        request(Ask.FLUSH, 3),
    )
    loop.end(loop.calls[0], error)
    loop.end(loop.calls[0], SECTOR // 2)  # who writes half a sector is not to be believed
    loop.do()
    assert answers(loop.hear()) == [(1, EIO), (2, EIO), (3, 0)]
    assert (wire.errors, wire.reads, wire.writes, wire.flushes) == (2, 0, 0, 1)


def test_who_has_no_room_is_asked_later(loop: Loop) -> None:
    wire = loop.disk_wire()
    loop.say(request(Ask.FLUSH, 1))
    loop.end(loop.calls[0], Overload("too many"))
    assert wire.upstream.wants_retry
    assert not loop.calls
    wire.upstream.retry()
    loop.revive(SECTORS)
    loop.do()
    assert answers(loop.hear()) == [(1, 0)]


def test_the_other_end_waits_while_there_is_no_room(loop: Loop) -> None:
    """For data, for requests, and for answers that it does not fetch."""
    loop.disk_wire()
    for number in range(4):
        loop.say(request(Ask.READ, number, 0, MOST_BYTES))
    assert len(loop.calls) == ROOM_BYTES // MOST_BYTES
    loop.theirs.setblocking(False)
    sent, asked = 0, request(Ask.FLUSH, 99) * 100
    with contextlib.suppress(BlockingIOError):
        while sent < 10 << 20:
            sent += loop.theirs.send(asked)
            loop.turn()
    assert sent < 1 << 20
    loop.theirs.settimeout(10)
    got = 0
    while got < 4 * MOST_BYTES:
        if loop.calls:
            loop.do()
        got += len(loop.hear())
    assert len(loop.calls) <= CALLS


def test_no_more_requests_are_in_hand_than_it_says(loop: Loop) -> None:
    loop.disk_wire()
    loop.say(*[request(Ask.FLUSH, number) for number in range(3 * REQUESTS)])
    done = 0
    while loop.calls:
        assert len(loop.calls) <= CALLS
        loop.do()
        done += len(answers(loop.hear()))
    assert done == 3 * REQUESTS


def test_who_says_goodbye_has_all_answers_first(loop: Loop) -> None:
    loop.disk_wire()
    loop.say(request(Ask.WRITE, 1, 0, data=block(1)), request(Ask.DISC), b"whatever follows")
    assert not loop.closed
    loop.do()
    assert answers(loop.theirs.recv(100)) == [(1, 0)]
    assert loop.closed == ["the other end has said goodbye"]
    assert not loop.watched


def test_an_abort_is_answered(loop: Loop) -> None:
    wire = loop.disk_wire()
    wire.close()
    assert loop.closed == []
    loop.again()
    wire.open(loop.ours)
    loop.say(HELLO, option(2))
    assert loop.hear()[-20:] == struct.pack(">QIII", 0x3E889045565A9, 2, 1, 0)
    assert loop.closed == ["the other end has said goodbye"]


def test_who_goes_leaves_nothing_behind_and_the_next_one_comes(loop: Loop) -> None:
    wire = loop.disk_wire()
    loop.say(request(Ask.WRITE, 1, 0, data=block(1)), request(Ask.READ, 2, 0, ROOM_BYTES // 2))
    loop.theirs.close()
    loop.turn()
    assert loop.closed == ["the other end has gone"]
    assert not idle(wire)
    loop.die()
    loop.revive(SECTORS)
    assert idle(wire)
    assert not loop.calls, "nobody wants it any more"
    loop.again()
    wire.open(loop.ours)
    loop.say(HELLO, go())
    loop.hear()
    loop.say(*[request(Ask.READ, number, 0, ROOM_BYTES // 2) for number in range(2)])
    assert len(loop.calls) == 2, "all memory is there again"


def test_what_the_next_one_asks_for_comes_after_what_the_last_one_did(loop: Loop) -> None:
    wire = loop.disk_wire()
    loop.say(request(Ask.WRITE, 1, 0, data=block(1)), request(Ask.WRITE, 2, 0, data=block(2)))
    wire.close()
    loop.again()
    wire.open(loop.ours)
    loop.say(HELLO, go(), request(Ask.WRITE, 3, 0, data=block(3)))
    loop.do(1)
    assert len(loop.calls) == 1, "the first is still under way"
    loop.do()
    loop.do()
    assert loop.disk[:SECTOR] == block(3)
    assert answers(loop.hear()[-16:]) == [(3, 0)]
    assert idle(wire)


def test_who_breaks_the_protocol_is_hung_up_on(loop: Loop) -> None:
    wire = loop.disk_wire()
    loop.say(request(Ask.READ, 1, 0, SECTOR), b"\r\n" * 20)
    [why] = loop.closed
    assert why.startswith("it has broken the protocol: a request that begins with 0xd0a")
    loop.do()
    assert idle(wire)
    assert not loop.watched
    assert loop.theirs.recv(10) == b""


def test_a_disk_that_is_read_only_is_not_written(loop: Loop) -> None:
    loop.disk_wire(read_only=True)
    loop.say(request(Ask.WRITE, 1, 0, data=block(1)))
    assert not loop.calls
    assert answers(loop.hear()) == [(1, 1)]
