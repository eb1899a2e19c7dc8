"""sweep: what each leg moved, and whether it was right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from launcher.chaos.evidence import FAIL, OK, OPEN, Leg, Operation
from launcher.chaos.history import Moved
from launcher.chaos.injecting import Injecting
from launcher.chaos.plan import PlannedLeg, kills
from launcher.chaos.player import Player
from launcher.chaos.sweep import Stretch, is_right, measured, moved_at
from launcher.chaos.workload import AnyWorkload

SAMPLES = [Moved(100, 1000), Moved(200, 3000), Moved(400, 3000)]
LEG = PlannedLeg(0, 1.0, 2.0, (0.25, 1.25))


def passed(number: int, begun_ns: int, ended_ns: int, outcome: str = OK, value: str = "aa") -> str:
    begin = {"n": number, "do": "begin", "op": "read", "key": "/big", "value": "", "at": begun_ns}
    end = {"n": number, "do": outcome, "value": value, "error": "", "at": ended_ns}
    return "".join(json.dumps(line) + "\n" for line in ([begin, end] if ended_ns else [begin]))


def read(begun_ns: int, ended_ns: int, outcome: str = OK, value: str = "aa") -> Operation:
    return Operation("reader", 0, "read", "/big", begun_ns, ended_ns, outcome, value)


@pytest.mark.parametrize(
    ("at_ns", "moved"),
    [(0, 0), (99, 0), (100, 1000), (150, 2000), (200, 3000), (300, 3000), (400, 3000), (900, 3000)],
)
def test_bytes_moved_until_a_moment(at_ns: int, moved: int) -> None:
    assert moved_at(SAMPLES, at_ns) == moved


def test_nothing_was_moved_by_who_says_nothing() -> None:
    assert moved_at([], 100) == 0


@pytest.mark.parametrize(
    ("operations", "right"),
    [
        ([read(100, 200)], True),
        ([read(0, 150), read(150, 320)], True),
        ([read(0, 90), read(310, 400, value="bb")], False),  # none within it
        ([read(100, 200), read(200, 290, value="bb")], False),
        ([read(100, 200), read(200, 310, value="bb")], False),
        ([read(100, 200), read(200, 290, FAIL, "")], False),
        ([read(100, 200), read(200, 0, OPEN, "")], False),
        ([read(100, 200), read(310, 400, value="bb")], True),
        ([], False),
    ],
)
def test_every_pass_that_touches_a_leg_counts(operations: list[Operation], right: bool) -> None:
    assert is_right(operations, 95, 300, "aa") is right


def test_a_leg_counts_the_kills_that_landed(tmp_path: Path) -> None:
    spec = TypeAdapter(AnyWorkload).validate_python({"client": "reader", "run": "read", "to": "fs"})
    player = Player(spec, 0, tmp_path)
    player.files.append(tmp_path / "reader.0.jsonl")
    samples = "".join(json.dumps({"moved": m.moved_bytes, "at": m.at_ns}) + "\n" for m in SAMPLES)
    player.files[0].write_text(samples + passed(0, 100, 250) + passed(1, 250, 390))
    injections = [Injecting(planned) for planned in kills(LEG, "disk", 0)]
    injections[0].land()
    (leg,) = measured([Stretch(LEG, 100, 300, injections)], player, "aa")
    assert leg == Leg(1.0, 0, 2000, 200 / 1e9, 1, True)


def test_the_kills_of_a_leg_are_injections_like_any_other() -> None:
    first, second = kills(LEG, "disk", 5)
    assert (first.number, first.at_s, first.action, first.target) == (5, 0.25, "kill", "disk")
    assert (second.number, second.at_s, dict(second.params)) == (6, 1.25, {"signal": "KILL"})
