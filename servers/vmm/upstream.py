"""upstream: the server behind a device: calls to it are begun, and it may die at any moment.

When it does, whatever was under way ends with an error, each call for itself. Its next life is
asked for by way of the kernel, which answers when there is one: then `restored` is called.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import ParamSpec, Protocol, TypeVar

from ukernel.abi.errors import (
    Answer,
    CallError,
    DeadlinePassed,
    DeadNotRun,
    DeadUnknown,
    NoMemory,
    Overload,
    StaleLife,
    Unavailable,
)
from ukernel.lib.memory import Region
from ukernel.lib.ring import Garbage
from ukernel.lib.stub import UnderWay, begin

R = TypeVar("R")
P = ParamSpec("P")

LOST = (DeadNotRun, DeadUnknown, StaleLife, Unavailable, DeadlinePassed, NoMemory, Garbage)


class Loop(Protocol):
    """The server in whose loop this lives."""

    def region(self, name: str, size: int, *, persistent: bool = False) -> Region: ...
    def when(self, call: UnderWay[R], done: Callable[[UnderWay[R]], None]) -> None: ...


class Failure(Enum):
    """A call that brought nothing."""

    CUT = auto()  # by a death, or there was no room for it: nobody knows whether it was done
    REFUSED = auto()  # it was answered with an error, or may not be made


class Upstream:
    """One server. `ask` is a method of a stub without a channel: it waits for a life that serves.

    While `wants_retry`, call `retry` after a while.
    """

    def __init__(self, loop: Loop, ask: Callable[[], object], restored: Callable[[], None]) -> None:
        self._loop = loop
        self._ask = ask
        self._restored = restored
        self._asking = False
        self.up = True
        self.wants_retry = False
        self.deaths = 0

    def begin(
        self,
        done: Callable[[R | Failure], None],
        method: Callable[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> bool:
        """Begin a call; `done` gets what comes of it, later. False: it was not begun, for the
        server is lost; `restored` follows."""
        if not self.up:
            return False
        try:
            call = begin(method, *args, **kwargs)
        except CallError:
            self._lost()
            return False

        def ended(call: UnderWay[R]) -> None:
            end = self._outcome(call)
            done(end)

        self._loop.when(call, ended)
        return True

    def pause(self) -> None:
        """There is no room for more calls at the moment."""
        if self.up:
            self.up = False
            self.wants_retry = True

    def retry(self) -> None:
        """Look whether it serves by now."""
        self.wants_retry = False
        self._find()

    def _outcome(self, call: UnderWay[R]) -> R | Failure:
        try:
            return call.result()
        except Overload:
            self.pause()
        except LOST:
            self._lost()
        except (Answer, CallError):
            return Failure.REFUSED
        return Failure.CUT

    def _lost(self) -> None:
        if self.up:
            self.up = False
            self.deaths += 1
            self._find()

    def _find(self) -> None:
        if self.up or self._asking:
            return
        try:
            call = begin(self._ask)
        except CallError:
            self.wants_retry = True
        else:
            self._asking = True
            self._loop.when(call, self._found)

    def _found(self, call: UnderWay[object]) -> None:
        self._asking = False
        try:
            call.result()
        except (DeadNotRun, DeadUnknown):
            self._find()
        except (Answer, CallError, Garbage):  # it was given up; somebody may start it again
            self.wants_retry = True
        else:
            self.up = True
            self.wants_retry = False
            self._restored()
