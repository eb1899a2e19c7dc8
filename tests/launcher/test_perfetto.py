"""perfetto: the picture of a trace keeps the rules of its format, whatever the calls are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.client import Client
from launcher.lanes import Span, allot
from launcher.lifelines import lifelines
from launcher.perfetto import document
from launcher.picture import microseconds
from launcher.recording import Recording
from launcher.tracing import Decoder
from tests.conftest import TIMEOUT_S, Ukernel, until
from tests.launcher.test_live import FILES
from tests.launcher.traceformat import Trace, arrows_join_one_call, checked, nanoseconds
from ukernel.abi.errors import Code
from ukernel.abi.services import Block, FileSystem
from ukernel.abi.syscalls import TraceRow

DECODE = Decoder({"fs": FileSystem, "disk": Block}, ["disk0"]).decode
BASE_NS = 12_333_774_558_826  # a host that has been up for hours


def call(number: int, client: str, server: str, *times: int, **changes: Any) -> TraceRow:
    queued, taken, done = (BASE_NS + us * 1000 if us else 0 for us in times)
    row = TraceRow(number, client, server, 1, 1, 0, 0, 1, 1, queued, taken, done, b"\x90", b"\xc0")
    return row._replace(**changes)


def event(kind: str, who: str, at_us: int, text: str = "") -> dict[str, Any]:
    at_ns = BASE_NS + at_us * 1000
    return {"number": at_us, "at": 1.0, "kind": kind, "who": who, "text": text, "at_ns": at_ns}


def drawn(*rows: TraceRow, until_us: int = 1000, **more: Any) -> Trace:
    recording = Recording(
        "test",
        ["fs", "disk"],
        ["fs -> shell: by channel"],
        now_ns=BASE_NS + until_us * 1000,
        **more,
    )
    recording.rows = list(rows)
    return checked("".join(document(recording, DECODE)))


# --- lanes --------------------------------------------------------------------------------------


@st.composite
def spans(draw: st.DrawFn) -> Span:
    begin = draw(st.integers(0, 40))
    return Span(begin, begin + draw(st.integers(0, 20)), draw(st.booleans()))


@given(st.lists(spans(), max_size=30))
def test_no_spans_of_a_lane_overlap_unless_they_nest(any_spans: list[Span]) -> None:
    lanes: dict[int, list[Span]] = defaultdict(list)
    for span, number in zip(any_spans, allot(any_spans), strict=True):
        lanes[number].append(span)
    assert sorted(lanes) == list(range(len(lanes)))
    for lane in lanes.values():
        for one, two in combinations(sorted(lane), 2):
            inside = one.serving and not two.serving and one.begin_ns < two.begin_ns
            assert one.end_ns < two.begin_ns or (inside and two.end_ns <= one.end_ns)


def test_a_call_lies_inside_the_request_that_was_taken_first() -> None:
    first, second = Span(10, 50, True), Span(20, 90, True)
    assert allot([second, first, Span(30, 40, False), Span(60, 70, False)]) == [1, 0, 0, 1]
    assert allot([first, Span(20, 40, False), Span(30, 45, False)]) == [0, 0, 1]  # both at once


# --- times --------------------------------------------------------------------------------------


@given(st.integers(0, 10**15))
def test_no_nanosecond_is_lost_in_microseconds(ns: int) -> None:
    assert nanoseconds(microseconds(ns)) == ns
    assert nanoseconds(json.loads(json.dumps(microseconds(ns)))) == ns


# --- the picture --------------------------------------------------------------------------------


@st.composite
def calls(draw: st.DrawFn) -> TraceRow:
    queued = draw(st.integers(1, 60))
    taken = draw(st.none() | st.integers(queued, 90))
    times = (queued, taken or 0, draw(st.integers(taken or queued, 120)))
    names = st.sampled_from(["fs", "disk", "shell"])
    client = f"{draw(names)}#{draw(st.integers(1, 3))}"
    life, status = draw(st.integers(1, 3)) if taken else 0, draw(st.sampled_from(list(Code)))
    return call(0, client, draw(names), *times, life=life, status=status)


happenings = st.builds(
    event,
    st.sampled_from(["ready", "died", "killed", "asked", "serving"]),
    st.sampled_from(["disk#1", "disk#2", "fs#1", "disk (standby)", "fs"]),
    st.integers(0, 120),
)


@given(st.lists(calls(), max_size=40), st.lists(happenings, max_size=10))
def test_any_picture_keeps_the_rules(rows: list[TraceRow], events: list[dict[str, Any]]) -> None:
    rows = [row._replace(number=number) for number, row in enumerate(rows)]
    trace = drawn(*rows, events=events)
    assert all(arrows_join_one_call(trace))
    assert len([s for s in trace.spans if s.event["cat"] == "call"]) == len(rows)
    assert len([s for s in trace.spans if s.event["cat"] == "serve"]) == sum(
        r.life > 0 for r in rows
    )


def test_a_call_within_a_call() -> None:
    trace = drawn(
        call(0, "fs#1", "disk", 30, 30, 60), call(1, "shell#4", "fs", 10, 20, 90, opcode=6)
    )
    (asked,), (served,) = trace.of("shell", "call"), trace.of("fs", "serve")
    (inner,) = trace.of("fs", "call")
    assert asked.name == served.name == "FileSystem.remove"
    assert (inner.parent, inner.name) == (served, "Block.capacity")
    (waited,) = trace.of("kernel", "wait")
    assert (waited.track, waited.end_ns - waited.begin_ns) == ("queue of fs", 10_000)
    assert trace.arrows == {0: [inner, *trace.of("disk", "serve")], 1: [asked, waited, served]}
    assert trace.counters == {"waiting for fs": [1, 0]}


def test_a_call_that_nobody_took() -> None:
    trace = drawn(
        call(0, "fs#1", "disk", 30, 0, 60, life=0, status=Code.E_DEADLINE),
        call(1, "fs#1", "disk", 70, 0, 70, life=0, status=Code.E_UNAVAILABLE),
    )
    waiting, refused = trace.of("fs", "call")
    assert waiting.name == "Block.capacity: E_DEADLINE"
    assert trace.arrows == {0: [waiting, *trace.of("kernel", "wait")]}
    assert refused.end_ns == refused.begin_ns
    assert not trace.of("disk", "serve")


def test_what_was_missed_is_said() -> None:
    trace = drawn(call(9, "fs#1", "disk", 30, 30, 60), gaps=[(BASE_NS + 60_000, 5)])
    assert trace.instants == [
        ("kernel", "fs -> shell: by channel", 0),
        ("kernel", "5 calls lost", 30_000),
    ]


BREAK: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "overlap": lambda events: spans_of(events)[0].update(dur=40.0),
    "backwards": lambda events: events.append(events[-1] | {"ts": 0}),
    "negative": lambda events: spans_of(events)[0].update(dur=-1),
    "unnamed track": lambda events: spans_of(events)[0].update(tid=77),
    "no tail": lambda events: events.remove(next(e for e in events if e["ph"] == "s")),
    "no head": lambda events: events.remove(next(e for e in events if e["ph"] == "f")),
    "loose head": lambda events: next(e for e in events if e["ph"] == "f").pop("bp"),
    "nothing to bind to": lambda events: events.remove(spans_of(events)[0]),
}


def spans_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == "X" and event["cat"] == "call"]


@pytest.mark.parametrize("how", BREAK)
def test_the_checker_sees_what_is_broken(how: str) -> None:
    recording = Recording("test", ["fs", "disk"], [], now_ns=BASE_NS + 90_000)
    recording.rows = [call(0, "fs#1", "disk", 10, 10, 30), call(1, "fs#1", "disk", 40, 40, 60)]
    whole = json.loads("".join(document(recording, DECODE)))
    checked(json.dumps(whole))
    BREAK[how](whole["traceEvents"])
    with pytest.raises((AssertionError, KeyError)):
        checked(json.dumps(whole))


# --- lives --------------------------------------------------------------------------------------


def test_lives_from_what_each_source_knows() -> None:
    recovery = {
        "server": "disk", "life": 2, "cause": "killed by SIGKILL",
        "dead_ns": 500, "spawned_ns": 510, "ready_ns": 600,
    }  # fmt: skip
    ready = {**event("ready", "disk#1", 0), "at_ns": 50}
    slot = {"name": "disk", "life": 4, "state": "ready", "begun_ns": 800, "ready_ns": 850}
    row = call(0, "shell#7", "disk", 0, 0, 0)._replace(queued_ns=100, taken_ns=120, done_ns=140)
    later = row._replace(life=2, queued_ns=300, taken_ns=310, done_ns=505)
    known = lifelines([row, later], [ready], [recovery], [slot], 1000)
    assert [tuple(life)[1:] for life in known["disk"]] == [
        (1, 50, 50, 140, ""),  # its end is not known: it answered at 140
        (2, 310, 0, 500, "killed by SIGKILL"),
        (3, 510, 600, 600, ""),
        (4, 800, 850, 1000, ""),
    ]
    assert [tuple(life)[1:] for life in known["shell"]] == [(7, 100, 0, 505, "")]


# --- a running system ---------------------------------------------------------------------------


def disk_has_a_request() -> bool:
    with Client("files") as client:
        return any(row["taken"] for row in client.ask("ps") if row["name"] == "disk")


@pytest.fixture
def files(ukernel: Ukernel, tmp_path: Path) -> Any:
    (tmp_path / "files.yaml").write_text(FILES)
    ukernel("up", "files.yaml", "--detach")
    yield "files"
    ukernel("down", "--all")


def test_a_driver_that_is_killed_while_a_client_calls_it(
    ukernel: Ukernel, files: str, tmp_path: Path
) -> None:
    ukernel("kill", "disk", "--signal", "STOP")
    put = [sys.executable, "-m", "launcher.cli", "fs", "put", "files.yaml", "/f"]
    with subprocess.Popen(put, cwd=tmp_path) as copying:
        until(disk_has_a_request)
        ukernel("kill", "disk")
        assert copying.wait(TIMEOUT_S) == 0
    assert "calls: open it at" in ukernel("trace", "--perfetto", "out.json").stdout
    trace = checked((tmp_path / "out.json").read_text())
    assert all(arrows_join_one_call(trace))
    first, second = (s for s in trace.of("disk", "life") if s.name.startswith("disk#"))
    assert first.end_ns <= second.begin_ns
    dead = [s.name for s in trace.of("disk", "life") if s.name.startswith("dead")]
    assert dead == ["dead: killed by SIGKILL"]
    told = [name for process, name, _ in trace.instants if process == "disk"]
    asked, died = "asked: kill with SIGKILL", "died: killed by SIGKILL"
    assert told.index(asked) < told.index(died) < told.index("ready", told.index(died))
    cut_off = [span for span in trace.of("disk", "serve") if span.name.endswith("E_DEAD_UNKNOWN")]
    assert {span.event["args"]["server"] for span in cut_off} == {"disk#1"}
    assert cut_off[0].end_ns >= first.end_ns
    assert trace.of("disk", "serve")[-1].event["args"]["server"] == "disk#2"
    ends = [(arrow[0].process, arrow[-1].process) for arrow in trace.arrows.values()]
    assert {("shell", "fs"), ("fs", "disk"), ("disk", "machine")} <= set(ends)
    assert all(
        span.parent is None or span.parent.event["cat"] == "serve"
        for span in trace.of("fs", "call")
    )
