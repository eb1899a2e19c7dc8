"""A client's end of a channel whose outcomes the loop tells: once each, whatever is done to it."""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from ukernel.abi.recorder import SIZE
from ukernel.abi.tally import Tally
from ukernel.abi.wire import MAX_BODY
from ukernel.lib import ring
from ukernel.lib.channel import Channel, Closed, Parts
from ukernel.lib.ring import SERVER_WANTS_ROOM, Garbage, Sender


class Both:
    """A channel, and what the server and the kernel write into it. It must never wait."""

    def __init__(self) -> None:
        self.page, memory = bytearray(8), memoryview(bytearray(ring.CHANNEL_BYTES))
        self.bells = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3)]
        tally = Tally(memoryview(bytearray(SIZE)))
        self.finished: deque[Any] = deque()
        connection: Any = SimpleNamespace(
            fd=self.bells[2], tally=tally, finished=self.finished, stirred=False
        )
        parts = Parts(memoryview(self.page), memory, self.bells[0], self.bells[1])
        self.end = Channel(connection, 1, parts, 0)
        self.words, _, replies = ring.rings(memory)
        self.replies = replies
        self.server = Sender(self.words, replies, ring.REPLY_TAIL, ring.REPLY_HEAD)
        self.told: list[int] = []

    def ask(self, count: int) -> list[int]:
        """Begin so many calls, to be told of each."""
        numbers = [self.end.post(1, b"x", 0) for _ in range(count)]
        for number in numbers:
            self.end.tell(number, partial(self.told.append, number))
        return numbers

    def turn(self) -> list[int]:
        """What the loop tells of; in this turn."""
        self.end.look()
        before = len(self.told)
        while self.finished:
            self.finished.popleft()()
        return self.told[before:]

    def close(self) -> None:
        if self.end.held:
            self.end.close()
        os.close(self.bells[2])


@pytest.fixture
def both() -> Iterator[Both]:
    made = Both()
    yield made
    made.close()


def test_each_outcome_is_told_once(both: Both) -> None:
    one, two, three = both.ask(3)
    both.server.send(0, two, 0, b"2")
    both.end.forget(three)
    both.server.send(0, three, 0, b"3")
    assert both.end.nudge()
    assert both.turn() == [two]
    assert both.end.collect(two, 0).body == b"2"
    assert not both.end.nudge()
    both.page[0] = 1
    assert both.end.nudge()
    both.server.send(0, one, 0, b"its last")
    assert both.turn() == [one]
    assert both.turn() == []
    assert both.end.collect(one, 0).body == b"its last"
    assert both.end.deserted


def test_of_a_channel_that_is_closed_all_is_told_and_what_was_not_taken_has_not_begun(
    both: Both,
) -> None:
    numbers = both.ask(3)
    both.words[ring.REQUEST_HEAD] = 2
    both.page[0] = 1
    assert not both.end.deserted
    assert both.turn() == numbers
    for number in numbers:
        with pytest.raises(Closed):
            both.end.collect(number, 0)
    assert [both.end.taken(number) for number in numbers] == [True, True, False]
    late = both.ask(1)
    assert both.turn() == late, "which is told although nothing comes any more"


@pytest.mark.parametrize("kind", ["slot", "length"])
def test_garbage_is_told_to_all_who_wait_and_nobody_waits_for_more(both: Both, kind: str) -> None:
    numbers = both.ask(2)
    if kind == "slot":
        ring.HEAD.pack_into(both.replies, 0, 0, 0, 0, numbers[0], 0)
        both.words[ring.REPLY_TAIL] = 1
        assert both.turn() == numbers
    else:  # part after part, each of which is one
        sent, body = 0, bytes(2 * MAX_BODY)
        found: list[int] = []
        while not found:
            sent = both.server.send(0, numbers[0], 0, body, sent)
            found = both.turn()
        assert found == numbers
    for number in numbers:
        with pytest.raises(Garbage):
            both.end.collect(number, 0)
        assert both.end.taken(number), "as far as anybody knows"


def test_who_waits_for_room_is_told_that_there_is_some_before_this_end_sleeps(both: Both) -> None:
    os.eventfd_write(both.bells[0], 1)
    both.end.sleep()
    poll = select.epoll()
    poll.register(both.bells[0], select.EPOLLIN | select.EPOLLET)
    poll.poll(0)
    both.words[SERVER_WANTS_ROOM] = 1
    assert not both.end.nudge()
    assert poll.poll(0), "rung"
    poll.close()


def test_a_channel_that_was_let_go_of_touches_its_descriptors_no_more(both: Both) -> None:
    numbers = both.ask(3)
    both.words[SERVER_WANTS_ROOM] = 1
    both.server.send(0, numbers[0], 0, b"0")
    both.server.send(0, numbers[1], 0, b"1")
    still: list[os.stat_result] = []
    both.end.leaving = lambda end: still.append(os.fstat(end.bell))
    both.end.close()
    assert still, "who watches it unwatches it while it is open"
    assert [len(both.finished), both.end.held] == [3, False]
    assert both.end.collect(numbers[1], 0).body == b"1"
    assert both.end.collect(numbers[0], 0).body == b"0"
    with pytest.raises(Closed):
        both.end.collect(numbers[2], 0)
