"""guests: the virtual machines of a running system, watched from outside while it is measured.

Their consoles are read all the time, so that a line has the moment in which it came, and their
monitors are asked before and after a stretch of work. Both are asked as anybody may, by a call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from launcher.asks import Ask, called
from launcher.compare.drive import NoOutcome
from launcher.compare.screen import Screen
from launcher.system import System
from ukernel.abi.vm import EMPTY, FAILED, VirtualMachine

LOOK_S = 0.2
PATIENCE_S = 30.0  # with a monitor that may have to start again
PASS_S = 120.0  # for a pass over a disk


class Look(NamedTuple):
    """What a monitor says of itself at a moment; `status` is a VmStatus as JSON has it."""

    at_ns: int
    life: int
    status: dict[str, Any]


class Did(NamedTuple):
    """What a virtual machine did during the work."""

    exits_per_s: dict[str, float]  # by kind
    cpu: float  # in its slices, of one CPU
    requests_per_s: float  # to its disk
    frames_per_s: float  # to and from its card
    ticks_per_s: float | None  # as it says itself; of 10 ms, so there should be 100
    latest_ms: float | None  # the worst delay of a tick, as it says itself


class Felt(NamedTuple):
    """What one death did to a virtual machine."""

    lives: int  # of its monitor, that ended
    restored_ms: int  # how old the snapshot was that it went back to; 0: to none
    gap_ms: float | None  # the longest time between two heartbeats around it
    faults: int  # of the guest, and resets after them, meanwhile or in the new life


class Guest(NamedTuple):
    """One virtual machine over one run. `wrong` bytes and `errors` are what it has told, of
    `lines` in which it could have."""

    did: Did
    felt: list[Felt]  # of each kill of the run
    speaks: bool  # it is one of those that say how they are
    lines: int
    wrong: int
    errors: int

    @property
    def faults(self) -> int:
        return sum(each.faults for each in self.felt)


class Guests:
    """Use it as a context, within that of the system; it must have booted."""

    def __init__(self, system: System, names: Sequence[str]) -> None:
        self.screens = {name: Screen(name) for name in names}
        self._system = system
        self._asks: dict[str, Ask] = {}

    def __enter__(self) -> Guests:
        self._asks = {name: self._more(name, 0) for name in self.screens}
        self._system.after_events.append(self._take)
        return self

    def __exit__(self, *raised: object) -> None:
        self._system.after_events.remove(self._take)
        for ask in self._asks.values():
            ask.abandon()

    def _more(self, name: str, at: int) -> Ask:
        """Ask for what it shows from there on; answered when there is some, or after a second."""
        return self._ask(name, "output", at)

    def _ask(self, name: str, operation: str, *args: object) -> Ask:
        return Ask(self._system, called(name, VirtualMachine, operation), list(args), PATIENCE_S)

    def _take(self) -> None:
        """Take what has come. Raises CallError for a monitor that does not answer."""
        for name, ask in list(self._asks.items()):
            if (told := ask.outcome()) is not None:
                output = told["result"]
                data = bytes.fromhex(output["data"])
                self.screens[name].show(time.monotonic_ns(), data)
                self._asks[name] = self._more(name, output["at"] + len(data))

    def looks(self) -> dict[str, Look]:
        """Each of them, when it answers. Raises CallError, and NoOutcome for one that has no guest
        to be measured."""
        asks = {name: self._ask(name, "status") for name in self.screens}
        found: dict[str, Look] = {}
        while len(found) < len(asks):
            for name in asks.keys() - found.keys():
                if (told := asks[name].outcome()) is not None:
                    found[name] = self._look(name, told["result"])
            if len(found) < len(asks):
                self._system.pump(LOOK_S)
        return {name: found[name] for name in self.screens}

    def _look(self, name: str, status: dict[str, Any]) -> Look:
        if status["state"] in (FAILED, EMPTY):
            raise NoOutcome(
                f"{name} is {status['state']}: there is no guest to be measured; what its monitor "
                f"says is in its log: `ukernel up {self._system.file.path}`, `ukernel logs {name}`"
            )
        return Look(time.monotonic_ns(), self._system.task(name).life, status)

    def wait_heard(self, since_ns: int) -> None:
        """Until each that has a heartbeat has been heard after this moment."""
        self._wait(lambda screen: screen.heard_since(since_ns), PATIENCE_S, "heartbeat")

    def wait_checked(self, since_ns: int) -> None:
        """Until each that verifies its disk has come to the end of a pass after this moment."""
        self._wait(lambda screen: screen.checked_since(since_ns), PASS_S, "pass over its disk")

    def _wait(self, heard: Callable[[Screen], bool], patience_s: float, what: str) -> None:
        deadline = time.monotonic() + patience_s
        while away := [name for name, screen in self.screens.items() if not heard(screen)]:
            if time.monotonic() > deadline:
                raise NoOutcome(f"{', '.join(away)}: no {what} has come for {patience_s:g} s")
            self._system.pump(LOOK_S)


def did(name: str, screen: Screen, before: Look, after: Look) -> Did:
    """What lies between two looks. Raises NoOutcome when its monitor has died between them."""
    if before.life != after.life:
        raise NoOutcome(f"{name} has died while the work was done, and nobody had killed anything")
    seconds, span = (after.at_ns - before.at_ns) / 1e9, (before.at_ns, after.at_ns)

    def more(field: str) -> float:
        return float(after.status[field] - before.status[field])

    return Did(
        {kind: times / seconds for kind, times in _exits(before, after).items()},
        more("run_us") / 1e6 / seconds,
        more("disk_requests") / seconds,
        (more("frames_sent") + more("frames_received")) / seconds,
        screen.ticks_per_s(*span),
        screen.latest_ms(*span),
    )


def felt(screen: Screen, before: Look, after: Look, killed_ns: int, back_ns: int) -> Felt:
    """What a death between two looks did to it, up to the moment when all were READY again."""
    lives, gap_ms = after.life - before.life, screen.gap_ms(killed_ns, back_ns)
    faults = after.status["faults"] + after.status["resets"]
    if lives:
        return Felt(lives, after.status["restored_from_ms"], gap_ms, faults)
    return Felt(0, 0, gap_ms, faults - before.status["faults"] - before.status["resets"])


def _exits(before: Look, after: Look) -> dict[str, int]:
    first = {each["kind"]: each["times"] for each in before.status["exits"]}
    last = {each["kind"]: each["times"] for each in after.status["exits"]}
    return {kind: times - first.get(kind, 0) for kind, times in sorted(last.items())}
