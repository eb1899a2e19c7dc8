"""transcript: what a guest has shown, the last of it, in memory that the next life gets back.

Positions count all bytes that were ever shown, and never go back: a guest that goes on from a
snapshot says again what it has said since, and that follows what was seen already. Bytes are put
where nothing is valid, and count from the one store of `end`.
"""

from __future__ import annotations

ROOM = 64 << 10  # bytes of the ring
STEP = 4 << 10  # the most that is put at once; so much of the oldest may be half overwritten
KEPT = ROOM - STEP
HEAD = 64
BYTES = HEAD + ROOM
END, BEGIN = 0, 1  # words: positions


class Transcript:
    """In `memory` of BYTES, zeros at first."""

    def __init__(self, memory: memoryview) -> None:
        self._words = memory[:HEAD].cast("Q")
        self._ring = memory[HEAD:BYTES]

    @property
    def end(self) -> int:
        """The position of what will be shown next."""
        return int(self._words[END])

    def put(self, data: bytes) -> None:
        """Show this."""
        for start in range(0, len(data), STEP):
            self._put(data[start : start + STEP])

    def _put(self, data: bytes) -> None:
        end = self.end
        at = end % ROOM
        first = data[: ROOM - at]
        self._ring[at : at + len(first)] = first
        self._ring[: len(data) - len(first)] = data[len(first) :]
        self._words[END] = end + len(data)

    def read(self, at: int, most: int) -> tuple[int, bytes]:
        """Up to `most` bytes from position `at`, or from the oldest that there are."""
        end = self.end
        at = max(min(at, end), self._words[BEGIN], end - KEPT)
        length = min(most, end - at)
        start = at % ROOM
        piece = bytes(self._ring[start : start + length])
        return at, piece + bytes(self._ring[: length - len(piece)])

    def adopt(self, end: int, tail: bytes) -> None:
        """Go on where another one has ended, with the last bytes of it."""
        self._words[END] = self._words[BEGIN] = end - len(tail)
        self.put(tail)
