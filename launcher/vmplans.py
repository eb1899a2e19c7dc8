"""vmplans: what is asked of monitors to copy, restore and move virtual machines. Pure plans.

A machine that is moved is stopped, copied and started elsewhere; until it is started there it can
go on where it was, and does when anything goes wrong. From then on it is the other's: two never
run, for they would write the same disk.

Its image goes through memory that is lent to both monitors, by two windows in turn: the one is
filled while the other is emptied.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

from launcher.errands import Asking, Clock, Declined, Plan, each, one
from ukernel.abi.errors import CallError
from ukernel.abi.sizes import text_of
from ukernel.abi.vm import EMPTY, PAUSED, RUNNING
from ukernel.lib.memory import Region

WINDOW = 2 << 20  # bytes
ROOM = 2 * WINDOW  # of the memory that a plan needs

Write = Callable[[memoryview], None]
Read = Callable[[memoryview], int]  # fills it with what is next; how many bytes, 0 at the end
Wanted = Callable[[], bool]  # whether anybody still waits for it
Steps = Generator[Sequence[Asking], Sequence[Any], None]
TROUBLE = (CallError, Declined, OSError)  # what a step may end in


class CannotDo(Exception):
    """It was not done; all is as before unless the text says otherwise."""


class Like(NamedTuple):
    """What a monitor must have to go on with a machine."""

    engine: str
    memory: int  # bytes


class Window(NamedTuple):
    """A piece of an image, and where in memory it is for a while."""

    offset: int  # in the image
    length: int
    at: int  # in the memory


def save(name: str, write: Write, memory: Region, wanted: Wanted, clock: Clock) -> Plan:
    """Copy a virtual machine, which stands still meanwhile: `{engine, memory, size, pause_ms}`."""
    status = yield from one(name, "status")
    _check_movable(name, status)
    begun_s = clock()
    try:
        size = yield from one(name, "save")
        for window in _windows(size):
            _check_wanted(wanted)
            (length,) = yield from each(_filling(name, window, memory))
            _check_full(window, length)
            write(memory.view[window.at : window.at + length])
    except (*TROUBLE, CannotDo) as error:
        yield from _go_on(name, status)
        raise CannotDo(f"{name} was not copied: {error}") from None
    yield from _go_on(name, status)
    pause_ms = round((clock() - begun_s) * 1000, 1)
    return {"engine": status["engine"], "memory": status["memory"], "size": size,
            "pause_ms": pause_ms}  # fmt: skip


def load(name: str, like: Like, read: Read, memory: Region, wanted: Wanted, clock: Clock) -> Plan:
    """Continue a copy in place of what is there: `{ms}`. What was there is gone."""
    status = yield from one(name, "status")
    if why := _unlike(name, status, like, "the copy"):
        raise CannotDo(why)
    begun_s, offset = clock(), 0
    try:
        if status["state"] != EMPTY:
            yield from one(name, "discard")
        while length := read(memory.view[:WINDOW]):
            _check_wanted(wanted)
            yield from each(_emptying(name, Window(offset, length, 0), memory))
            offset += length
        yield from one(name, "start_loaded")
    except (*TROUBLE, CannotDo) as error:
        yield [Asking(name, "discard")]  # it does not begin later, when it may run elsewhere
        raise CannotDo(f"{name} was not restored, and is empty now: {error}") from None
    return {"ms": round((clock() - begun_s) * 1000, 1)}


def migrate(source: str, target: str, memory: Region, wanted: Wanted, clock: Clock) -> Plan:
    """Move a virtual machine: `{size, pause_ms}`, of which the pause is as long as it ran nowhere.

    Raises CannotDo; the text says where it is then.
    """
    here, there = yield from each(Asking(source, "status"), Asking(target, "status"))
    _check_movable(source, here)
    if there["state"] != EMPTY:
        raise CannotDo(f"{target} is {there['state']}: a virtual machine moves to an empty one")
    if why := _unlike(target, there, Like(here["engine"], here["memory"]), source):
        raise CannotDo(why)
    try:
        yield from one(target, "make_room")
        begun_s = clock()
        size = yield from one(source, "save")
        yield from _carry(source, target, size, memory, wanted)
    except (*TROUBLE, CannotDo) as error:
        yield [Asking(target, "discard")]  # it runs nowhere but here, whatever comes of this
        yield from _go_on(source, here)
        raise CannotDo(f"{source} was not moved, and goes on where it was: {error}") from None
    yield from _start(source, target, here)
    pause_ms = round((clock() - begun_s) * 1000, 1)
    if here["state"] == PAUSED:
        yield [Asking(target, "pause")]
    yield from _forget(source, target)
    return {"size": size, "pause_ms": pause_ms}


def _carry(source: str, target: str, size: int, memory: Region, wanted: Wanted) -> Steps:
    """Fill each window with the image of the source while the target takes the one before."""
    full: list[Window] = []
    for window in _windows(size):
        _check_wanted(wanted)
        taken = [_emptying(target, before, memory) for before in full]
        length, *_ = yield from each(_filling(source, window, memory), *taken)
        _check_full(window, length)
        full = [window]
    yield from each(*(_emptying(target, last, memory) for last in full))


def _start(source: str, target: str, here: dict[str, Any]) -> Steps:
    """Let the target run it. If it cannot, or nobody knows whether it does, it is made sure that it
    does not before the source goes on."""
    try:
        yield from one(target, "start_loaded")
    except TROUBLE as error:
        try:
            yield from one(target, "discard")
        except TROUBLE:
            raise CannotDo(
                f"nobody knows whether {target} runs what {source} was ({error}): {source} stays"
                f" paused; see `ukernel vm ls`, then resume or restart one of them"
            ) from None
        yield from _go_on(source, here)
        raise CannotDo(f"{source} was not moved, and goes on where it was: {error}") from None


def _forget(source: str, target: str) -> Steps:
    try:
        yield from one(source, "discard")
    except TROUBLE as error:
        raise CannotDo(
            f"{target} runs what {source} was, but {source} could not be told to forget it"
            f" ({error}): do not resume it; `ukernel vm discard {source}`"
        ) from None


def _go_on(name: str, before: dict[str, Any]) -> Steps:
    """As it was before: running, or paused by somebody else. A monitor that has died meanwhile does
    so by itself."""
    if before["state"] == RUNNING:
        yield [Asking(name, "resume")]


# --- checks --------------------------------------------------------------------------------------


def _check_movable(name: str, status: dict[str, Any]) -> None:
    if status["state"] not in (RUNNING, PAUSED):
        raise CannotDo(f"{name} is {status['state']}: there is no virtual machine to copy")


def _check_wanted(wanted: Wanted) -> None:
    if not wanted():
        raise CannotDo("it was interrupted")


def _check_full(window: Window, length: int) -> None:
    if length != window.length:
        raise CannotDo(f"the image ends at {window.offset + length}, too early")


def _unlike(name: str, status: dict[str, Any], like: Like, what: str) -> str:
    """Why what comes from there cannot go on here; empty when it can."""
    if status["engine"] != like.engine:
        return f"{name} has engine {status['engine']}, and {what} {like.engine}: give it the same"
    if status["memory"] != like.memory:
        own, its = text_of(status["memory"]), text_of(like.memory)
        return f"{name} has {own} of memory, and {what} {its}: give it the same"
    return ""


# --- windows -------------------------------------------------------------------------------------


def _windows(size: int) -> Iterator[Window]:
    """All of an image, by two windows in turn."""
    for number, offset in enumerate(range(0, size, WINDOW)):
        yield Window(offset, min(WINDOW, size - offset), number % 2 * WINDOW)


def _filling(name: str, window: Window, memory: Region) -> Asking:
    return Asking(name, "image", (window.offset, memory.lend(window.at, window.length)))


def _emptying(name: str, window: Window, memory: Region) -> Asking:
    return Asking(name, "load", (window.offset, memory.show(window.at, window.length)))
