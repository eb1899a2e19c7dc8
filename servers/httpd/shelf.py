"""shelf: files that are open already. To open one costs more than to read a small one.

A file stays open for a second after it was opened, for whoever asks for it by the same path. One
that was removed or replaced meanwhile is noticed, since its capability leads nowhere. One that was
renamed is not: for the rest of that second it is found by its old name too.
"""

from __future__ import annotations

from collections.abc import Callable

from ukernel.abi.services import READ_ONLY, File, FileSystem
from ukernel.lib.stub import release

FRESH_NS = 1_000_000_000
MOST = 64  # that nobody uses


class Held:
    """An open file and how many have it."""

    def __init__(self, path: str, file: File, until_ns: int) -> None:
        self.path = path
        self.file = file
        self.until_ns = until_ns
        self.users = 0


class Shelf:
    """`now_ns` is a clock."""

    def __init__(self, fs: FileSystem, now_ns: Callable[[], int]) -> None:
        self._fs = fs
        self._now_ns = now_ns
        self._held: dict[str, Held] = {}  # by path, the one opened first is first

    def take(self, path: str) -> Held:
        """The file, for somebody who gives it back. Raises what `open` raises."""
        now = self._now_ns()
        held = self._held.get(path)
        if held is None or held.until_ns <= now:
            file = self._fs.open(path, READ_ONLY)
            self.forget(path)
            held = self._held[path] = Held(path, file, now + FRESH_NS)
        held.users += 1
        return held

    def give_back(self, held: Held) -> None:
        """Somebody does not need it any more."""
        held.users -= 1
        if not held.users and self._held.get(held.path) is not held:
            release(held.file)
        elif len(self._held) > MOST:
            self.forget(next(iter(self._held)))

    def forget(self, path: str) -> None:
        """Who asks next gets another one."""
        held = self._held.pop(path, None)
        if held is not None and not held.users:
            release(held.file)

    def tidy(self) -> None:
        """Close what is not fresh. To be called now and then."""
        now = self._now_ns()
        for path in [path for path, held in self._held.items() if held.until_ns <= now]:
            self.forget(path)
