"""journal: which generation of each small file was begun, and which was acknowledged.

It lies in memory that the next life of the load gets back: an application that dies together with
the file server must still know what it was promised.
"""

from __future__ import annotations

from mmap import mmap

FILES = 64
SIZE = FILES * 2 * 8  # bytes: two numbers for each file


class Journal:
    """Numbers in shared memory: for each file the last generation begun, and the last kept."""

    def __init__(self, memory: memoryview | mmap) -> None:
        self._numbers = memoryview(memory)[:SIZE].cast("Q")

    def begin(self, file: int) -> int:
        """The generation of the write that comes now."""
        self._numbers[2 * file] += 1
        return self._numbers[2 * file]

    def keep(self, file: int, generation: int) -> None:
        """This generation was acknowledged."""
        self._numbers[2 * file + 1] = generation

    def begun(self, file: int) -> int:
        return self._numbers[2 * file]

    def kept(self, file: int) -> int:
        return self._numbers[2 * file + 1]

    def writes(self) -> int:
        """How many writes have begun in all."""
        return sum(self._numbers[2 * file] for file in range(FILES))
