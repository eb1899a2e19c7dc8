"""targets: how a life ended is told as it was, whoever was about to end it otherwise."""

from __future__ import annotations

import signal

import pytest

from launcher.chaos.deaths import WAYS
from launcher.chaos.targets import by_status, in_words
from launcher.tasks import Stages
from ukernel.abi.exits import OUT_OF_MEMORY

KILL = -signal.SIGKILL
HUNG = "hung: silent for 400 ms after a ping"
LOST = "is gone, or does not read its messages"
FULL = "has 90 bytes of memory, and may have 80"


def death(status: int, cause: str) -> Stages:
    return Stages("disk", 1, status, cause)


@pytest.mark.parametrize(
    ("status", "cause", "words", "linux"),
    [
        (KILL, "killed by SIGKILL", "killed by SIGKILL", "killed by SIGKILL"),
        (KILL, HUNG, HUNG, "killed by SIGKILL"),
        (0, "exit 0", "exit 0", "exit 0"),
        (143, LOST, "exit 143", "exit 143"),  # it was on its way out already
        (OUT_OF_MEMORY, LOST, "met its memory limit", "met its memory limit"),
    ],
)
def test_how_a_life_ended(status: int, cause: str, words: str, linux: str) -> None:
    assert in_words(death(status, cause)) == words
    assert by_status(death(status, cause)) == linux


def test_nobody_knows_of_who_was_asked_to_leave() -> None:
    assert in_words(None) == by_status(None) == "it ended"


@pytest.mark.parametrize(
    ("action", "status", "cause"),
    [
        ("hang", KILL, HUNG),
        ("hang", KILL, "has a call in hand for 3.0 s without progress"),
        ("hang", KILL, LOST),
        ("exit", 0, "exit 0"),
        ("exit", 0, LOST),
        ("leak", OUT_OF_MEMORY, "met its memory limit"),
        ("leak", KILL, FULL),
    ],
)
def test_a_process_that_misbehaves_ends_in_its_way(action: str, status: int, cause: str) -> None:
    assert WAYS[action].ends(death(status, cause))


@pytest.mark.parametrize(
    ("action", "status", "cause"),
    [
        ("hang", KILL, "killed by SIGKILL"),
        ("hang", 1, "exit 1"),
        ("exit", KILL, HUNG),
        ("exit", 1, "exit 1"),
        ("leak", KILL, HUNG),
    ],
)
def test_what_ended_otherwise_had_not_misbehaved(action: str, status: int, cause: str) -> None:
    assert not WAYS[action].ends(death(status, cause))
