"""perfetto: what a system did in a while, as a picture for ui.perfetto.dev. Pure: records in,
the text of a file out, in the Trace Event Format (JSON) of Chrome.

A process for each task: its lives on one track, its calls and the requests that it served on
lanes beside it. A process for the kernel: what waited in its queues. Arrows lead from a call by
way of the queue to the one who served it.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from launcher.lanes import Span, allot
from launcher.lifelines import Lifeline, lifelines, task_and_life
from launcher.picture import Json, Picture, Thread
from launcher.recording import Recording
from launcher.tracing import Decoded
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import TraceRow

KERNEL = "kernel"


def document(recording: Recording, decode: Callable[[TraceRow], Decoded]) -> Iterator[str]:
    """The text of the file, an event a line."""
    begin_ns = recording.begin_ns()
    about = {
        "system": recording.system,
        "clock": f"microseconds since {begin_ns} ns of CLOCK_MONOTONIC",
        "calls": len(recording.rows),
        "calls_lost": sum(calls for _, calls in recording.gaps),
        "notes": recording.notes,
    }
    picture = Picture(begin_ns)
    _draw(picture, recording, decode)
    yield f'{{"displayTimeUnit":"ns","otherData":{_json(about)},"traceEvents":[\n'
    for number, event in enumerate(picture.events()):
        yield f"{',' * bool(number)}{_json(event)}\n"
    yield "]}\n"


# --- what is drawn ------------------------------------------------------------------------------


def _draw(picture: Picture, recording: Recording, decode: Callable[[TraceRow], Decoded]) -> None:
    lives = lifelines(
        recording.rows, recording.events, recording.recoveries, recording.slots, recording.now_ns
    )
    for task in dict.fromkeys((KERNEL, *recording.tasks, *lives)):
        picture.process(task)
    for task, line in lives.items():
        _draw_lives(picture, picture.thread(task, "life"), line, recording.now_ns)
    for event in recording.events:
        _draw_event(picture, event)
    remarks = [(picture.begin_ns, note) for note in recording.notes]
    remarks += [(at_ns, f"{lost} calls lost") for at_ns, lost in recording.gaps]
    for at_ns, text in remarks:
        picture.instant(picture.thread(KERNEL, "trace"), at_ns, text, scope="g")
    calls = [_Call(row, decode(row)) for row in recording.rows]
    _draw_calls(picture, calls)
    _draw_queue_lengths(picture, recording.rows)


def _draw_lives(picture: Picture, thread: Thread, line: list[Lifeline], now_ns: int) -> None:
    for life, after in itertools.zip_longest(line, line[1:]):
        about = {"life": life.life, "death": life.cause}
        end_ns = min(life.end_ns, now_ns)
        picture.span(thread, life.begin_ns, end_ns, f"{life.task}#{life.life}", "life", about)
        if life.begin_ns < life.ready_ns <= end_ns:
            picture.span(thread, life.begin_ns, life.ready_ns, "starting", "life", {})
        if after is not None and life.cause and life.end_ns < after.begin_ns:
            picture.span(
                thread, life.end_ns + 1, after.begin_ns - 1, f"dead: {life.cause}", "life", {}
            )


def _draw_event(picture: Picture, event: Mapping[str, Any]) -> None:
    text = event["text"] if event["kind"] not in ("ready", "serving") else ""  # not for people
    thread = picture.thread(task_and_life(event["who"])[0], "life")
    name = f"{event['kind']}{': ' if text else ''}{text}"
    picture.instant(thread, event["at_ns"], name, {"who": event["who"], "number": event["number"]})


class _Call:
    """A call, and where its spans are: at its client, in the kernel's queue, at its server."""

    def __init__(self, row: TraceRow, decoded: Decoded) -> None:
        self.row, self.decoded = row, decoded
        self.client, self.server = task_and_life(row.client)[0], row.server
        self.name = decoded.call.partition("(")[0]
        if row.status > Code.ANSWER:
            self.name += f": {decoded.outcome}"
        taken_ns = row.taken_ns if row.life else 0
        left_ns = max(taken_ns or row.done_ns, row.queued_ns)
        done_ns = max(left_ns, row.done_ns)
        self.calling = Span(row.queued_ns, done_ns, False)
        self.waiting = Span(row.queued_ns, left_ns, False) if left_ns > row.queued_ns else None
        self.served = Span(left_ns, done_ns, True) if taken_ns else None

    def about(self) -> Json:
        row = self.row
        return {
            "number": row.number,
            "call": self.decoded.call,
            "outcome": self.decoded.outcome,
            "client": row.client,
            "server": f"{self.decoded.server}#{row.life}" if row.life else self.decoded.server,
            "queued_us": (self.waiting.end_ns - row.queued_ns) / 1e3 if self.waiting else 0,
            "request_bytes": row.sent_size,
            "reply_bytes": row.got_size,
        }


def _draw_calls(picture: Picture, calls: list[_Call]) -> None:
    tracks: dict[tuple[str, str], list[tuple[Span, _Call, str]]] = defaultdict(list)
    for call in calls:
        tracks[call.client, "calls"].append((call.calling, call, "s"))
        if call.waiting:
            last = "t" if call.served else "f"
            tracks[KERNEL, f"queue of {call.server}"].append((call.waiting, call, last))
        if call.served:
            tracks[call.server, "calls"].append((call.served, call, "f"))
    for (process, title), found in tracks.items():
        for lane, (span, call, arrow) in zip(allot([s for s, _, _ in found]), found, strict=True):
            thread = picture.thread(process, title if lane == 0 else f"{title} ({lane + 1})")
            kind = "serve" if span.serving else "call" if arrow == "s" else "wait"
            picture.span(thread, span.begin_ns, span.end_ns, call.name, kind, call.about())
            if call.waiting or call.served:
                picture.arrow(thread, span.begin_ns, arrow, call.row.number)


def _draw_queue_lengths(picture: Picture, rows: Iterable[TraceRow]) -> None:
    """A counter for each server that anybody waited for."""
    steps: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        left_ns = row.taken_ns or row.done_ns
        if left_ns > row.queued_ns:
            steps[row.server][row.queued_ns] += 1
            steps[row.server][left_ns] -= 1
    for server, changes in steps.items():
        length = 0
        for at_ns, change in sorted(changes.items()):
            length += change
            picture.counter(KERNEL, at_ns, f"waiting for {server}", length)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
