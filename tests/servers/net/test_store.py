"""What `net` keeps through its deaths: whoever is killed, at any instruction, leaves it whole."""

from __future__ import annotations

import mmap
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.net.store import LARGE, MAGIC, PAST, PASTS, SOCKETS, Geometry, Record, Store
from tests.servers.net.scribe import MARK, OPENED, SECRET, SHAPE, Entry, step, stream, valid

KILLS = 100
ROOM = LARGE - 12  # bytes of a record
SMALL_SHAPE = Geometry(4, 64, 32)


def memory_of(shape: Geometry) -> memoryview:
    return memoryview(bytearray(shape.total))


# --- records -------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=ROOM), max_size=8))
def test_a_record_is_what_was_written_last_whoever_opens_it(texts: list[bytes]) -> None:
    memory = memoryview(bytearray(3 * LARGE))
    record = Record(memory, 8, LARGE)
    assert record.read() == b""
    for text in texts:
        Record(memory, 8, LARGE).write(text)
        record = Record(memory, 8, LARGE)
        assert record.read() == text
    for text in texts:
        record.write(text)
        assert record.read() == Record(memory, 8, LARGE).read() == text
    assert not any(memory[:8])
    assert not any(memory[8 + 2 * LARGE :])


@given(st.binary(max_size=ROOM), st.binary(max_size=ROOM), st.data())
@settings(max_examples=60)
def test_a_write_that_was_cut_short_has_not_happened(
    old: bytes, new: bytes, data: st.DataObject
) -> None:
    """Whatever it has done to the copy that does not count, before the last store."""
    memory = memoryview(bytearray(2 * LARGE))
    record = Record(memory, 0, LARGE)
    record.write(b"before")
    record.write(old)
    other = (1 - record._current) * LARGE
    size = data.draw(st.integers(0, LARGE - 8))
    memory[other + 8 : other + 8 + size] = data.draw(st.binary(min_size=size, max_size=size))
    found = Record(memory, 0, LARGE)
    assert found.read() == old
    found.write(new)
    assert Record(memory, 0, LARGE).read() == new


def test_a_record_that_is_too_long_harms_nothing() -> None:
    memory = memoryview(bytearray(3 * LARGE))
    record = Record(memory, 0, LARGE)
    record.write(b"as it was")
    with pytest.raises(ValueError, match="assignment"):
        record.write(bytes([1]) * (ROOM + 1))
    assert record.read() == Record(memory, 0, LARGE).read() == b"as it was"
    assert not any(memory[2 * LARGE :])
    record.write(bytes([2]) * ROOM)
    assert Record(memory, 0, LARGE).read() == bytes([2]) * ROOM


# --- the store -----------------------------------------------------------------------------------


def test_nothing_lies_upon_anything_else() -> None:
    memory = memory_of(SMALL_SHAPE)
    store = Store(memory, SMALL_SHAPE, SECRET)
    for number, slot in enumerate(store.slots):
        slot.record.write(bytes([number + 1]) * ROOM)
        slot.send.put(0, bytes([number + 11]) * SMALL_SHAPE.send)
        slot.receive.put(0, bytes([number + 21]) * SMALL_SHAPE.receive)
        assert memory[slot.send.base] == number + 11, "where others find it"
        assert memory[slot.receive.base] == number + 21
    for number, record in enumerate(store.sockets):
        record.write(bytes([number % 256]) * 108)
    for number in range(PASTS):
        store.write_past(number, bytes([number % 256]) * PAST)
    again = Store(memory, SMALL_SHAPE, bytes(32))
    for number, slot in enumerate(again.slots):
        assert slot.record.read() == bytes([number + 1]) * ROOM
        assert bytes(slot.send.memory) == bytes([number + 11]) * SMALL_SHAPE.send
        assert bytes(slot.receive.memory) == bytes([number + 21]) * SMALL_SHAPE.receive
    for number, record in enumerate(again.sockets):
        assert record.read() == bytes([number % 256]) * 108
    assert again.pasts(PAST) == [bytes([number % 256]) * PAST for number in range(PASTS)]
    assert (again.secret, again.lives) == (SECRET, 2)


def test_another_shape_is_a_new_beginning() -> None:
    memory = memory_of(Geometry(4, 128, 64))
    store = Store(memory, SMALL_SHAPE, SECRET)
    for slot in store.slots:
        slot.record.write(b"something")
    store.sockets[3].write(b"something")
    for shape in (Geometry(3, 64, 32), Geometry(4, 128, 32), Geometry(4, 64, 64), SMALL_SHAPE):
        other = Store(memory, shape, bytes([shape.send]) * 32)
        assert (other.secret, other.lives) == (bytes([shape.send]) * 32, 1)
        assert not list(other.used())
        assert not list(other.used_sockets())
        for slot in other.slots:
            slot.record.write(b"something")
        assert Store(memory, shape, SECRET).lives == 2


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=30))
@settings(max_examples=40)
def test_what_is_given_back_is_free_now_and_in_the_next_life(moves: list[tuple[bool, int]]) -> None:
    memory = memory_of(SMALL_SHAPE)
    store = Store(memory, SMALL_SHAPE, SECRET)
    taken = []
    for take, which in moves:
        if take and (slot := store.take()) is not None:
            slot.record.write(bytes([which + 1]))
            taken.append(slot)
        elif taken and not take:
            slot = taken.pop(which % len(taken))
            slot.record.write(b"")
            store.give_back(slot)
        if which == 9:  # a death
            bases = {slot.send.base for slot in taken}
            store = Store(memory, SMALL_SHAPE, bytes(32))
            taken = list(store.used())
            assert {slot.send.base for slot in taken} == bases
    free = []
    while slot := store.take():
        free.append(slot)
    assert len({s.send.base for s in free + taken}) == len(free + taken) == SMALL_SHAPE.connections


def test_what_is_taken_and_not_written_is_free_in_the_next_life() -> None:
    memory = memory_of(SMALL_SHAPE)
    store = Store(memory, SMALL_SHAPE, SECRET)
    while record := store.take_socket():
        record.write(b"a socket")
    assert len(list(store.used_sockets())) == SOCKETS
    store.give_back_socket(store.sockets[7])
    assert store.take_socket() is store.sockets[7]
    assert store.take_socket() is None
    for _ in range(SMALL_SHAPE.connections):
        assert store.take() is not None
    assert store.take() is None
    again = Store(memory, SMALL_SHAPE, SECRET)
    assert len([1 for _ in iter(again.take, None)]) == SMALL_SHAPE.connections
    assert again.take_socket() is again.sockets[7]


# --- real deaths ---------------------------------------------------------------------------------


class Scribe(NamedTuple):
    """Who begins lives, and the memory that he shares with us."""

    process: subprocess.Popen[str]
    memory: memoryview
    report: memoryview

    def begin(self, how: str = "write") -> int:
        """A new life; its process id."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{how}\n")
        self.process.stdin.flush()
        return int(self.line())

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        assert self.line() == "dead\n"


@pytest.fixture
def scribe() -> Iterator[Scribe]:
    fds = []
    for size in (SHAPE.total, mmap.PAGESIZE):
        fds.append(os.memfd_create("store"))
        os.ftruncate(fds[-1], size)
    command = [sys.executable, "-m", "tests.servers.net.scribe", *map(str, fds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=fds
    ) as process:
        memory = memoryview(mmap.mmap(fds[0], SHAPE.total))
        report = memoryview(mmap.mmap(fds[1], mmap.PAGESIZE)).cast("Q")
        for fd in fds:
            os.close(fd)
        yield Scribe(process, memory, report)


def test_a_record_is_whole_and_never_older_than_what_was_reported(scribe: Scribe) -> None:
    dice, lives, marks = random.Random(5), 0, 0
    for kill in range(KILLS):
        pid = scribe.begin()
        slot = dice.randrange(SHAPE.connections)
        enough = scribe.report[slot] + dice.randrange(12)
        while scribe.report[MARK] == marks or scribe.report[slot] < enough:
            if kill % 4 == 0 and dice.randrange(40) == 0:
                break  # while it opens the store, perhaps
            os.sched_yield()
        for _ in range(dice.randrange(300)):
            pass
        scribe.kill(pid)
        reported = list(scribe.report[: SHAPE.connections])
        store = Store(scribe.memory, SHAPE, bytes(32) if lives else SECRET)
        assert lives < store.lives <= lives + 2
        assert store.secret == SECRET
        lives, marks = store.lives, scribe.report[MARK]
        for number, seen in enumerate(reported):
            check(store, number, seen)
            scribe.report[number] = step(store.slots[number])  # any life goes on with it
    assert lives > KILLS


def check(store: Store, number: int, reported: int) -> None:
    """The record is one that somebody wrote, and the bytes are there to which it points."""
    slot = store.slots[number]
    data = slot.record.read()
    entry = Entry.of(data)
    assert not data or data == entry.pack()
    assert reported <= entry.serial <= reported + 1
    assert valid(slot.send, entry) == stream(entry.start, entry.end - entry.start)


def test_whoever_opens_it_does_not_touch_what_makes_it_a_store(scribe: Scribe) -> None:
    """Not for an instant, in which he may be killed."""
    assert Store(scribe.memory, SHAPE, SECRET).lives == 1
    words = scribe.memory[:64].cast("Q")
    shape = (SHAPE.connections, SHAPE.send, SHAPE.receive)
    pid, seen = scribe.begin("open"), set()
    while not scribe.report[MARK]:
        seen.add((words[0], words[2], words[3], words[4]))
    assert scribe.line() == "dead\n", pid
    assert seen == {(MAGIC, *shape)}
    assert Store(scribe.memory, SHAPE, bytes(32)).lives == OPENED + 3
