"""upstream: the server behind a device: calls to it are begun, and it may die at any moment.

When it does, whatever was under way ends with an error, each call for itself, and its memory is
free from then on, not before. Its next life is asked for by way of the kernel, which answers when
there is one: then `restored` is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
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
    If what it says then is not what it `was`, this process ends, to begin anew with it.

    Where there is no room for a call, none is begun for a while if it `pauses`; else that one call
    is refused. While `wants_retry`, call `retry` after a while: see Patience.
    """

    def __init__(
        self,
        loop: Loop,
        ask: Callable[[], object],
        restored: Callable[[], None],
        *,
        was: object = None,
        pauses: bool = True,
    ) -> None:
        self._loop = loop
        self._ask = ask
        self._restored = restored
        self._was = was
        self._pauses = pauses
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
        deaths = self.deaths

        def ended(call: UnderWay[R]) -> None:
            end = self._outcome(call, deaths)
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

    def _outcome(self, call: UnderWay[R], deaths: int) -> R | Failure:
        """What has come of a call that was begun after so many deaths."""
        try:
            return call.result()
        except Overload:
            if not self._pauses:
                return Failure.REFUSED
            self.pause()
        except LOST as error:
            if deaths == self.deaths:  # else it was an earlier life's
                self._lost(not isinstance(error, Unavailable))
        except (Answer, CallError):
            return Failure.REFUSED
        return Failure.CUT

    def _lost(self, find: bool = True) -> None:
        if self.up:
            self.up = False
            self.deaths += 1
            if find:
                self._find()
            else:
                self.wants_retry = True

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
            found = call.result()
        except (DeadNotRun, DeadUnknown):
            self._find()
        except (Answer, CallError, Garbage):  # it was given up; somebody may start it again
            self.wants_retry = True
        else:
            if self._was not in (None, found):
                sys.exit(f"this is another one: {found}, and it was {self._was}")
            self.up = True
            self.wants_retry = False
            self._restored()


class Retrying(Protocol):
    """What may have to be asked again for what was refused or could not be had."""

    @property
    def wants_retry(self) -> bool: ...
    def retry(self) -> None: ...


class All:
    """Several of them as one."""

    def __init__(self, found: Callable[[], Iterable[Retrying]]) -> None:
        self._found = found

    @property
    def wants_retry(self) -> bool:
        return any(each.wants_retry for each in self._found())

    def retry(self) -> None:
        for each in self._found():
            if each.wants_retry:
                each.retry()


class Patience:
    """Calls `retry` of what has wanted it for so many nanoseconds."""

    def __init__(self, what: Retrying, ns: int) -> None:
        self._what = what
        self._ns = ns
        self._due_ns = 0

    def look(self, now_ns: int) -> int:
        """Do it if it is due; when to look again, 0: when something has come."""
        if self._due_ns and now_ns >= self._due_ns:
            self._due_ns = 0
            if self._what.wants_retry:
                self._what.retry()
        if not self._what.wants_retry:
            self._due_ns = 0
        elif not self._due_ns:
            self._due_ns = now_ns + self._ns
        return self._due_ns
