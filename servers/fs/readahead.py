"""readahead: which lines to ask for before anybody wants them. Pure: reads go in, lines come out.

A stream is a reader that goes from line to line, up or down. Its second line in a row shows it;
from then on a window of lines is under way while another is being used. Reads here and there ask
for nothing.
"""

from __future__ import annotations

WINDOW = 4  # lines of one device read
STREAMS = 4  # readers that are told apart
NOTHING = range(0)


class Stream:
    """Somebody who has read line `last` and goes on by `step`: 1, -1, or 0 for not known yet.

    The `asked` lines after that one have been asked for.
    """

    __slots__ = ("asked", "last", "step")

    def __init__(self, line: int) -> None:
        self.last = line
        self.step = 0
        self.asked = 0

    def goes_to(self, line: int) -> int:
        """How many steps on `line` is; 0 if it is not where this stream goes."""
        steps = (line - self.last) * (self.step or line - self.last)
        return steps if 1 <= steps <= max(1, self.asked) else 0

    def go(self, line: int, steps: int) -> range:
        """Read `line`: what to ask for now."""
        self.step = (line - self.last) // steps
        self.last = line
        self.asked -= steps  # -1: not even this line
        if self.asked + 1 >= WINDOW:
            return NOTHING
        first = line + (self.asked + 1) * self.step
        self.asked += WINDOW
        ends = (first, first + (WINDOW - 1) * self.step)
        return range(max(0, min(ends)), max(ends) + 1)


class ReadAhead:
    """Told of every line that is read from the disk, in order."""

    def __init__(self) -> None:
        self._streams: list[Stream] = []  # the one used last is the last

    def read(self, line: int) -> range:
        """`line` is about to be read: lines to ask for now, itself among them or not."""
        for stream in self._streams:
            if line == stream.last:  # once more, since it was wrong
                return NOTHING
            if steps := stream.goes_to(line):
                self._streams.remove(stream)
                self._streams.append(stream)
                return stream.go(line, steps)
        self._streams = [*self._streams, Stream(line)][-STREAMS:]
        return NOTHING
