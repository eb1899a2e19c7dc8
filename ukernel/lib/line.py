"""line: raising and lowering an eventfd that is shared with a task that one does not trust.

Whoever else holds it can fill it and make it blocking, so: look first, and do not wait. It may
change between the look and the leap; then it is in that state already.
"""

from __future__ import annotations

import contextlib
import os
import select


def raise_line(fd: int) -> None:
    """Make it readable; it is so already when it is full."""
    if _state(fd) & select.POLLOUT:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(fd, 1)


def lower_line(fd: int) -> None:
    """Make it unreadable; somebody may have done it before."""
    if _state(fd) & select.POLLIN:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(fd)


def _state(fd: int) -> int:
    looked = select.poll()
    looked.register(fd, select.POLLIN | select.POLLOUT)
    return dict(looked.poll(0)).get(fd, 0)
