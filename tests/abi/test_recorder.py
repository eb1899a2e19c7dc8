"""recorder: a note is whole or none, whenever its writer dies; the poison table bears anything."""

from __future__ import annotations

import mmap
import os
import random
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ukernel.abi.recorder import (
    ACQUITTED,
    BODY,
    DIGEST,
    DIGESTS,
    MOST_BODY,
    MOST_POISON,
    NOTE,
    POISONED,
    SIZE,
    SUSPECTS,
    Note,
    Recorder,
)

U16, U64 = st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1)
NUMBER = st.integers(1, 2**64 - 1)
BODIES = st.binary(max_size=64) | st.integers(MOST_BODY - 2, SIZE).map(lambda n: b"\xee" * n)
NOTES = st.tuples(NUMBER, U64, U16, BODIES)
Call = tuple[int, int, int, bytes]


def blank() -> tuple[bytearray, Recorder]:
    memory = bytearray(SIZE)
    return memory, Recorder(memoryview(memory))


def digests(count: int) -> list[bytes]:
    return [number.to_bytes(DIGEST, "little") for number in range(1, count + 1)]


# --- the request in hand -------------------------------------------------------------------------


def test_nothing_is_in_hand_at_first() -> None:
    _, recorder = blank()
    assert recorder.note() is None
    assert recorder.poison() == []
    assert not recorder.take(1, 0, 1, b"")
    recorder.drop()
    assert not recorder.in_hand_is_poison()


@given(NOTES, NOTES)
def test_the_last_request_is_in_hand_until_it_is_done(first: Call, second: Call) -> None:
    _, recorder = blank()
    for number, badge, opcode, body in (first, second):
        recorder.take(number, badge, opcode, body)
        note = recorder.note()
        assert note == Note(number, badge, opcode, len(body), body[:MOST_BODY])
        assert note.whole == (len(body) <= MOST_BODY)
    recorder.done()
    assert recorder.note() is None


@given(NOTES, st.lists(st.binary(min_size=DIGEST, max_size=DIGEST), max_size=MOST_POISON))
def test_notes_and_poison_leave_each_other_alone(call: Call, poison: list[bytes]) -> None:
    _, recorder = blank()
    recorder.set_poison(poison)
    recorder.take(*call)
    assert recorder.poison() == poison
    before = recorder.note()
    recorder.set_poison(poison[1:])
    assert recorder.note() == before
    recorder.done()
    assert recorder.poison() == poison[1:]


def test_the_same_request_said_again_has_the_same_digest() -> None:
    note = Note(7, 3, 5, 4, b"body")
    assert len(note.digest) == DIGEST
    assert note._replace(number=8).digest == note.digest
    others = [
        note._replace(badge=4),
        note._replace(opcode=6),
        note._replace(length=5),
        note._replace(body=b"bodY"),
    ]
    assert len({note.digest, *(other.digest for other in others)}) == 5


# --- half a note ---------------------------------------------------------------------------------


def test_torn_at_any_byte_it_is_none() -> None:
    """`take` strikes the old number out, writes from front to back, and the number last."""
    old, recorder = blank()
    recorder.take(1, 2, 3, b"old" * 999)
    new, other = blank()
    other.take(4, 5, 6, b"newer" * 811)
    for cut in range(8, BODY + MOST_BODY + 1):
        old[:8] = bytes(8)
        old[8:cut] = new[8:cut]
        assert recorder.note() is None
        assert not recorder.in_hand_is_poison()
    old[:8] = new[:8]
    assert recorder.note() == other.note()


@given(st.binary(min_size=NOTE.size, max_size=100), st.integers(0, 2**64 - 1), st.binary())
def test_whatever_the_page_holds_it_can_be_read(head: bytes, count: int, table: bytes) -> None:
    """It is the memory of a process that may be hostile."""
    memory, recorder = blank()
    memory[: len(head)] = head
    memory[POISONED:DIGESTS] = count.to_bytes(8, "little")
    memory[DIGESTS : DIGESTS + len(table)] = table[: SIZE - DIGESTS]
    note = recorder.note()
    assert (note is None) == (head[:8] == bytes(8))
    assert note is None or (len(note.body) <= MOST_BODY and note.digest)
    assert len(recorder.poison()) == min(count, MOST_POISON)
    assert recorder.in_hand_is_poison() in (True, False)


BUSY = """\
import mmap, os, sys
from ukernel.abi.recorder import SIZE, Recorder
recorder = Recorder(memoryview(mmap.mmap(int(sys.argv[1]), SIZE)))
number = 0
while True:
    number += 1
    recorder.take(number, number, number % 65536, number.to_bytes(8, "little") * (number % 600))
    if number % 500 == 0:
        os.write(1, b".")
    recorder.done()
"""


@pytest.mark.parametrize("seed", range(8))
def test_killed_at_any_moment_it_leaves_a_whole_note_or_none(seed: int) -> None:
    fd = os.memfd_create("recorder")
    os.ftruncate(fd, SIZE)
    argv = [sys.executable, "-c", BUSY, str(fd)]
    with (
        mmap.mmap(fd, SIZE) as memory,
        subprocess.Popen(argv, stdout=subprocess.PIPE, pass_fds=[fd]) as process,
    ):
        assert process.stdout is not None
        process.stdout.read(1 + random.Random(seed).randrange(40))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        note = Recorder(memoryview(memory[:])).note()
    os.close(fd)
    if note is not None:
        body = note.number.to_bytes(8, "little") * (note.number % 600)
        expected = note.number, note.number % 65536, len(body), body[:MOST_BODY]
        assert (note.badge, note.opcode, note.length, note.body) == expected


# --- poison --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, MOST_POISON - 1, MOST_POISON, MOST_POISON + 1, 300])
def test_the_table_keeps_the_latest(count: int) -> None:
    _, recorder = blank()
    recorder.set_poison(digests(count))
    assert recorder.poison() == digests(count)[-MOST_POISON:]
    assert recorder.take(1, 0, 1, b"") == (count > 0)


def test_the_table_fits() -> None:
    assert BODY + MOST_BODY == POISONED
    assert DIGESTS + MOST_POISON * DIGEST == SUSPECTS
    assert SUSPECTS + 8 + MOST_POISON * DIGEST <= SIZE


def test_what_is_done_is_not_suspected_any_more() -> None:
    _, recorder = blank()
    recorder.take(1, 2, 3, b"suspect")
    note = recorder.note()
    assert note is not None
    recorder.set_poison(digests(MOST_POISON))
    recorder.set_suspects([*digests(3), note.digest, *digests(60)])
    recorder.drop()
    assert note.digest in recorder.suspects()
    recorder.take(9, 2, 3, b"suspect")
    recorder.done()
    assert recorder.suspects() == [*digests(3), ACQUITTED, *digests(60)]
    assert recorder.poison() == digests(MOST_POISON)


def test_what_is_pardoned_is_gone() -> None:
    _, recorder = blank()
    recorder.set_poison(digests(5))
    recorder.set_poison(digests(2))
    assert recorder.poison() == digests(2)
    recorder.set_poison([])
    assert not recorder.take(1, 0, 1, b"")


def test_poison_is_known_by_what_it_says() -> None:
    _, recorder = blank()
    recorder.take(1, 2, 3, b"lethal")
    note = recorder.note()
    assert note is not None
    recorder.set_poison([*digests(3), note.digest])
    assert recorder.in_hand_is_poison()
    recorder.take(99, 2, 3, b"lethal")
    assert recorder.in_hand_is_poison()
    for harmless in [(1, 9, 3, b"lethal"), (1, 2, 9, b"lethal"), (1, 2, 3, b"harmless")]:
        recorder.take(*harmless)
        assert not recorder.in_hand_is_poison()
    recorder.done()
    assert not recorder.in_hand_is_poison()


@settings(max_examples=50)
@given(st.integers(MOST_BODY + 1, SIZE), st.binary(min_size=1, max_size=8))
def test_of_a_long_body_the_head_and_the_length_count(length: int, tail: bytes) -> None:
    """Of requests that long it cannot tell those apart that begin alike."""
    _, recorder = blank()
    head = bytes(MOST_BODY)
    found = []
    for body in (bytes(length), head + (tail * length)[: length - MOST_BODY], bytes(length + 1)):
        recorder.take(1, 0, 1, body)
        note = recorder.note()
        assert note is not None
        assert not note.whole
        found.append(note.digest)
    assert found[0] == found[1] != found[2]
