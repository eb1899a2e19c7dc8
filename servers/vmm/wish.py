"""wish: what is to become of the machine after a death: one word that the next life gets back.

Who has moved a machine away, or is about to, must be sure that it does not run here again.
"""

from __future__ import annotations

from enum import IntEnum


class Wish(IntEnum):
    NONE = 0  # nobody has said anything: as the system file has it
    RUN = 1
    STAND = 2  # it was paused
    EMPTY = 3  # it was given up
    OFF = 4  # it has switched itself off, and no snapshot says so


class Wishes:
    """In the first word of `memory`, stored at once."""

    def __init__(self, memory: memoryview) -> None:
        self._words = memory[:8].cast("Q")

    def read(self) -> Wish:
        return Wish(self._words[0])

    def write(self, wish: Wish) -> None:
        self._words[0] = wish
