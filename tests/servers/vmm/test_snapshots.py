"""What the next life finds: snapshots, the transcript and the wish, whenever this one is killed."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.vmm import snapshots, transcript
from servers.vmm.snapshots import MEMORY, PAGE, STATE_ROOM, Snapshots, TooLarge
from servers.vmm.transcript import KEPT, ROOM, STEP, Transcript
from servers.vmm.wish import Wish, Wishes

SIZE = 4 * PAGE


def regions() -> list[memoryview]:
    return [memoryview(bytearray(snapshots.room(SIZE))) for _ in range(2)]


def content(number: int) -> memoryview:
    return memoryview(bytes([number]) * SIZE)


def found(views: list[memoryview]) -> list[tuple[bytes, int, int]]:
    """As the next life sees it: state, time, and the byte that all of the memory has."""
    told = []
    for each in Snapshots(views, SIZE).found():
        (byte,) = set(each.memory)
        assert len(each.memory) == SIZE
        told.append((each.state, each.taken_ns, byte))
    return told


def test_the_newest_comes_first_and_the_one_before_is_kept() -> None:
    views = regions()
    kept = Snapshots(views, SIZE)
    assert found(views) == []
    for number in range(1, 6):
        kept.write(b"%d" % number, content(number), number * 10)
        assert found(views)[0] == (b"%d" % number, number * 10, number)
    assert [each[0] for each in found(views)] == [b"5", b"4"]
    Snapshots(views, SIZE).write(b"6", content(6), 60)  # the next life's first
    assert [each[0] for each in found(views)] == [b"6", b"5"]
    kept.clear()
    assert found(views) == []


class Killed(Exception):
    pass


class Mortal:
    """A region whose writer is killed before its n-th store."""

    def __init__(self, view: memoryview, left: int) -> None:
        self.view, self.left = view, left

    def __setitem__(self, key: Any, value: Any) -> None:
        self.left -= 1
        if self.left < 0:
            if isinstance(key, slice):  # in the middle of it
                start = key.start or 0
                half = len(value) // 2
                self.view[start : start + half] = value[:half]
            raise Killed
        self.view[key] = value

    def __getitem__(self, key: Any) -> Any:
        return self.view[key]


@pytest.mark.parametrize("left", range(3))
def test_who_is_killed_while_it_writes_leaves_the_one_before(left: int) -> None:
    views = regions()
    kept = Snapshots(views, SIZE)
    for number in (1, 2, 3):
        kept.write(b"%d" % number, content(number), number)
    kept._regions = cast(Any, [Mortal(view, left) for view in views])
    with pytest.raises((Killed, TypeError)):  # the third store is of the head, by struct
        kept.write(b"4" * 1000, content(4), 4)
    assert found(views) == [(b"3", 3, 3)]
    Snapshots(views, SIZE).write(b"5", content(5), 5)
    assert [each[0] for each in found(views)] == [b"5", b"3"]


def test_what_is_damaged_or_of_another_machine_is_not_used() -> None:
    views = regions()
    kept = Snapshots(views, SIZE)
    kept.write(b"one", content(1), 1)
    kept.write(b"two", content(2), 2)
    views[1][PAGE] ^= 1
    assert [each[0] for each in found(views)] == [b"one"]
    assert Snapshots(views, SIZE // 2).found() == []
    with pytest.raises(TooLarge):
        kept.write(bytes(STATE_ROOM + 1), content(1), 1)
    assert len(kept.spare) >= SIZE + STATE_ROOM
    assert MEMORY % PAGE == 0


@given(st.lists(st.binary(max_size=3 * STEP), max_size=40), st.integers(1, 5000))
def test_a_transcript_is_the_end_of_all_that_was_put(pieces: list[bytes], most: int) -> None:
    memory = memoryview(bytearray(transcript.BYTES))
    everything = b""
    for piece in pieces:
        Transcript(memory).put(piece)  # each in another life
        everything += piece
    kept = Transcript(memory)
    assert kept.end == len(everything)
    at, seen = 0, b""
    while (got := kept.read(at, most))[1]:
        if not seen:
            assert got[0] == max(0, kept.end - KEPT)
        assert got[0] == at or not seen
        at, seen = got[0] + len(got[1]), seen + got[1]
    assert everything.endswith(seen)
    assert len(seen) == min(len(everything), KEPT)


def test_a_transcript_goes_on_elsewhere_at_the_same_position() -> None:
    here, there = (Transcript(memoryview(bytearray(transcript.BYTES))) for _ in range(2))
    here.put(b"x" * 100_000 + b"the end")
    there.put(b"something else")
    at, tail = here.read(here.end - 50, 50)
    there.adopt(here.end, tail)
    there.put(b", and more")
    assert there.read(0, ROOM) == (at, tail + b", and more")
    assert there.read(at + 43, 9) == (at + 43, b"the end, ")
    assert there.read(there.end + 5, 10) == (there.end, b"")


def test_a_wish_is_what_was_wished_last() -> None:
    memory = memoryview(bytearray(64))
    assert Wishes(memory).read() is Wish.NONE
    for wish in (Wish.RUN, Wish.EMPTY, Wish.STAND):
        Wishes(memory).write(wish)
        assert Wishes(memory).read() is wish
