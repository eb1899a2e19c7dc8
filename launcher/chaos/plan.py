"""plan: from an experiment and a seed to what will be done, and when. Pure: the same every time.

Each action has dice of its own, so one that is added at the end of a file changes nothing about
those before it. Nothing is left open: whoever executes a plan throws no dice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Any, NamedTuple

from launcher.board import MACHINE
from launcher.chaos.experiment import Experiment
from launcher.chaos.nemesis import ACTIONS, Action, Device, Message, OnServer, Sweep
from ukernel.abi.manifest import MAX_SEED

KEPT_APART = {"do", "at_s", "every_s", "count", "until_s", "target", "link", "device"}
OUTLIVED = ("pause", "swizzle", "device")  # actions of which somebody may die, or not


class Planned(NamedTuple):
    """One injection."""

    number: int  # from 0, in the order of time
    at_s: float  # from the begin of the run
    action: str  # kill, pause, message, ...: a name of `nemesis.ACTIONS`
    targets: tuple[str, ...]  # servers, or one link `fs->disk`, or one device
    params: Mapping[str, Any]  # what the action needs beside: signal, for_s, seed, ...

    @property
    def fault(self) -> str:
        """As an `evidence.Injection` has it: what is done, or what happens to a message."""
        return str(self.params.get("fault", self.action))

    @property
    def lethal(self) -> bool:
        """Whether somebody may die of it."""
        return ACTIONS[self.action].lethal

    @property
    def deadly(self) -> bool:
        """Whether somebody certainly dies of it."""
        return self.lethal and self.action not in OUTLIVED

    @property
    def target(self) -> str:
        """As an `evidence.Injection` has it: `disk`, `fs->disk`, `disk0`, or `disk, fs`."""
        return ", ".join(self.targets)

    @property
    def ends_s(self) -> float:
        """When it is over by itself or taken back; for what is done at once, when it is done."""
        if self.action == "swizzle":
            return float(self.at_s + self.params["step_s"] * (2 * len(self.targets) - 1))
        return float(self.at_s + self.params.get("for_s", 0.0))


class PlannedLeg(NamedTuple):
    """One stretch of a sweep."""

    round: int  # from 0
    every_s: float  # between two kills; 0: never
    for_s: float  # how long it takes
    kills_s: tuple[float, ...]  # from its begin


def plan(experiment: Experiment, seed: int | None = None) -> list[Planned]:
    """Every injection in the order of time; `seed` instead of the experiment's own.

    The experiment is one that `load` has checked: no target is '*' any more.
    """
    base = experiment.seed if seed is None else seed
    drawn = [
        injection
        for index, action in enumerate(experiment.nemesis)
        for injection in _injections(action, Random(f"{base} nemesis {index}"))
    ]
    drawn.sort(key=lambda injection: injection.at_s)  # those of one moment stay as in the file
    return [injection._replace(number=number) for number, injection in enumerate(drawn)]


def ends_s(planned: Iterable[Planned]) -> float:
    """When the last injection is over; then the system may become quiet."""
    return max((injection.ends_s for injection in planned), default=0.0)


def _injections(action: Action, dice: Random) -> Iterator[Planned]:
    params = action.model_dump(exclude=KEPT_APART, exclude_none=True)
    for at_s in action.moments():
        targets = _targets(action, dice)
        yield Planned(0, at_s, action.do, targets, {**params, **_drawn(action, targets, dice)})


def _targets(action: Action, dice: Random) -> tuple[str, ...]:
    match action:
        case Message(link=link):
            return (link,)
        case Device(device=device):
            return (device,)
        case OnServer(do="swizzle", target=names):
            return tuple(dice.sample(names, dice.randint(min(2, len(names)), len(names))))
        case OnServer(target=names):
            return names if action.several else (dice.choice(names),)
    return (MACHINE,)


def _drawn(action: Action, targets: tuple[str, ...], dice: Random) -> dict[str, Any]:
    """What the dice decide beside the targets."""
    match action:
        case Message() | Device():
            return {"seed": dice.randint(0, MAX_SEED)}
        case OnServer(do="swizzle"):
            return {"release": tuple(dice.sample(targets, len(targets)))}
    return {}


def legs(sweep: Sweep, seed: int) -> list[PlannedLeg]:
    """The legs of a sweep. Each round has every interval once, in an order of its own, so that
    a machine that grows slower or faster meanwhile is not taken for an effect of the kills."""
    dice = Random(f"{seed} sweep")
    return [
        _leg(sweep, number, every_s, dice)
        for number in range(sweep.rounds)
        for every_s in dice.sample(sweep.every_s, len(sweep.every_s))
    ]


def _leg(sweep: Sweep, number: int, every_s: float, dice: Random) -> PlannedLeg:
    """A leg is at least one interval long, and its first kill anywhere in the first interval: on
    the average as many kills as the interval says, and at least one."""
    for_s, kills = max(sweep.for_s, every_s), []
    if every_s:
        at_s = dice.uniform(0, every_s)
        while at_s < for_s:
            kills.append(round(at_s, 6))
            at_s += every_s
    return PlannedLeg(number, every_s, for_s, tuple(kills))


def kills(leg: PlannedLeg, target: str, first: int) -> list[Planned]:
    """The injections of a leg, numbered from `first`, in seconds from its begin."""
    return [
        Planned(first + number, at_s, "kill", (target,), {"signal": "KILL"})
        for number, at_s in enumerate(leg.kills_s)
    ]
