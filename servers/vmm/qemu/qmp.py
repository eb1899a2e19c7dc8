"""qmp: what is asked of a QEMU, one thing after the other, in a thread of its own.

    line.do(commands.copy, done)      # a coroutine function that gets a client

QEMU stops a guest only when its disk has ended what was begun, and the disk is served by the
monitor's loop: so that must not wait for QEMU. `done` is called in the loop, by `take`, which is
due when `fd` is readable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, TypeVar

try:
    from qemu.qmp import ExecuteError, QMPClient, QMPError, Runstate

    MISSING = ""
except ImportError as error:
    MISSING = str(error)

T = TypeVar("T")
Work = Callable[["QMPClient"], Coroutine[Any, Any, T]]
ENDED = "QEMU has ended"

logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # an end is no error here


class Failed(NamedTuple):
    """In place of an outcome."""

    why: str


class Failure(Exception):
    """QEMU could not do it; the text says why."""


class Job(NamedTuple):
    work: Work[Any]
    done: Callable[[Any], None]


class Line:
    """To the QEMU at the other end of `sock`. When that ends, all that was asked of it has Failed,
    and `ended` gets the reason that it gave: `guest-shutdown`, say, or nothing."""

    def __init__(self, sock: socket.socket, ended: Callable[[str], None]) -> None:
        self._socket = sock
        self._ended: Callable[[str], None] | None = ended
        self._outcomes: deque[Callable[[], None]] = deque()
        self._jobs: asyncio.Queue[Job | None] = asyncio.Queue()
        self._loop = asyncio.new_event_loop()
        self.busy = 0  # jobs that are not done
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="qmp", daemon=True)
        self._thread.start()

    def do(self, work: Work[T], done: Callable[[T | Failed], None]) -> None:
        """Have this done when its turn comes."""
        self.busy += 1
        self._put(Job(work, done))

    def take(self) -> None:
        """Tell what has come to its end, if anything has."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        self._tell()

    def close(self) -> None:
        """QEMU is dead: what was asked of it is told to have Failed, and nothing else is."""
        self._ended = None
        self._put(None)
        self._thread.join()
        self._tell()
        os.close(self.fd)

    def _put(self, job: Job | None) -> None:
        self._loop.call_soon_threadsafe(self._jobs.put_nowait, job)

    def _tell(self) -> None:
        while self._outcomes:
            self._outcomes.popleft()()

    def _tell_done(self, job: Job, outcome: Any) -> None:
        self.busy -= 1
        if isinstance(outcome, BaseException):
            raise outcome
        job.done(outcome)

    def _tell_ended(self, reason: str) -> None:
        if self._ended is not None:
            self._ended(reason)

    # --- in the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        client = QMPClient()
        client.events.names.add("SHUTDOWN")  # and it keeps nothing else that guests bring about
        with contextlib.suppress(Exception):  # also an AssertionError, when it ends meanwhile
            await client.connect(self._socket)
        lost = asyncio.create_task(self._watch(client))
        while (job := await self._jobs.get()) is not None:
            outcome = await _outcome(job.work(client), lost)
            self._later(partial(self._tell_done, job, outcome))
        await lost

    async def _watch(self, client: QMPClient) -> None:
        """Until QEMU has ended, or says what is no QMP: then the client raises whatever reading
        that has raised."""
        while client.runstate is Runstate.RUNNING:
            await client.runstate_changed()
        with contextlib.suppress(Exception):
            await client.disconnect()
        reasons = [_reason(event) for event in client.events.clear()]
        self._later(lambda: self._tell_ended(reasons[-1] if reasons else ""))

    def _later(self, tell: Callable[[], None]) -> None:
        self._outcomes.append(tell)
        os.eventfd_write(self.fd, 1)


def _reason(event: Any) -> str:
    """Why QEMU ends, of an event SHUTDOWN."""
    match event.get("data"):
        case {"reason": str(reason)}:
            return reason
    return ""


async def _outcome(work: Coroutine[Any, Any, T], lost: asyncio.Task[None]) -> object:
    """What comes of it: Failed when QEMU says so or has ended; of our own bug, that."""
    doing = asyncio.create_task(work)
    await asyncio.wait({doing, lost}, return_when=asyncio.FIRST_COMPLETED)
    if not doing.done():
        doing.cancel()
        await asyncio.wait({doing})
    if doing.cancelled():
        return Failed(ENDED)
    error = doing.exception()
    if isinstance(error, ExecuteError | Failure):
        return Failed(str(error))
    if isinstance(error, QMPError | EOFError):
        return Failed(ENDED)
    return error or doing.result()
