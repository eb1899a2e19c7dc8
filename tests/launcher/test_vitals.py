"""vitals: since when the same request is in hand, told from one look to the next."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import pytest

from launcher.quarantine import Box
from launcher.tasks import Task
from launcher.vitals import Examiner
from ukernel.abi.recorder import SIZE, Recorder
from ukernel.abi.syscalls import Grant
from ukernel.abi.tally import CHANNEL, Callee, Tally


class Slot:
    """A task without a process, its page, and who looks at it."""

    def __init__(self) -> None:
        self.box = Box("disk")
        nobody: Any = None
        grants = [Grant("endpoint", "above", 1, "clerk")]
        self.task = Task("disk", "servers.disk", grants, b"", nobody, self.box, life=1)
        page = memoryview(mmap.mmap(self.box.fd, SIZE))
        self.recorder, self.tally = Recorder(page), Tally(page)
        self.examiner = Examiner()

    def begun(self, now_ns: int) -> list[int]:
        return self.examiner._begun_ns(self.task, now_ns)


@pytest.fixture
def slot() -> Iterator[Slot]:
    made = Slot()
    yield made
    made.box.close()


def test_the_same_request_in_hand_was_begun_when_it_was_first_seen(slot: Slot) -> None:
    assert slot.begun(1) == []
    slot.recorder.take(5, 0, 1, b"a")
    assert [slot.begun(now) for now in (2, 3)] == [[2], [2]]
    slot.recorder.done()
    slot.recorder.take(6, 0, 1, b"a")
    assert slot.begun(4) == [4]
    slot.recorder.done()
    assert slot.begun(5) == []
    slot.recorder.take(6, 0, 1, b"a")
    assert slot.begun(6) == [6]
    slot.task.life = 2
    assert slot.begun(7) == [7]


def test_what_is_put_off_ages_while_nothing_is_answered(slot: Slot) -> None:
    slot.tally.tell_doors(9, 0)
    assert slot.begun(1) == []
    slot.tally.tell_doors(10, 1)
    assert slot.begun(2) == [2]
    slot.tally.tell_doors(12, 3)
    assert slot.begun(3) == [2]
    slot.tally.tell_doors(12, 2)
    assert slot.begun(4) == [4]
    slot.tally.tell_doors(12, 0)
    assert slot.begun(5) == []


def test_a_wait_is_believed_for_whom_the_task_may_call(slot: Slot) -> None:
    slot.tally.waits(Callee("above", 0), 3, CHANNEL, 7)
    waiting = slot.task.waiting
    assert waiting is not None
    assert (waiting.callee, waiting.opcode, waiting.since_ns) == (Callee("clerk", 0), 3, 7)
    slot.tally.waits(Callee("timer", 0), 3, CHANNEL, 7)
    assert slot.task.waiting is None
