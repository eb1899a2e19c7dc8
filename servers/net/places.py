"""places: the slots of the store as the table of connections takes them and gives them back. Pure.

What a connection has queued may still be on its way to the card when it ends, and the card reads
it out of the ring. So a slot rests until all frames have gone that were on their way by then:
nobody is sent a byte that somebody else has put where his own was.
"""

from __future__ import annotations

from collections import deque
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

    def __init__(self, store: Store, traffic: Traffic) -> None:
        self.window = store.geometry.receive
        self.withdraw: Callable[[int, int], None] = _nothing
        self._store = store
        self._traffic = traffic
        self._ended: list[Slot] = []  # whose records still say that there is a connection
        self._leaving: list[Slot] = []  # whose last frames go out now
        self._resting: deque[tuple[int, Slot]] = deque()

    def take(self) -> tuple[Ring, Ring, Slot] | None:
        self._rest()
        while self._resting and self._resting[0][0] <= self._traffic.gone:
            self._store.give_back(self._resting.popleft()[1])
        slot = self._store.take()
        return (slot.send, slot.receive, slot) if slot is not None else None

    def give_back(self, handle: object) -> None:
        assert isinstance(handle, Slot)
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
