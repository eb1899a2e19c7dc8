"""trace: what is shown of the calls, for how long, and what is said of those that were missed."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.commands.trace import Lost, Wanted, calls, unseen
from tests.conftest import TIMEOUT_S, Ukernel
from tests.launcher.traceformat import checked
from ukernel.abi.syscalls import TraceRow

BUSY = """
system: busy
servers:
  echo: {run: servers.echo, serves: echo}
  client: {run: servers.client, calls: [echo], args: {every_s: 0.005}}
"""
PAGE, REMEMBERED = 4, 10


def row(number: int, done_ns: int = 0, client: str = "shell#1", status: int = 0) -> TraceRow:
    return TraceRow(number, client, "fs", 1, 1, 0, status, 0, 0, 0, 0, done_ns, b"", b"")


# --- looking again and again --------------------------------------------------------------------


def test_calls_that_were_forgotten_between_two_looks_are_counted() -> None:
    finished = iter([12, 12, 12, 40, 40, 40, 40])  # calls so far, at each look

    def look(start: int) -> list[TraceRow]:
        done = next(finished)
        return [row(n) for n in range(max(start, done - REMEMBERED), done)][:PAGE]

    seen = list(calls(look, lambda timeout_s: True, 0, math.inf))
    told = [each.calls if isinstance(each, Lost) else each.number for each in seen]
    # What was forgotten before the first look does not count; 12 to 29 went between two looks.
    assert told == [*range(2, 12), 18, *range(30, 40)]
    assert Lost(18) in seen


def test_a_busy_system_does_not_keep_a_look_from_its_end() -> None:
    now_ns = time.monotonic_ns()
    seen = list(calls(lambda start: [row(start, now_ns + start - 2)], lambda s: False, 0, now_ns))
    assert [each.number for each in seen if isinstance(each, TraceRow)] == [0, 1, 2, 3]


def test_which_calls_are_wanted() -> None:
    other, failed = row(1, client="fs#2"), row(2, status=9)
    assert Wanted("", "", False).take(other)
    assert Wanted("fs", "fs", False).take(other)
    assert not Wanted("shell", "", False).take(other)
    assert not Wanted("", "disk", False).take(other)
    assert Wanted("", "", True).take(failed)
    assert not Wanted("", "", True).take(other)


def test_calls_that_do_not_pass_the_kernel_are_named() -> None:
    assert unseen({"channels": [], "placement": "micro"}) == []
    channels, household = unseen({"channels": [["fs", "disk"]], "placement": "mono"})
    assert channels == "calls over channels are not in the trace: fs -> disk"
    assert household == "placement mono: calls inside a process are not in the trace"


# --- a running system ---------------------------------------------------------------------------


@pytest.fixture
def busy(ukernel: Ukernel, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "busy.yaml").write_text(BUSY)
    ukernel("up", "busy.yaml", "--detach")
    yield "busy"
    ukernel("down", "--all")


def test_a_while_of_a_busy_system(ukernel: Ukernel, busy: str, tmp_path: Path) -> None:
    shown = ukernel("trace", "--seconds", "0.3", "--client", "client", "--json").stdout
    numbers = [json.loads(line)["number"] for line in shown.splitlines()]
    assert numbers[0] > 0  # not from the beginning
    assert ukernel("trace", "--client", "echo").stdout == ""
    assert ukernel("trace", "--failed").stdout == ""
    assert "no task 'ecko'; there are" in ukernel("trace", "--server", "ecko", status=2).stderr
    told = ukernel("trace", "--perfetto", "x.json", "--decode", status=2).stderr
    assert "leave --decode and --json away" in told
    told = ukernel("trace", "--perfetto", "no/x.json", status=2).stderr
    assert told == "ukernel: no/x.json cannot be written: No such file or directory\n"


def test_ctrl_c_ends_a_recording_and_keeps_it(busy: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launcher.cli", "trace", "--follow", "--perfetto", "x.json"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as recording:
        assert recording.stderr is not None
        assert recording.stderr.readline() == "recording: Ctrl-C ends it\n"
        recording.send_signal(signal.SIGINT)
        told, _ = recording.communicate(timeout=TIMEOUT_S)
        assert recording.returncode == 0
    assert "open it at https://ui.perfetto.dev" in told
    trace = checked((tmp_path / "x.json").read_text())
    assert {span.name for span in trace.of("client", "life")} == {"client#1", "starting"}
