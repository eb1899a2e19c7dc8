"""vmplans: what is asked of monitors to copy, restore and move virtual machines. Pure plans.

A machine that is moved is stopped, copied and started elsewhere; until it is started there it can
go on where it was, and does when anything goes wrong. From then on it is the other's: two never
run, for they would write the same disk.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from launcher.errands import Asking, Clock, Declined, Plan, each, one
from ukernel.abi.errors import CallError
from ukernel.abi.sizes import text_of
from ukernel.abi.vm import EMPTY, PAUSED, PIECE_BYTES, RUNNING

AT_ONCE = 8  # pieces under way: half of a monitor's window

Write = Callable[[bytes], None]
Read = Callable[[int], bytes]  # so many bytes at most, one after the other; none at the end
Wanted = Callable[[], bool]  # whether anybody still waits for it
Steps = Generator[Sequence[Asking], Sequence[Any], None]
TROUBLE = (CallError, Declined, OSError)  # what a step may end in


class CannotDo(Exception):
    """It was not done; all is as before unless the text says otherwise."""


def save(name: str, write: Write, wanted: Wanted, clock: Clock) -> Plan:
    """Copy a virtual machine, which stands still meanwhile: `{engine, memory, size, pause_ms}`."""
    status = yield from one(name, "status")
    _check_movable(name, status)
    begun_s = clock()
    try:
        size = yield from one(name, "save")
        for offsets in _rounds(size):
            _check_wanted(wanted)
            for piece in (yield from _pieces(name, offsets)):
                write(piece)
    except (*TROUBLE, CannotDo) as error:
        yield from _go_on(name, status)
        raise CannotDo(f"{name} was not copied: {error}") from None
    yield from _go_on(name, status)
    pause_ms = round((clock() - begun_s) * 1000, 1)
    return {"engine": status["engine"], "memory": status["memory"], "size": size,
            "pause_ms": pause_ms}  # fmt: skip


def load(name: str, engine: str, memory: int, read: Read, wanted: Wanted, clock: Clock) -> Plan:
    """Continue a copy in place of what is there: `{ms}`. What was there is gone."""
    status = yield from one(name, "status")
    if why := _unlike(name, status, engine, memory, "the copy"):
        raise CannotDo(why)
    begun_s, offset = clock(), 0
    try:
        if status["state"] != EMPTY:
            yield from one(name, "discard")
        while pieces := _read(read):
            _check_wanted(wanted)
            offset = yield from _load(name, offset, pieces)
        yield from one(name, "start_loaded")
    except (*TROUBLE, CannotDo) as error:
        raise CannotDo(f"{name} was not restored, and is empty now: {error}") from None
    return {"ms": round((clock() - begun_s) * 1000, 1)}


def migrate(source: str, target: str, wanted: Wanted, clock: Clock) -> Plan:
    """Move a virtual machine: `{size, pause_ms}`, of which the pause is as long as it ran nowhere.

    Raises CannotDo; the text says where it is then.
    """
    here, there = yield from each(Asking(source, "status"), Asking(target, "status"))
    _check_movable(source, here)
    if there["state"] != EMPTY:
        raise CannotDo(f"{target} is {there['state']}: a virtual machine moves to an empty one")
    if why := _unlike(target, there, here["engine"], here["memory"], source):
        raise CannotDo(why)
    begun_s = clock()
    try:
        size = yield from one(source, "save")
        for offsets in _rounds(size):
            _check_wanted(wanted)
            pieces = yield from _pieces(source, offsets)
            yield from _load(target, offsets[0], pieces)
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


def _unlike(name: str, status: dict[str, Any], engine: str, memory: int, what: str) -> str:
    """Why what comes from there cannot go on here; empty when it can."""
    if status["engine"] != engine:
        return f"{name} has engine {status['engine']}, and {what} {engine}: give it the same"
    if status["memory"] != memory:
        own, its = text_of(status["memory"]), text_of(memory)
        return f"{name} has {own} of memory, and {what} {its}: give it the same"
    return ""


# --- pieces --------------------------------------------------------------------------------------


def _rounds(size: int) -> Iterator[range]:
    """Offsets of pieces that are asked for at once."""
    step = AT_ONCE * PIECE_BYTES
    for start in range(0, size, step):
        yield range(start, min(start + step, size), PIECE_BYTES)


def _pieces(name: str, offsets: range) -> Generator[Sequence[Asking], Sequence[Any], list[bytes]]:
    """The image between these offsets. A piece that is shorter than it may be is asked on."""
    told = yield from each(*(Asking(name, "image", (offset,)) for offset in offsets))
    whole = []
    for offset, text in zip(offsets, told, strict=True):
        piece = bytes.fromhex(text)
        end = min(offset + PIECE_BYTES, offsets.stop)
        while offset + len(piece) < end:
            more = bytes.fromhex((yield from one(name, "image", offset + len(piece))))
            if not more:
                raise CannotDo(f"the image ends at {offset + len(piece)} and not at {end}")
            piece += more
        whole.append(piece[: end - offset])
    return whole


def _load(
    name: str, offset: int, pieces: Sequence[bytes]
) -> Generator[Sequence[Asking], Sequence[Any], int]:
    """Hand pieces over, the first of them at `offset`; where the next one begins."""
    askings = []
    for piece in pieces:
        askings.append(Asking(name, "load", (offset, piece)))
        offset += len(piece)
    yield from each(*askings)
    return offset


def _read(read: Read) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < AT_ONCE and (piece := read(PIECE_BYTES)):
        found.append(piece)
    return found
