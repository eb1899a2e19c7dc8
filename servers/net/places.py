"""places: the slots of the store as the table of connections takes them and gives them back. Pure.

What a connection has queued may still be on its way to the card when it ends, and the card reads
it out of the ring. So a slot rests until all frames have gone that were on their way by then:
nobody is sent a byte that somebody else has put where his own was.

A client has so many of them at most, from the first segment of a connection until it is over.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

from servers.net.ring import Ring
from servers.net.store import Slot, Store


class Traffic(Protocol):
    """Frames are begun and are gone, in the same order."""

    @property
    def begun(self) -> int:
        """How many were handed to the card."""

    @property
    def gone(self) -> int:
        """How many of them it has read, or never will."""


def _nothing(first: int, end: int) -> None:
    pass


class Places:
    """See servers.net.tcp.entries.Slots. `withdraw` takes back what waits in the stack."""

    def __init__(self, store: Store, traffic: Traffic, per_client: int) -> None:
        self.window = store.geometry.receive
        self.withdraw: Callable[[int, int], None] = _nothing
        self._store = store
        self._traffic = traffic
        self._ended: list[Slot] = []  # whose records still say that there is a connection
        self._leaving: list[Slot] = []  # whose last frames go out now
        self._resting: deque[tuple[int, Slot]] = deque()
        self._per_client = per_client
        self._of: Counter[int] = Counter()  # clients, how many

    def full(self, holder: int) -> bool:
        """Whether this client has as many as one may have."""
        return self._of[holder] >= self._per_client

    def take(self, holder: int) -> tuple[Ring, Ring, Slot] | None:
        if self.full(holder):
            return None
        self._rest()
        while self._resting and self._resting[0][0] <= self._traffic.gone:
            self._store.give_back(self._resting.popleft()[1])
        slot = self._store.take()
        if slot is None:
            return None
        self.count(slot, holder)
        return slot.send, slot.receive, slot

    def count(self, slot: Slot, holder: int) -> None:
        """It is this client's, as it was in an earlier life."""
        slot.holder = holder
        self._of[holder] += 1

    def give_back(self, handle: object) -> None:
        assert isinstance(handle, Slot)
        self._of[handle.holder] -= 1
        if not self._of[handle.holder]:
            del self._of[handle.holder]
        self.withdraw(handle.send.base, handle.send.base + handle.send.size)
        self._ended.append(handle)

    def commit(self) -> None:
        """Forget those that were given back, now that what is left of them is in the store. Then
        frames are sent, of which the last of theirs may be some."""
        self._rest()
        for slot in self._ended:
            slot.record.write(b"")
        self._leaving, self._ended = self._ended, []

    def _rest(self) -> None:
        """What was to be sent when they were given back is on its way by now."""
        self._resting += [(self._traffic.begun, slot) for slot in self._leaving]
        self._leaving.clear()
