"""quarantine: the second death by a request keeps it from all later lives, until it is pardoned."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.quarantine import LETHAL, Box
from ukernel.abi.recorder import BODY, MOST_POISON, SIZE, Recorder

Request = tuple[int, int, bytes]  # badge, opcode, body
LETHAL_ONE: Request = (0, 7, b"drop table")
OTHER: Request = (0, 7, b"select")


class Slot:
    """A box, and its page as each life of the slot has it."""

    def __init__(self) -> None:
        self.box = Box("victim")
        self.lives = 0

    def life(self) -> Recorder:
        return Recorder(memoryview(mmap.mmap(self.box.fd, SIZE)))

    def dies_of(self, *requests: Request, guilty: bool = True, done: bool = False) -> int:
        """A life that takes these requests and dies of the last, or after it: how many lives died
        of it so far; 0: it is not blamed."""
        life = self.life()
        for badge, opcode, body in requests:
            life.done()
            self.lives += 1
            life.take(self.lives, badge, opcode, body)
        if done:
            life.done()
        case = self.box.open(guilty)
        return case.deaths if case else 0

    def refuses(self, request: Request) -> bool:
        life = self.life()
        badge, opcode, body = request
        found = life.take(1 << 40, badge, opcode, body) and life.in_hand_is_poison()
        life.drop()
        return found


@pytest.fixture
def slot() -> Iterator[Slot]:
    made = Slot()
    yield made
    made.box.close()


def test_the_second_death_is_enough(slot: Slot) -> None:
    assert LETHAL == 2
    assert slot.dies_of(LETHAL_ONE) == 1
    assert slot.box.quarantined == []
    assert not slot.refuses(LETHAL_ONE)
    assert slot.dies_of(OTHER, LETHAL_ONE) == 2
    assert [case.note.body for case in slot.box.quarantined] == [LETHAL_ONE[2]]
    assert slot.refuses(LETHAL_ONE)
    assert not slot.refuses(OTHER)


def test_deaths_need_not_follow_each_other(slot: Slot) -> None:
    slot.dies_of(LETHAL_ONE)
    for number in range(10):
        assert slot.dies_of((0, 7, b"%d" % number)) == 1
    assert slot.dies_of(LETHAL_ONE) == 2


def test_two_requests_may_be_lethal(slot: Slot) -> None:
    for _ in range(LETHAL):
        slot.dies_of(LETHAL_ONE)
        slot.dies_of(OTHER)
    assert slot.refuses(LETHAL_ONE)
    assert slot.refuses(OTHER)


def test_another_badge_is_another_request(slot: Slot) -> None:
    badge, opcode, body = LETHAL_ONE
    slot.dies_of(LETHAL_ONE)
    assert slot.dies_of((badge + 1, opcode, body)) == 1
    assert slot.dies_of((badge, opcode + 1, body)) == 1
    assert slot.box.quarantined == []


def test_who_dies_idle_dies_of_nothing(slot: Slot) -> None:
    assert slot.dies_of() == 0
    assert slot.dies_of(LETHAL_ONE, done=True) == 0
    assert slot.dies_of(LETHAL_ONE) == 1


def test_a_note_counts_once(slot: Slot) -> None:
    """The next life may die before it has taken anything."""
    slot.dies_of(LETHAL_ONE)
    assert slot.dies_of() == 0
    assert slot.box.quarantined == []


def test_who_was_killed_did_not_die_of_it(slot: Slot) -> None:
    for _ in range(5):
        assert slot.dies_of(LETHAL_ONE, guilty=False) == 0
        assert slot.dies_of() == 0  # and it is not there for the next one
    assert not slot.refuses(LETHAL_ONE)


def test_half_a_note_accuses_nobody(slot: Slot) -> None:
    for _ in range(3):
        life = mmap.mmap(slot.box.fd, SIZE)
        life[8 : BODY + 5] = os.urandom(BODY - 3)  # all but the number
        assert slot.box.open(True) is None


def test_a_suspect_that_is_handled_is_none(slot: Slot) -> None:
    """Whoever handled it and lived shows that it was not the request."""
    assert slot.dies_of(LETHAL_ONE) == 1
    assert slot.dies_of(OTHER, LETHAL_ONE, OTHER, done=True) == 0
    assert slot.dies_of(LETHAL_ONE) == 1
    assert slot.dies_of(LETHAL_ONE) == 2


def test_who_died_again_before_it_was_handled_shows_nothing(slot: Slot) -> None:
    assert slot.dies_of(LETHAL_ONE) == 1
    assert slot.dies_of(LETHAL_ONE, guilty=False) == 0
    assert slot.dies_of(LETHAL_ONE) == 2


def test_a_pardon_lasts_until_the_next_death(slot: Slot) -> None:
    for request in (OTHER, LETHAL_ONE):
        for _ in range(LETHAL):
            slot.dies_of(request)
    case = next(c for c in slot.box.quarantined if c.note.body == LETHAL_ONE[2])
    slot.box.pardon(case)
    assert not slot.refuses(LETHAL_ONE)
    assert slot.refuses(OTHER)
    assert slot.dies_of(LETHAL_ONE) == LETHAL
    assert slot.refuses(LETHAL_ONE)


def test_more_than_the_page_has_room_for(slot: Slot) -> None:
    """The oldest go."""
    requests = [(0, 1, b"%d" % number) for number in range(MOST_POISON + 3)]
    for request in requests:
        for _ in range(LETHAL):
            slot.dies_of(request)
    assert [slot.refuses(request) for request in requests] == [*[False] * 3, *[True] * MOST_POISON]


def test_each_slot_has_its_own(slot: Slot) -> None:
    other = Slot()
    for _ in range(LETHAL):
        slot.dies_of(LETHAL_ONE)
    assert not other.refuses(LETHAL_ONE)
    other.box.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=12))
def test_what_is_refused_is_what_two_lives_died_of(
    slot: Slot, deaths: list[tuple[str, bool, bool]]
) -> None:
    """A death is of a request when that was in hand and nobody else was to blame. Lives that
    handle it between the first and the second clear it."""
    slot.box.close()
    slot.box = Box("victim")
    count = dict.fromkeys("abc", 0)
    for name, guilty, done in deaths:
        if done and count[name] < LETHAL:
            count[name] = 0
        count[name] += guilty and not done
        slot.dies_of((0, 1, name.encode()), guilty=guilty, done=done)
    for name, times in count.items():
        assert slot.refuses((0, 1, name.encode())) == (times >= LETHAL)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200), st.integers(0, SIZE - 200))
def test_a_hostile_page_is_only_a_page(slot: Slot, bytes_: bytes, at: int) -> None:
    life = mmap.mmap(slot.box.fd, SIZE)
    life[at : at + len(bytes_)] = bytes_
    slot.box.open(True)
    assert slot.box.open(True) is None
