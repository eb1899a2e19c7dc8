"""The workload's clients: what they write down, when they work, how they are asked to."""

from __future__ import annotations

import json
import os

import pytest

from servers.workload.history import DOUBTFUL_CHANGE, FAIL, INFO, LONGEST_ERROR, OK, History
from servers.workload.light import ClockRun, ConsoleRun, EchoRun, EntropyRun
from servers.workload.memory import Windows
from servers.workload.pace import Pace
from servers.workload.session import RUNS, UsageError, main, parse
from tests.servers import workload
from tests.servers.workload import client_of, pipe, told
from ukernel.abi.errors import (
    DeadlinePassed,
    DeadNotRun,
    DeadUnknown,
    Overload,
    Poison,
    Unavailable,
)
from ukernel.abi.services import Console, DeviceFailed, Echo, Entropy, NoSpace, Timer
from ukernel.abi.wire import Malformed

FOREVER_MS = 3_600_000

# --- what is written down -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reading", "changing", "told_as"),
    [
        (NoSpace("/a"), FAIL, FAIL, "NoSpace: /a"),
        (DeviceFailed("sector 1"), FAIL, INFO, "DeviceFailed: sector 1"),
        (Unavailable("fs is failed"), FAIL, FAIL, "E_UNAVAILABLE: fs is failed"),
        (Unavailable("E_UNAVAILABLE: fs"), FAIL, FAIL, "E_UNAVAILABLE: fs"),
        (Overload("too many"), FAIL, FAIL, "E_OVERLOAD: too many"),
        (DeadNotRun("fs"), FAIL, FAIL, "E_DEAD_NOTRUN: fs"),
        (DeadUnknown("fs"), INFO, INFO, "E_DEAD_UNKNOWN: fs"),
        (DeadlinePassed("late"), INFO, INFO, "E_DEADLINE: late"),
        (Poison("twice"), INFO, INFO, "E_POISON: twice"),
        (Malformed("not msgpack"), INFO, INFO, "Malformed: not msgpack"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_outcome_is_recorded(
    error: Exception, reading: str, changing: str, told_as: str
) -> None:
    kept = workload.Kept()

    def fail() -> str:
        raise error

    assert kept.attempt("read", "k", fail) == reading
    assert kept.attempt("write", "k", fail, value="v", doubtful=DOUBTFUL_CHANGE) == changing
    outcomes = [(op.op, op.outcome, op.value, op.error) for op in kept.operations()]
    assert outcomes == [("read", reading, "", told_as), ("write", changing, "v", told_as)]


def test_a_line_is_one_write_before_the_call_and_one_after() -> None:
    with pipe() as (out, into):
        history = History(into)

        def look() -> str:
            begun = json.loads(os.read(out, 4096))
            assert begun.pop("at") > 0
            assert begun == {"n": 0, "do": "begin", "op": "read", "key": "/c/ü", "value": ""}
            return "seen"

        assert history.attempt("read", "/c/ü", look) == OK
        line = os.read(out, 4096)
        assert line.endswith(b"\n")
        ended = json.loads(line)
        assert ended.pop("at") > 0
        assert ended == {"n": 0, "do": "ok", "value": "seen", "error": ""}
        history.attempt("read", "k", lambda: "")
        assert json.loads(os.read(out, 4096).splitlines()[0])["n"] == 1


def test_a_long_text_is_cut() -> None:
    kept = workload.Kept()

    def fail() -> str:
        raise NoSpace("x" * 5000)

    kept.attempt("write", "k", fail)
    assert len(kept.operations()[0].error) < LONGEST_ERROR + 20


def test_a_bug_is_no_outcome() -> None:
    kept = workload.Kept()
    with pytest.raises(ZeroDivisionError):
        kept.attempt("read", "k", lambda: str(1 // 0))


# --- pace ---------------------------------------------------------------------------------------


def test_the_end_of_the_input_ends_the_longest_wait() -> None:
    ours, theirs = os.pipe()
    pace = Pace(ours, FOREVER_MS)
    assert pace.wait(good=True)  # the first is due at once
    os.write(theirs, b"whatever")
    os.close(theirs)
    assert not pace.wait(good=True)
    assert not pace.wait(good=False)
    os.close(ours)


def test_without_a_pace_the_next_is_due_at_once() -> None:
    with pipe() as (ours, _):
        pace = Pace(ours, 0)
        assert all(pace.wait(good) for good in (True, False, True))


# --- memory -------------------------------------------------------------------------------------


def test_windows_take_turns_and_a_spoilt_one_is_never_lent_again() -> None:
    memory = workload.Windows()
    windows = Windows(memory, 100, 3)
    first = [windows.take() for _ in range(3)]
    assert len({window.token for window in first}) == 3
    assert [windows.take() for _ in range(3)] == first
    windows.spoil(first[1])
    second = [windows.take() for _ in range(6)]
    assert second[:3] == second[3:]
    assert [second[0], second[2]] == [first[0], first[2]]
    assert second[1] not in first
    assert memory.taken_back == [first[1].view]


# --- the command line ---------------------------------------------------------------------------


def test_a_command_line_is_understood() -> None:
    order = parse(["files", "writer", "to=fs", "size=5", "verify=sha256"])
    assert (order.verb, order.run, order.client) == ("work", RUNS["files"], "writer")
    assert (order.options["to"], order.options["size"], order.options["files"]) == ("fs", 5, 64)
    assert parse(["verify", "kv", "c", "to=kv"]).verb == "verify"
    assert parse(["prepare", "read", "c", "to=fs", "path=/a=b"]).options["path"] == "/a=b"
    assert {name: run.defaults["every_ms"] for name, run in RUNS.items()} == {
        "files": 1, "kv": 1, "read": 0, "download": 0, "echo": 1, "clock": 1, "entropy": 1,
        "console": 1, "guest": 0, "datagrams": 20,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("", "RUN is files, kv"),
        ("verify", "RUN is files, kv"),
        ("files", "RUN CLIENT key=value"),
        ("dance c to=fs", "RUN is files, kv"),
        ("files c", "files c calls nobody: add to=SERVER"),
        ("files c to=fs files=many", "'files=many' is not a whole number"),
        ("files c to=fs colour=red", "files has no option 'colour=red'; it has every_ms, seed"),
        ("echo c to=echo files=1", "echo has no option"),
    ],
)
def test_what_is_no_command_line_says_how_to_write_one(
    words: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=why):
        parse(words.split())
    assert main(words.split()) == 2
    assert capsys.readouterr().err.startswith("workload: ")


# --- runs that keep nothing ---------------------------------------------------------------------


class Servers(Echo, Timer, Entropy):
    """Three of them at once, right or wrong."""

    def __init__(self) -> None:
        self.wrong = False
        self.clock = 10**18

    def echo(self, data: bytes) -> bytes:
        return data[:-1] + b"?" if self.wrong else data

    def now(self) -> int:
        self.clock += 1000 if not self.wrong else -1000
        return self.clock

    def sleep_until(self, when: int) -> int:
        self.clock = max(self.clock, when)
        return self.clock

    def read(self, count: int) -> bytes:
        return bytes(range(count))


def test_an_echo_is_compared_with_what_was_sent() -> None:
    server = Servers()
    client = client_of(EchoRun, server, size=100)
    assert client.step()
    server.wrong = True
    assert client.step()
    right, wrong = told(client)
    assert right.key == f"client.{right.value}"
    assert (wrong.outcome, wrong.key == f"client.{wrong.value}") == (OK, False)


def test_the_clock_is_told_as_it_shows() -> None:
    server = Servers()
    client = client_of(ClockRun, server)
    assert all(client.step() for _ in range(40))
    seen = told(client)
    shown = [int(op.value) for op in seen]
    assert shown == sorted(shown)
    sleeps = [n for n, op in enumerate(seen) if op.op == "sleep"]
    assert len(sleeps) == 2
    assert all(shown[n] - shown[n - 1] == 1_000_000 for n in sleeps)
    server.wrong = True
    client.step()
    assert int(told(client)[-1].value) < shown[-1]


def test_random_bytes_are_told_as_they_came() -> None:
    client = client_of(EntropyRun, Servers(), size=4)
    assert client.step()
    assert told(client)[0].value == "00010203"


class Line(Console):
    def __init__(self) -> None:
        self.shown: list[bytes] = []
        self.dies = False

    def write(self, data: bytes) -> int:
        self.shown.append(data)
        if self.dies:
            raise DeadUnknown("console died")
        return len(data)


def test_lines_are_numbered_and_never_said_again() -> None:
    line = Line()
    client = client_of(ConsoleRun, line, size=12)
    assert client.step()
    line.dies = True
    assert not client.step()
    line.dies = False
    assert client.step()
    assert line.shown == [b"client 0....\n", b"client 1....\n", b"client 2....\n"]
    assert [op.outcome for op in told(client)] == [OK, INFO, OK]
    assert [op.value for op in told(client)] == ["client 0....", "client 1....", "client 2...."]
