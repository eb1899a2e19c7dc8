"""traceformat: the rules of the Trace Event Format as Perfetto's importer applies them, strictly.

The importer goes by time, and in the order of the file within one moment. For each track it keeps
a stack of the spans that are open; an arrow binds to the top of it, and a span that ends after the
one around it spoils the track. What it would drop or guess is an error here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Track = tuple[int, int]
Event = dict[str, Any]


@dataclass(eq=False)
class Span:
    """A span as the importer has it, with those that lie inside."""

    process: str
    track: str
    name: str
    begin_ns: int
    end_ns: int
    event: Event
    depth: int
    parent: Span | None


@dataclass
class Trace:
    """What is in a file that keeps the rules."""

    spans: list[Span] = field(default_factory=list)
    instants: list[tuple[str, str, int]] = field(default_factory=list)  # process, name, when
    arrows: dict[int, list[Span]] = field(default_factory=dict)  # the spans that each binds to
    counters: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def of(self, process: str, kind: str) -> list[Span]:
        return [s for s in self.spans if s.process == process and s.event["cat"] == kind]


def nanoseconds(us: float) -> int:
    assert type(us) in (int, float)
    return int(us * 1000.0)


def checked(text: str) -> Trace:
    """The trace in a file; AssertionError at the first rule that it breaks."""
    document = json.loads(text)
    assert document["displayTimeUnit"] in ("ms", "ns")
    return _Importer(document["traceEvents"]).trace


class _Importer:
    def __init__(self, events: list[Event]) -> None:
        self.trace = Trace()
        self.processes: dict[int, str] = {}
        self.threads: dict[Track, str] = {}
        self.stacks: dict[Track, list[Span]] = defaultdict(list)
        self.ended: set[int] = set()
        at_ns = 0
        for event in events:
            assert type(event["name"]) is str
            assert event["pid"] > 0 < event["tid"], "0 is Linux's idle task"
            if event["ph"] == "M":
                self.metadata(event)
                continue
            now_ns = nanoseconds(event["ts"])
            assert now_ns >= at_ns, "in the order of time"
            at_ns = now_ns
            {"X": self.span, "i": self.instant, "C": self.counter}.get(event["ph"], self.arrow)(
                event, at_ns
            )
        assert self.ended == set(self.trace.arrows), "an arrow has a head"
        assert len({tid for _, tid in self.threads}) == len(self.threads), "unique over processes"

    def metadata(self, event: Event) -> None:
        what, _, kind = event["name"].partition("_")
        pid, tid = event["pid"], event["tid"]
        if kind == "sort_index":
            assert type(event["args"]["sort_index"]) is int
        elif what == "process":
            assert pid not in self.processes
            self.processes[pid] = event["args"]["name"]
        else:
            assert (kind, pid in self.processes) == ("name", True)
            assert (pid, tid) not in self.threads
            self.threads[pid, tid] = event["args"]["name"]

    def track(self, event: Event) -> tuple[str, str, list[Span]]:
        key = (event["pid"], event["tid"])
        return self.processes[event["pid"]], self.threads[key], self.stacks[key]

    def span(self, event: Event, at_ns: int) -> None:
        process, track, stack = self.track(event)
        dur_ns = nanoseconds(event["dur"])
        assert dur_ns >= 0
        while stack and stack[-1].end_ns <= at_ns:
            stack.pop()
        end_ns, parent = at_ns + dur_ns, stack[-1] if stack else None
        assert parent is None or end_ns <= parent.end_ns, "spans nest or follow each other"
        self.trace.spans.append(
            Span(process, track, event["name"], at_ns, end_ns, event, len(stack), parent)
        )
        stack.append(self.trace.spans[-1])

    def instant(self, event: Event, at_ns: int) -> None:
        assert event["s"] in ("t", "p", "g")
        process, _, _ = self.track(event)
        self.trace.instants.append((process, event["name"], at_ns))

    def counter(self, event: Event, at_ns: int) -> None:
        assert event["pid"] in self.processes
        for value in event["args"].values():
            assert type(value) in (int, float)
            self.trace.counters[event["name"]].append(value)

    def arrow(self, event: Event, at_ns: int) -> None:
        phase, number, arrows = event["ph"], event["id"], self.trace.arrows
        assert phase in ("s", "t", "f")
        assert (number in arrows) != (phase == "s"), "one begin, before everything else of it"
        assert number not in self.ended, "its head is its end"
        assert event.get("bp") == ("e" if phase == "f" else None)
        _, _, stack = self.track(event)
        assert stack, "it binds to a span"
        assert stack[-1].begin_ns <= at_ns <= stack[-1].end_ns, "which is open"
        arrows.setdefault(number, []).append(stack[-1])
        if phase == "f":
            self.ended.add(number)


def arrows_join_one_call(trace: Trace) -> Iterator[bool]:
    """Whether the spans that each arrow binds to are all of the call whose number it bears."""
    for number, spans in trace.arrows.items():
        yield all(span.event["args"]["number"] == number for span in spans)
