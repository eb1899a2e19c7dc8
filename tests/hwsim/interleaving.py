"""interleaving: a driver and a device on two cores, as x86 orders their memory, step by step.

The rings' words lie behind a store buffer of each side: a store becomes visible to the other side
some time later, in order, and at a fence at the latest. At every access a schedule decides who
goes on and what becomes visible. The code that runs on either side is the real one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, cycle
from typing import NamedTuple

DRIVER, DEVICE = 0, 1
TURN = 4  # of a step of the schedule; the bits below say whose oldest store becomes visible
STEPS = 2 * TURN
FAIR = (7, 3, 1, 7)  # when the schedule has come to its end


class Over(Exception):
    """The driver has what it wants, or both sides sleep."""


class Store(NamedTuple):
    word: tuple[str, int]
    value: int


class Cores:
    """Two sides, of which one runs at any time."""

    def __init__(self, schedule: Iterable[int]) -> None:
        self.memory: dict[tuple[str, int], int] = {}
        self.rung = [0, 0]  # how often each side was woken
        self._schedule: Iterator[int] = chain(schedule, cycle(FAIR))
        self._buffers: tuple[deque[Store], deque[Store]] = (deque(), deque())
        self._asleep = [False, False]
        self._pending = [False, True]  # rung, and not awake yet; the device looks once by itself
        self._batons = threading.Semaphore(0), threading.Semaphore(0)
        self._running = DRIVER
        self._over = False

    def run(self, driver: Callable[[], None], device: Callable[[], None]) -> None:
        """Until the driver returns, or nobody would ever wake anybody."""
        other = threading.Thread(target=self._device, args=(device,))
        other.start()
        try:
            driver()
        except Over:
            pass
        finally:
            self._over = True
            self._batons[DEVICE].release()
            other.join()

    def _device(self, device: Callable[[], None]) -> None:
        self._batons[DEVICE].acquire()
        try:
            while not self._over:
                self.sleep()
                device()
        except Over:
            self._batons[DRIVER].release()

    def load(self, word: tuple[str, int]) -> int:
        self._step()
        own = [store.value for store in self._buffers[self._running] if store.word == word]
        return own[-1] if own else self.memory.get(word, 0)

    def store(self, word: tuple[str, int], value: int) -> None:
        self._step()
        self._buffers[self._running].append(Store(word, value))

    def fence(self) -> None:
        while self._buffers[self._running]:
            self._show(self._running)

    def ring(self, side: int) -> None:
        """Wake a side: the system call is a fence too, for the one that makes it."""
        self._step()
        self.fence()
        self.rung[side] += 1
        self._pending[side] = True

    def sleep(self) -> None:
        """Until this side is rung for. Raises Over when nobody is left to do that."""
        self._step()
        me = self._running
        self._asleep[me] = True
        self.fence()
        while not self._pending[me]:
            if not self._runnable(1 - me):
                self._over = True
            self._hand_over()
        self._asleep[me] = self._pending[me] = False

    def _step(self) -> None:
        choice = next(self._schedule)
        for side in (DRIVER, DEVICE):
            if choice >> side & 1 and self._buffers[side]:
                self._show(side)
        if choice & TURN and self._runnable(1 - self._running):
            self._hand_over()

    def _show(self, side: int) -> None:
        word, value = self._buffers[side].popleft()
        self.memory[word] = value

    def _runnable(self, side: int) -> bool:
        return not self._asleep[side] or self._pending[side]

    def _hand_over(self) -> None:
        me = self._running
        if not self._over:
            self._running = 1 - me
            self._batons[1 - me].release()
            self._batons[me].acquire()
        if self._over:
            raise Over
        self._running = me


class Words:
    """The 16-bit words of a ring, as one side sees them."""

    def __init__(self, cores: Cores, ring: str) -> None:
        self._cores = cores
        self._ring = ring

    def __getitem__(self, at: int) -> int:
        return self._cores.load((self._ring, at))

    def __setitem__(self, at: int, value: int) -> None:
        self._cores.store((self._ring, at), value)
