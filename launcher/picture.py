"""picture: collects the events of a trace file, in the Trace Event Format (JSON) of Chrome. Pure.

What Perfetto's importer demands, and does not always say: spans of a track nest or follow each
other; an arrow binds to the innermost span that is open on its track at that moment; numbers of
threads are unique over all processes; times are microseconds, of which it cuts off what is less
than a nanosecond.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

ORDER = ("X", "C", "i", "s", "t", "f")  # of one moment: a span is open before an arrow binds to it

Json = dict[str, Any]


class Thread(NamedTuple):
    pid: int
    tid: int


class Picture:
    """Collects events. What ends before its begin is left out, what began before is cut."""

    def __init__(self, begin_ns: int) -> None:
        self.begin_ns = begin_ns
        self._numbers = itertools.count(1)  # of processes and threads alike; 0 is Linux's idle task
        self._processes: dict[str, int] = {}
        self._threads: dict[tuple[str, str], Thread] = {}
        self._named: list[Json] = []
        self._events: list[tuple[int, int, int, Json]] = []  # when, order, -duration

    def events(self) -> Iterator[Json]:
        yield from self._named
        self._events.sort(key=lambda event: event[:3])
        for _, _, _, event in self._events:
            yield event

    def process(self, name: str) -> int:
        if name not in self._processes:
            pid = self._processes[name] = next(self._numbers)
            self._name("process", pid, pid, name, len(self._processes))
        return self._processes[name]

    def thread(self, process: str, title: str) -> Thread:
        if (process, title) not in self._threads:
            pid = self.process(process)
            first = not any(name == process for name, _ in self._threads)
            thread = Thread(pid, pid if first else next(self._numbers))
            self._threads[process, title] = thread
            self._name("thread", *thread, title, len(self._threads))
        return self._threads[process, title]

    def _name(self, what: str, pid: int, tid: int, name: str, place: int) -> None:
        who = {"ph": "M", "pid": pid, "tid": tid}
        self._named.append({**who, "name": f"{what}_name", "args": {"name": name}})
        self._named.append({**who, "name": f"{what}_sort_index", "args": {"sort_index": place}})

    def span(
        self, thread: Thread, from_ns: int, to_ns: int, name: str, kind: str, about: Json
    ) -> None:
        from_ns = max(from_ns, self.begin_ns)
        if from_ns <= to_ns:
            lasts = {"dur": microseconds(to_ns - from_ns), "args": about}
            self._add("X", thread, from_ns, to_ns - from_ns, name, {"cat": kind, **lasts})

    def instant(
        self, thread: Thread, at_ns: int, name: str, about: Json | None = None, scope: str = "t"
    ) -> None:
        if at_ns >= self.begin_ns:
            more = {"cat": "event", "s": scope, "args": about or {}}
            self._add("i", thread, at_ns, 0, name, more)

    def arrow(self, thread: Thread, at_ns: int, phase: str, number: int) -> None:
        """Bind an end of the arrow (`s`, `f`), or what is on its way (`t`), to the open span."""
        more = {"cat": "flow", "id": number, **({"bp": "e"} if phase == "f" else {})}
        self._add(phase, thread, at_ns, 0, "call", more)

    def counter(self, process: str, at_ns: int, name: str, value: int) -> None:
        pid = self.process(process)
        self._add("C", Thread(pid, pid), at_ns, 0, name, {"args": {"calls": value}})

    def _add(
        self, phase: str, thread: Thread, at_ns: int, dur_ns: int, name: str, more: Json
    ) -> None:
        event = {"ph": phase, "ts": microseconds(at_ns - self.begin_ns), "name": name}
        where = {"pid": thread.pid, "tid": thread.tid}
        self._events.append((at_ns, ORDER.index(phase), -dur_ns, {**event, **where, **more}))


def microseconds(ns: int) -> float:
    """Such that cutting off after nanoseconds gives `ns` again: 1.001 * 1000 is 1000.9999."""
    value = ns / 1000
    return value if int(value * 1000.0) == ns else math.nextafter(value, math.inf)
