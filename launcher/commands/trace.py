"""trace: `ukernel trace`: the calls that have passed the kernel, as lines or as a picture."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from launcher.client import Client, Refused
from launcher.commands.common import SystemName
from launcher.commands.interfaces import decoder
from launcher.commands.observe import LOOK_AGAIN_S, Follow
from launcher.recording import Recording
from ukernel.abi.syscalls import TraceRow


class Wanted(NamedTuple):
    """Which calls; an empty name stands for all."""

    client: str
    server: str
    failed: bool

    def take(self, call: TraceRow) -> bool:
        client = call.client.partition("#")[0]
        return (
            self.client in ("", client)
            and self.server in ("", call.server)
            and (call.status != 0 or not self.failed)
        )


class Lost(NamedTuple):
    """So many calls were forgotten between two looks."""

    calls: int


def trace(
    system: SystemName = "",
    follow: Follow = False,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="N", min=0.0, help="What finishes from now on, N s."),
    ] = None,
    client: Annotated[
        str, typer.Option("--client", metavar="NAME", help="Only the calls of this task.")
    ] = "",
    server: Annotated[
        str, typer.Option("--server", metavar="NAME", help="Only the calls to this task.")
    ] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Only those without a result.")] = False,
    decode: Annotated[bool, typer.Option("--decode", help="Names instead of numbers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    perfetto: Annotated[
        Path | None,
        typer.Option("--perfetto", metavar="FILE", help="Write a picture for ui.perfetto.dev."),
    ] = None,
) -> None:
    """The finished calls that the kernel remembers, oldest first; or those of a while to come.

    Calls over a channel, and between servers in one process, do not pass the kernel: they are
    not in its trace.
    """
    if perfetto and (decode or as_json):
        raise Refused("--perfetto writes a file of its own: leave --decode and --json away", 2)
    with Client(system) as line:
        info = line.ask("info")
        _check(info, client, server)
        wanted, notes = Wanted(client, server, failed), unseen(info)
        anew = seconds is not None and not follow
        start = line.ask("kstat")["calls_done"] if anew else 0
        from_ns, until_ns = time.monotonic_ns() if anew else 0, _until_ns(follow, seconds)
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        looks = calls(line.trace, line.ended, start, until_ns)
        if perfetto is None:
            _print(looks, wanted, decoder(info).decode if decode else _plain, as_json, follow)
            return
        recording = Recording(info["system"], info["tasks"], notes, from_ns)
        _record(recording, looks, wanted, math.isinf(until_ns))
    _write(perfetto, recording, info)


def _check(info: dict[str, Any], *names: str) -> None:
    for name in names:
        if name and name not in info["tasks"]:
            raise Refused(f"no task {name!r}; there are {', '.join(info['tasks'])}", 2)


def unseen(info: dict[str, Any]) -> list[str]:
    """Which calls of this system do not pass the kernel, in words."""
    past = [f"{client} -> {server}" for client, server in info["channels"]]
    notes = [f"calls over channels are not in the trace: {', '.join(past)}"] if past else []
    if info["placement"] != "micro":
        notes.append(f"placement {info['placement']}: calls inside a process are not in the trace")
    return notes


# --- what the kernel remembers ------------------------------------------------------------------


def _until_ns(follow: bool, seconds: float | None) -> float:
    if seconds is None:
        return math.inf if follow else time.monotonic_ns()
    return time.monotonic_ns() + seconds * 1e9


def calls(
    look: Callable[[int], list[TraceRow]],
    ended: Callable[[float], bool],
    start: int,
    until_ns: float,
) -> Iterator[TraceRow | Lost]:
    """Calls from number `start`, until one has finished after that moment or none is there.

    `look` gives a page of calls from a number, `ended` waits, so many seconds, for the end of all.
    """
    while True:
        over = time.monotonic_ns() >= until_ns
        page = look(start)
        if page and page[0].number > start > 0:
            yield Lost(page[0].number - start)
        yield from page
        if page:
            start = page[-1].number + 1
        if page and page[-1].done_ns > until_ns:
            return
        left_s = max(0.0, until_ns / 1e9 - time.monotonic())
        if not page and (over or ended(min(LOOK_AGAIN_S, left_s))):
            return


# --- as lines -----------------------------------------------------------------------------------


def _print(
    looks: Iterator[TraceRow | Lost],
    wanted: Wanted,
    show: Callable[[TraceRow], Any],
    as_json: bool,
    at_once: bool,
) -> None:
    with suppress(KeyboardInterrupt):
        for row in looks:
            if isinstance(row, Lost):
                lost = json.dumps({"lost": row.calls}) if as_json else f"... {_lost(row.calls)}"
                print(lost, flush=at_once)
            elif wanted.take(row):
                print(_as_json(show(row)) if as_json else show(row), flush=at_once)


def _lost(calls: int) -> str:
    return f"{calls} calls are lost here: the kernel forgot them before this command could look"


class _Plain(TraceRow):
    """A row as it is."""

    def __str__(self) -> str:
        waited_us = (self.taken_ns - self.queued_ns) / 1e3 if self.taken_ns else 0.0
        return (
            f"{self.number} {self.client} -> {self.server}#{self.life} op {self.opcode} "
            f"badge {self.badge} status {self.status} sent {self.sent_size} got {self.got_size} "
            f"bytes, waited {waited_us:.0f} us, took {(self.done_ns - self.queued_ns) / 1e3:.0f} us"
        )


def _plain(row: TraceRow) -> _Plain:
    return _Plain(*row)


def _as_json(row: Any) -> str:
    values = {k: v.hex() if isinstance(v, bytes) else v for k, v in row._asdict().items()}
    return json.dumps(values)


# --- as a picture -------------------------------------------------------------------------------


def _record(
    recording: Recording, looks: Iterator[TraceRow | Lost], wanted: Wanted, endless: bool
) -> None:
    """Ctrl-C ends it, and so does the end of the system: what has been seen is kept."""
    lost = 0
    with suppress(KeyboardInterrupt, Refused):
        if endless:
            print("recording: Ctrl-C ends it", file=sys.stderr, flush=True)
        for row in looks:
            if isinstance(row, Lost):
                lost = row.calls
                continue
            if lost:
                recording.gaps.append((row.done_ns, lost))
                lost = 0
            if wanted.take(row):
                recording.rows.append(row)
    recording.now_ns = time.monotonic_ns()


def _write(path: Path, recording: Recording, info: dict[str, Any]) -> None:
    from launcher.perfetto import document

    with suppress(Refused), Client(recording.system) as line:  # gone: its calls must do
        recording.slots = line.ask("ps")
        recording.recoveries = list(_pages(line, "recoveries", lambda last, seen: seen))
        recording.events = list(_pages(line, "events", lambda last, seen: last["number"] + 1))
        recording.now_ns = time.monotonic_ns()
    try:
        with path.open("w") as file:
            file.writelines(document(recording, decoder(info).decode))
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}", 2) from None
    lost = sum(calls for _, calls in recording.gaps)
    print(f"{path}: {len(recording.rows)} calls: open it at https://ui.perfetto.dev")
    if lost:
        print(f"note: {lost} calls were lost between two looks", file=sys.stderr)


def _pages(
    line: Client, request: str, following: Callable[[dict[str, Any], int], int]
) -> Iterator[dict[str, Any]]:
    start = seen = 0
    while page := line.ask(request, start):
        yield from page
        seen += len(page)
        start = following(page[-1], seen)
