"""screen: what a guest says on its console, and when it was heard. Pure.

Two guests that come with the system say how they are: `heartbeat`, ten times a second of its own
clock, and `diskcheck` after each pass over its disk. Of others nothing is read.
"""

from __future__ import annotations

from itertools import pairwise

from launcher.chaos import console
from launcher.chaos.console import Beat, Pass
from launcher.chaos.evidence import Line

REFUSED = "heartbeat: the disk says"
LONGEST = 4096  # bytes of a line without an end


class Screen:
    """The console of one guest, from its first byte."""

    def __init__(self, name: str) -> None:
        self.beats: list[Beat] = []
        self.passes: list[Pass] = []
        self.kind: str | None = None  # which guest it is, by its first line
        self._name = name
        self._refused = 0
        self._said = False
        self._rest = b""

    def show(self, at_ns: int, data: bytes) -> None:
        """So much has come at this moment."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-LONGEST:]
        for line in lines:
            text = line.rstrip(b"\r").decode(errors="replace")
            self._read(Line("", self._name, at_ns, text))

    def _read(self, line: Line) -> None:
        if not self._said:
            self._said, self.kind = True, console.kind([line])
        self.beats += console.beats([line])
        self.passes += console.passes([line])
        self._refused += line.text.startswith(REFUSED)

    @property
    def beating(self) -> bool:
        """Whether it is one that says a heartbeat."""
        return self.kind == "heartbeat"

    @property
    def checking(self) -> bool:
        """Whether it is one that verifies its disk."""
        return self.kind == "diskcheck"

    def heard_since(self, since_ns: int) -> bool:
        """Whether a heartbeat has come after this moment, if it has one."""
        return not self.beating or (bool(self.beats) and self.beats[-1].at_ns > since_ns)

    def checked_since(self, since_ns: int) -> bool:
        """Whether a pass has come to its end after this moment, if it makes any."""
        return not self.checking or (bool(self.passes) and self.passes[-1].at_ns > since_ns)

    @property
    def lines(self) -> int:
        """How often it has said how it is."""
        return len(self.beats) + len(self.passes)

    @property
    def wrong(self) -> int:
        """Bytes that it has found to be wrong. A guest that goes back counts from there again."""
        return max((each.wrong for each in self.passes), default=0)

    @property
    def errors(self) -> int:
        """Requests that its disk has refused."""
        return self._refused + max((each.errors for each in self.passes), default=0)

    # --- of a stretch of time -------------------------------------------------------------------

    def ticks_per_s(self, begun_ns: int, ended_ns: int) -> float | None:
        """Its ticks by the host's clock, of the lines within a stretch; None: too few of them."""
        within = self._within(begun_ns, ended_ns)
        if len(within) < 2 or within[-1].at_ns == within[0].at_ns:
            return None
        return (within[-1].ticks - within[0].ticks) * 1e9 / (within[-1].at_ns - within[0].at_ns)

    def latest_ms(self, begun_ns: int, ended_ns: int) -> float | None:
        """The worst delay of a tick, as the guest says; None: it does not."""
        within = self._within(begun_ns, ended_ns)
        return max((beat.late_ms for beat in within), default=None)

    def gap_ms(self, begun_ns: int, ended_ns: int) -> float | None:
        """The longest time between two heartbeats as they were heard, from the last one before a
        stretch to the first one after it; None: there are no two."""
        times = [beat.at_ns for beat in self.beats]
        first = max((at for at in times if at <= begun_ns), default=begun_ns)
        last = min((at for at in times if at >= ended_ns), default=ended_ns)
        around = [at for at in times if first <= at <= last]
        gaps = (after - before for before, after in pairwise(around))
        return max((gap / 1e6 for gap in gaps), default=None)

    def _within(self, begun_ns: int, ended_ns: int) -> list[Beat]:
        return [beat for beat in self.beats if begun_ns <= beat.at_ns <= ended_ns]
