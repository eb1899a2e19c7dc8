"""schedule: carries a plan out, each injection in its time, between the events of the system.

Nothing is forced: what cannot be done yet waits. Time stands still while the power is off.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from launcher.chaos.injecting import Injecting, OutOfReach, Script
from launcher.chaos.plan import Planned

POWERCUT = "powercut"
NEVER_DONE = "its time never came: {} was never READY for it"
NOT_OVER = "not over when the run gave it up"

Perform = Callable[[Injecting], Script]


class Nemesis:
    """Does what is planned, in the order of time. `perform` gives the script of an injection."""

    def __init__(self, planned: Sequence[Planned], perform: Perform) -> None:
        self.injections = [Injecting(each) for each in planned]
        self._perform = perform
        self._waiting = deque(self.injections)
        self._begun: list[Injecting] = []  # and not over
        self._begun_ns = 0
        self._off_ns = 0  # for which the power has been off

    def begin(self, now_ns: int) -> None:
        """From now on time counts."""
        self._begun_ns = now_ns
        for injecting in self.injections:
            injecting.planned_ns = injecting.due_ns = now_ns + int(injecting.planned.at_s * 1e9)

    @property
    def over(self) -> bool:
        return not (self._waiting or self._begun)

    @property
    def calm(self) -> bool:
        """Nothing is being done to anybody."""
        return not self._begun

    @property
    def elapsed_s(self) -> float:
        """Since the begin, with the power on."""
        return (time.monotonic_ns() - self._begun_ns - self._off_ns) / 1e9

    def act(self) -> float:
        """Do what is due; seconds until there is something to do again."""
        now_ns = time.monotonic_ns()
        while self._waiting and self._waiting[0].due_ns <= now_ns:
            self._begun.append(self._waiting.popleft())
        for injecting in self._begun:
            if injecting.due_ns <= now_ns:
                self._go_on(injecting)
        self._begun = [injecting for injecting in self._begun if not injecting.done]
        due_ns = min((i.due_ns for i in (*self._begun, *islice(self._waiting, 1))), default=now_ns)
        return max(0.0, (due_ns - time.monotonic_ns()) / 1e9)

    def _go_on(self, injecting: Injecting) -> None:
        if injecting.script is None:
            injecting.script = self._perform(injecting)
        try:
            wait_s = next(injecting.script)
        except StopIteration:
            injecting.done = True
        except OutOfReach as error:
            injecting.done, injecting.detail = True, str(error)
        else:
            injecting.due_ns = time.monotonic_ns() + int(wait_s * 1e9)

    def close(self) -> None:
        """The run is over, whatever it has come to: let go of what scripts hold."""
        for injecting in self._begun:
            injecting.end()

    # --- power ----------------------------------------------------------------------------------

    @property
    def cuts_power(self) -> bool:
        """A power cut has landed, and the power is not back yet."""
        return any(injecting.landed_ns and _is_cut(injecting) for injecting in self._begun)

    def power_is_back(self, off_ns: int) -> None:
        """The system was off for so long, and has been booted. What had landed is over; what had
        only begun begins again."""
        self._off_ns += off_ns
        now_ns = time.monotonic_ns()
        for injecting in self._waiting:
            injecting.due_ns += off_ns
        for injecting in self._begun:
            if injecting.landed_ns:
                self._end_with_power(injecting)
            else:
                injecting.begin_again(now_ns)
        self._begun = [injecting for injecting in self._begun if not injecting.done]

    def _end_with_power(self, injecting: Injecting) -> None:
        injecting.end()
        lasts = injecting.planned.ends_s > injecting.planned.at_s
        if lasts or _is_cut(injecting):
            injecting.heal()
        said = "the system was booted again" if _is_cut(injecting) else "then the power went"
        injecting.detail = "; ".join(filter(None, (injecting.detail, said)))

    def give_up(self) -> None:
        """Time is over: end what is under way, and leave undone what could not be done."""
        for injecting in (*self._begun, *self._waiting):
            injecting.end()
            said = NOT_OVER if injecting.landed_ns else NEVER_DONE.format(injecting.planned.target)
            injecting.detail = "; ".join(filter(None, (injecting.detail, said)))
        self._begun.clear()
        self._waiting.clear()


def _is_cut(injecting: Injecting) -> bool:
    return injecting.planned.action == POWERCUT
