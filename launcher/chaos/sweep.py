"""sweep: a bulk transfer while its server is killed at one interval after another.

The experiment of MINIX 3's authors: how much throughput is lost, against how often the driver dies.
One client reads without end; each leg is a stretch of its work, and what it moved in that time. A
leg lasts until what it has killed is READY again, so that none pays for another.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from launcher.chaos import history
from launcher.chaos.cast import Cast
from launcher.chaos.evidence import OK, OPEN, Leg, Operation
from launcher.chaos.history import Moved
from launcher.chaos.injecting import Injecting
from launcher.chaos.plan import PlannedLeg
from launcher.chaos.player import Player
from launcher.chaos.schedule import Nemesis
from launcher.chaos.stage import Stage

GRACE_S = 20.0  # after a leg's end, for a target that was never READY
TURN_S = 0.05
PASSES = ("read", "download")  # over the whole file


class Stretch(NamedTuple):
    """A leg as it was done."""

    planned: PlannedLeg
    begun_ns: int
    ended_ns: int
    injections: list[Injecting]

    @property
    def kills(self) -> int:
        """How many landed."""
        return sum(injecting.landed_ns > 0 for injecting in self.injections)


def run_leg(stage: Stage, cast: Cast, leg: PlannedLeg, nemesis: Nemesis) -> Stretch:
    """Do one leg, with its kills. Raises NotSettled."""
    begun_ns = time.monotonic_ns()
    nemesis.begin(begun_ns)
    while not nemesis.over or nemesis.elapsed_s < leg.for_s:
        left_s = max(0.0, leg.for_s - nemesis.elapsed_s)
        stage.pump(min(TURN_S, left_s if nemesis.over else nemesis.act()))
        cast.check()
        if nemesis.elapsed_s > leg.for_s + GRACE_S:
            nemesis.give_up()
    stage.settle()
    return Stretch(leg, begun_ns, time.monotonic_ns(), nemesis.injections)


def measured(stretches: Sequence[Stretch], player: Player, expected: str) -> list[Leg]:
    """What the client moved in each; `expected` is the SHA-256 of what it reads."""
    samples = [moved for file in player.files for moved in history.moved(file)]
    operations = player.operations()
    return [
        Leg(
            stretch.planned.every_s,
            stretch.planned.round,
            moved_at(samples, stretch.ended_ns) - moved_at(samples, stretch.begun_ns),
            (stretch.ended_ns - stretch.begun_ns) / 1e9,
            stretch.kills,
            is_right(operations, stretch.begun_ns, stretch.ended_ns, expected),
        )
        for stretch in stretches
    ]


def moved_at(samples: Sequence[Moved], at_ns: int) -> int:
    """Bytes moved until `at_ns`, evenly between two samples."""
    after = bisect_right(samples, at_ns, key=lambda sample: sample.at_ns)
    if not 0 < after < len(samples):
        return samples[-1].moved_bytes if samples and after else 0
    first, second = samples[after - 1], samples[after]
    share = (at_ns - first.at_ns) / (second.at_ns - first.at_ns)
    return first.moved_bytes + round(share * (second.moved_bytes - first.moved_bytes))


def is_right(operations: Sequence[Operation], begun_ns: int, ended_ns: int, expected: str) -> bool:
    """There was a pass over the file in this time, and each gave the right checksum."""
    touching = [
        op
        for op in operations
        if op.op in PASSES and op.begun_ns < ended_ns
        if op.ended_ns > begun_ns or op.outcome == OPEN
    ]
    return bool(touching) and all(op.outcome == OK and op.value == expected for op in touching)
