"""alarm: calls somebody after so many microseconds, and again until it is told to stop.

It comes from another thread, and may come late or once too often, even just after `clear`: what it
calls must bear that. It comes again because the first call may meet a processor that has not
started yet. `emu_start` has a timeout of its own, whose end costs a millisecond and more.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable

NS_PER_SECOND = 1_000_000_000
AGAIN = 2  # the part of the time after which it comes again
LEAST_NS = 50_000


class _Times(ctypes.Structure):
    """struct itimerspec: then every so often, and first after so long."""

    _fields_ = (
        ("again_s", ctypes.c_long),
        ("again_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    )


_libc = ctypes.CDLL(None, use_errno=True)  # Python has timerfd_create from 3.13 on
_NEVER = _Times()


class Alarm:
    """A timer of Linux with a thread that sleeps at it."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring: Callable[[], None] | None = ring
        self._times = _Times()
        self._fd = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "no timer for the slices of a guest")
        self._thread = threading.Thread(target=self._wait, name="alarm", daemon=True)
        self._thread.start()

    def set(self, after_ns: int) -> None:
        """Ring in so long."""
        times = self._times
        first = max(after_ns, LEAST_NS)
        times.first_s, times.first_ns = divmod(first, NS_PER_SECOND)
        times.again_s, times.again_ns = divmod(max(first // AGAIN, LEAST_NS), NS_PER_SECOND)
        _libc.timerfd_settime(self._fd, 0, ctypes.byref(times), None)

    def clear(self) -> None:
        """Do not ring, unless it is too late for that."""
        _libc.timerfd_settime(self._fd, 0, ctypes.byref(_NEVER), None)

    def close(self) -> None:
        """After this it does not ring."""
        if self._ring is not None:
            self._ring = None
            self.set(0)
            self._thread.join()
            os.close(self._fd)

    def _wait(self) -> None:
        while True:
            os.read(self._fd, 8)
            ring = self._ring
            if ring is None:
                return
            ring()
