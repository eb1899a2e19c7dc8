"""injecting: one injection on its way, from the plan to its record.

What is done is done to a life: a slot and a number, counted over all boots of the run. So a death
can be told from one that came by itself, and no life meets something lethal twice.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field

from launcher.chaos.evidence import Injection
from launcher.chaos.plan import Planned

Life = tuple[str, int]  # slot, number
Script = Generator[float, None, None]  # yields the seconds until it wants to go on


class OutOfReach(Exception):
    """An injection can never land; the text says why."""


@dataclass
class Injecting:
    """One injection on its way."""

    planned: Planned
    planned_ns: int = 0
    due_ns: int = 0  # when its script wants to go on
    script: Script | None = None  # None: it has not begun
    landed_ns: int = 0
    healed_ns: int = 0
    life: int = 0  # the first that met it
    ends: dict[Life, int] = field(default_factory=dict)
    """Lives that end of it, and when it was done to them; 0: they will die by themselves."""
    detail: str = ""
    done: bool = False

    def land(self, detail: str = "") -> None:
        """The fault has happened."""
        self.landed_ns = self.landed_ns or time.monotonic_ns()
        self.detail = detail or self.detail

    def miss(self, why: str) -> None:
        """It had not happened after all."""
        self.landed_ns, self.detail = 0, why

    def meet(self, *lives: Life) -> None:
        """It is being done to these lives, which end of it unless it is taken back in time."""
        self.life = self.life or lives[0][1]
        self.ends.update(dict.fromkeys(lives, time.monotonic_ns()))

    def heal(self) -> None:
        """It has been taken back."""
        self.healed_ns = time.monotonic_ns()

    def end(self) -> None:
        """It is over. What its script holds is let go of."""
        if self.script is not None:
            self.script.close()
        self.done = True

    def begin_again(self, now_ns: int) -> None:
        """As if it had not begun."""
        if self.script is not None:
            self.script.close()
        self.script, self.due_ns, self.life, self.detail = None, now_ns, 0, ""

    @property
    def record(self) -> Injection:
        """As evidence."""
        p = self.planned
        return Injection(
            p.number, p.fault, p.target, self.planned_ns, self.landed_ns, self.healed_ns,
            self.life, self.detail,
        )  # fmt: skip
