"""deadlines: who is to be woken next, of very many. Pure.

Deadlines of TCP mostly move away, with every acknowledgement. So one that moves away leaves the
heap alone, and is put back at its new time when the old one is reached.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

Item = TypeVar("Item")
SPARE = 64  # entries of the heap that nobody waits for, beyond one for each item


class Deadlines(Generic[Item]):
    """At most one deadline for each item; 0 is none. Items are told apart by what they are."""

    def __init__(self) -> None:
        self._wanted: dict[int, tuple[int, Item]] = {}  # by id: it is the item that counts
        self._queued: dict[int, int] = {}  # the first of its entries in the heap
        self._heap: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._wanted)

    def set(self, item: Item, when: int) -> None:
        """Wake `item` at `when`, and not at what was said before."""
        key = id(item)
        if not when:
            self._wanted.pop(key, None)
            return
        self._wanted[key] = (when, item)
        if when < self._queued.get(key, when + 1):
            self._push(key, when)

    @property
    def next(self) -> int:
        """The first deadline; 0 when there is none."""
        while self._heap:
            when, key = self._heap[0]
            wanted = self._wanted.get(key)
            if wanted and wanted[0] == when:
                return when
            heappop(self._heap)
            if self._queued.get(key) == when:
                del self._queued[key]
                if wanted:
                    self._push(key, wanted[0])
        return 0

    def due(self, now: int) -> list[Item]:
        """Those whose time has come; they have no deadline afterwards."""
        found = []
        while 0 < self.next <= now:
            found.append(self._wanted.pop(self._heap[0][1])[1])
        return found

    def _push(self, key: int, when: int) -> None:
        self._queued[key] = when
        heappush(self._heap, (when, key))
        if len(self._heap) > 2 * len(self._wanted) + SPARE:
            self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(when, key) for key, (when, _) in self._wanted.items()]
        self._queued = {key: when for when, key in self._heap}
        heapify(self._heap)
