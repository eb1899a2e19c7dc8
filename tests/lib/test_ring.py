"""Two ends of a ring: what goes in comes out, in order, once; garbage is called garbage."""

from __future__ import annotations

import struct
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ukernel.abi.wire import MAX_BODY
from ukernel.lib import ring
from ukernel.lib.ring import HEAD, HEAD_SIZE, SLOT, SLOTS, Garbage, Receiver, Sender

EXAMPLES = 60
EDGES = [1, 103, 104, 105, 232, 233, SLOT * SLOTS // 2 - HEAD_SIZE, SLOT * SLOTS, MAX_BODY]
SIZES = st.sampled_from(EDGES) | st.integers(1, 4000) | st.integers(1, MAX_BODY)
ALPHABET = bytes(range(251)) * (MAX_BODY // 251 + 2)  # of a length that divides nothing here
U64 = st.integers(0, 2**64 - 1)


class Ends:
    """Both ends, on memory that nobody else has."""

    def __init__(self) -> None:
        self.rings = ring.rings(memoryview(bytearray(ring.CHANNEL_BYTES)))
        words, data = self.rings.words, self.rings.requests
        at = ring.REQUEST_TAIL, ring.REQUEST_HEAD
        self.sender = Sender(words, data, *at)
        self.receiver = Receiver(words, data, *at)

    def put(self, tail: int, data: bytes = b"") -> None:
        """What a hostile writer writes."""
        self.rings.words[ring.REQUEST_TAIL] = tail
        self.rings.requests[: len(data)] = data


def body_of(number: int, size: int) -> bytes:
    start = number % 251
    return ALPHABET[start : start + size]


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(SIZES | st.none(), min_size=1, max_size=60), st.integers(0, 4 * SLOTS))
def test_any_interleaving_of_sends_and_receives_brings_every_message_once_and_in_order(
    moves: list[int | None], before: int
) -> None:
    """A number sends a message of that size, None receives what is there."""
    ends = Ends()
    for _ in range(before):  # so that the end of the ring comes anywhere
        ends.sender.send(1, 0, 0, b"x")
        assert ends.receiver.receive() == (1, 0, 0, b"x")
    sent: deque[tuple[int, int, int, bytes]] = deque()

    def take() -> None:
        if got := ends.receiver.receive():
            assert got == sent.popleft()

    for number, size in enumerate(moves, 1):
        if size is None:
            take()
            continue
        sent.append((number % 65536, number, 7 * number, body_of(number, size)))
        done = ends.sender.send(*sent[-1])
        while done < size:
            had = ends.receiver.head
            take()
            assert ends.receiver.head > had, "who has no room finds that the other can read"
            done = ends.sender.send(*sent[-1], done)
    while sent:
        take()
    assert ends.receiver.receive() is None
    assert not ends.receiver.ready


@given(st.integers(0, SLOTS), st.integers(1, SLOT * SLOTS))
@settings(max_examples=EXAMPLES, deadline=None)
def test_nothing_that_was_not_read_is_overwritten(filled: int, size: int) -> None:
    ends = Ends()
    for number in range(filled):
        ends.sender.send(1, number, 0, b"kept")
    ends.sender.send(2, filled, 0, body_of(0, size))
    assert [ends.receiver.receive() for _ in range(filled)] == [
        (1, number, 0, b"kept") for number in range(filled)
    ]


@pytest.mark.parametrize("died_after", range(4))
def test_a_writer_that_died_in_the_middle_of_a_message_has_sent_none(died_after: int) -> None:
    ends = Ends()
    body, sent = bytes(MAX_BODY), 0
    for _ in range(died_after):
        sent = ends.sender.send(1, 1, 0, body, sent)
        assert ends.receiver.receive() is None
    assert sent < MAX_BODY


def test_a_reader_has_taken_a_message_when_it_says_so_and_not_before() -> None:
    """It dies at any step: before its word it has nothing in hand, after it all."""
    ends = Ends()
    steps: list[str] = []

    class Words:
        def __getitem__(self, at: int) -> int:
            return int(ends.rings.words[at])

        def __setitem__(self, at: int, value: int) -> None:
            steps.append(f"head {value}")
            ends.rings.words[at] = value

    receiver = Receiver(Words(), ends.rings.requests, ring.REQUEST_TAIL, ring.REQUEST_HEAD)  # type: ignore[arg-type]
    ends.sender.send(1, 1, 0, b"a")
    end = ends.sender.tail
    assert ends.sender.read < end
    assert receiver.receive() == (1, 1, 0, b"a")
    assert steps == [f"head {end}"], "stored last, and once"
    assert ends.sender.read == end


PARTS = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 65535), st.integers(0, 65535), U64, U64)
    | st.tuples(st.integers(0, 104), st.just(1), st.integers(0, 1), U64, U64),
    max_size=20,
)


@given(st.lists(st.tuples(U64 | st.integers(0, 2 * SLOTS), PARTS), min_size=1, max_size=8))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_reader_of_anything_says_garbage_or_reads(said: list[tuple[int, list[object]]]) -> None:
    ends = Ends()
    try:
        for tail, parts in said:
            slots = (HEAD.pack(*part).ljust(SLOT, b"\x5a") for part in parts)  # type: ignore[misc]
            ends.put(tail, b"".join(slots))
            had = ends.receiver.head
            while got := ends.receiver.receive():
                assert 0 < len(got[3]) <= MAX_BODY
            assert ends.receiver.head - had <= SLOTS
            assert ends.receiver._kept <= MAX_BODY
    except Garbage:
        assert ends.receiver._kept <= MAX_BODY + SLOT * SLOTS


@given(U64, st.integers(0, SLOTS))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_writer_whose_reader_says_anything_says_garbage_or_writes(head: int, sent: int) -> None:
    ends = Ends()
    for _ in range(sent):
        ends.sender.send(1, 0, 0, b"x")
    ends.rings.words[ring.REQUEST_HEAD] = head
    try:
        assert 0 <= ends.sender.send(1, 0, 0, bytes(MAX_BODY)) < MAX_BODY
    except Garbage:
        assert head > ends.sender.tail
    assert ends.sender.tail - ends.sender._head <= SLOTS


def test_who_adds_parts_without_end_is_looked_at_for_a_ring_at_most() -> None:
    """And has not more than one body kept."""
    ends = Ends()
    part = HEAD.pack(1, 1, ring.MORE, 1, 0).ljust(SLOT, b"\0")
    ends.put(SLOTS, part * SLOTS)
    assert ends.receiver.receive() is None
    assert ends.receiver.head == SLOTS
    while ends.receiver._kept < MAX_BODY:
        ends.put(ends.receiver.head + SLOTS)
        assert ends.receiver.receive() is None
    ends.put(ends.receiver.head + SLOTS)
    with pytest.raises(Garbage, match=f"more than {MAX_BODY} bytes"):
        ends.receiver.receive()


@pytest.mark.parametrize("tail", [SLOTS + 1, 2**63, 2**64 - 1])
def test_a_tail_beyond_the_ring_or_going_backwards_is_garbage(tail: int) -> None:
    ends = Ends()
    ends.sender.send(1, 1, 0, b"x")
    assert ends.receiver.receive()
    ends.put(tail + 1 & 2**64 - 1)
    with pytest.raises(Garbage):
        ends.receiver.receive()
    ends.put(0)
    with pytest.raises(Garbage):
        ends.receiver.receive()


def test_the_head_of_a_part_fits_its_slot_and_the_words_their_page() -> None:
    assert struct.calcsize(HEAD.format) == HEAD_SIZE < SLOT
    assert (ring.CLIENT_WANTS_ROOM + 1) * 8 <= ring.PAGE
