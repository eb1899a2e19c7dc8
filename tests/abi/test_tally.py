"""tally: what one side writes the other reads, over lives, and whatever is in the page."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ukernel.abi.recorder import SIZE, Recorder
from ukernel.abi.tally import (
    BEGUN,
    BY_CHANNEL,
    CHANNEL,
    MOST_NAME,
    STRANGER,
    Callee,
    Tally,
    Waiting,
)


def test_counts_go_on_in_the_next_life() -> None:
    page = memoryview(bytearray(SIZE))
    first, launcher = Tally(page), Tally(page)
    first.words[BY_CHANNEL] = first.calls + 5
    first.add_direct(3)
    first.tell_doors(7, 2)
    assert launcher.counts() == (5, 3, 7, 2)
    launcher.buried()
    second = Tally(page)
    second.words[BY_CHANNEL] = second.calls + 1
    second.add_direct(1)
    second.tell_doors(1, 0)
    assert launcher.counts() == (6, 4, 8, 0)


def test_a_wait_is_seen_from_its_beginning_to_its_end() -> None:
    page = memoryview(bytearray(SIZE))
    task, launcher = Tally(page), Tally(page)
    disk, file = Callee("disk", 0), Callee("fs", 0).handed_out()
    for callee, opcode, way, name in (
        (disk, 3, CHANNEL, "by channel"),
        (disk, 3, CHANNEL, "by channel"),
        (disk, 4, CHANNEL, "by channel"),
        (file, 4, BEGUN, ""),
    ):
        assert launcher.waiting() is None
        task.waits(callee, opcode, way, 77)
        assert launcher.waiting() == Waiting(callee, opcode, name, 77)
        task.over()
    task.waits(STRANGER, 1, CHANNEL, 77)
    assert launcher.waiting() is None
    task.waits(disk, 1, CHANNEL, 77)
    launcher.buried()
    assert launcher.waiting() is None


@given(st.binary(min_size=2048, max_size=2048))
def test_nothing_in_the_page_harms_who_reads_it(junk: bytes) -> None:
    page = memoryview(bytearray(SIZE))
    page[SIZE - len(junk) :] = junk
    launcher = Tally(page)
    waiting = launcher.waiting()
    assert waiting is None or len(waiting.callee.name) <= MOST_NAME
    assert all(count >= 0 for count in launcher.counts())
    life = Tally(page)
    life.words[BY_CHANNEL] = life.calls + 1
    life.add_direct(1)
    life.tell_doors(1, 0)
    assert Recorder(page).note() is None
