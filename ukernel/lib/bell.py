"""bell: how one end of a channel wakes the other, which it does not trust.

A bell is an eventfd whose count stays at one. Ringing adds nothing to it, which Linux tells every
edge-triggered epoll of as it would of any other write, and which can never block: the holder at
the other end may empty it, fill it or take O_NONBLOCK away, and spoils only its own waking.

Between saying "I sleep" and the last look, and between saying "here it is" and looking who sleeps,
a processor must not put the load before the store, which even x86 does: `fence` is in between.
"""

from __future__ import annotations

import os
import select
from _thread import allocate_lock

RUNG = select.EPOLLIN | select.EPOLLET

_lock = allocate_lock()
_acquire, _release = _lock.acquire, _lock.release


def fence() -> None:
    """No load after it comes before a store before it: taking a lock is a locked instruction."""
    _acquire()
    _release()


def ring(bell: int) -> None:
    """Wake whoever waits for it."""
    os.eventfd_write(bell, 0)
