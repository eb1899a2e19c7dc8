"""live: top, blocked, events, quarantine and stop, on running systems by the real command line."""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from launcher import lives, requests, rounds, system
from launcher.client import Client
from launcher.commands.events import KINDS
from launcher.commands.screen import fitting
from tests.conftest import TIMEOUT_S, Ukernel, until
from ukernel.abi import syscalls

ROOT = Path(__file__).parents[2]
BUSY = """
system: busy
servers:
  echo:
    run: servers.echo
    serves: echo
    restart: {backoff: {first_ms: 60000, max_ms: 60000}}
    heartbeat: {period_ms: 0}
  client: {run: servers.client, calls: [echo], args: {every_s: 0.005}}
"""
FILES = """
system: files
hardware:
  disk0: {model: virtio-blk, image: disk.img, size: 8MiB}
servers:
  disk: {run: servers.disk, serves: block, devices: [disk0], heartbeat: {period_ms: 0}}
  fs: {run: servers.fs, serves: file, calls: [disk], state: disk, args: {format_if_blank: true}}
  shell: {run: servers.shell, calls: [fs], start: demand}
"""
ALLERGIC = """
system: allergic
servers:
  victim:
    run: tests.adversary.tasks.allergic
    serves: tests.adversary.tasks.allergic:Allergic
    state: persistent
    restart: {max_restarts: 100, backoff: {first_ms: 1, max_ms: 1}}
  guest: {run: tests.adversary.tasks.guest, calls: [victim], start: demand}
"""

UpWith = Callable[[str], None]


@pytest.fixture
def up_with(ukernel: Ukernel, tmp_path: Path) -> Iterator[UpWith]:
    """Boots a system of this text."""

    def boot(text: str) -> None:
        path = tmp_path / "system.yaml"
        path.write_text(text)
        ukernel("up", str(path), "--detach")

    yield boot
    ukernel("down", "--all")


@contextmanager
def command(*args: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on; it is ended with the context."""
    with subprocess.Popen(
        [sys.executable, "-m", "launcher.cli", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str]) -> Iterator[Any]:
    """The lines of JSON that it prints."""
    assert process.stdout is not None
    return map(json.loads, process.stdout)


def interrupted(process: subprocess.Popen[str]) -> bool:
    """Whether Ctrl-C is its good end."""
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=TIMEOUT_S)
    return process.returncode == 0 and told == ""


# --- top ----------------------------------------------------------------------------------------


def test_top_shows_every_task_at_work(ukernel: Ukernel, up_with: UpWith) -> None:
    up_with(BUSY)
    told = ukernel("top", "--every", "0.1", "--count", "2").stdout
    assert len(re.findall(r"busy: \d+ calls/s in \d\.\d s; since the boot 0 deaths", told)) == 2
    assert len(re.findall(r"(?m)^(kernel|echo|client) +1  ready ", told)) == 6
    with command("top", "--json", "--every", "0.1") as top:
        for each in lines(top):
            tasks = {task["name"]: task for task in each["tasks"]}
            if tasks["echo"]["replies_per_s"]:
                break
        assert tasks["echo"]["latency_us"] > 0
        assert tasks["echo"]["rss_bytes"] > 1 << 20
        assert tasks["client"]["calls_per_s"] > 0
        assert each["calls_per_s"] > 0
        assert interrupted(top)


def test_top_counts_deaths_and_denials(ukernel: Ukernel, up_with: UpWith) -> None:
    up_with(BUSY)
    ukernel("kill", "echo")
    with command("top", "--json", "--every", "0.1") as top:
        for each in lines(top):
            (echo,) = [task for task in each["tasks"] if task["name"] == "echo"]
            if echo["life"] == 2:
                break
        assert (each["deaths"], each["denials"], echo["restarts"]) == (1, 0, 1)


def test_top_outlives_the_system(ukernel: Ukernel, up_with: UpWith) -> None:
    up_with(BUSY)
    with command("top", "--json") as first, command("top", "--json", "--count", "99") as second:
        for top in (first, second):
            next(lines(top))
        ukernel("down")
        _, told = first.communicate(timeout=TIMEOUT_S)
        assert (first.returncode, told) == (0, "system busy has ended\n")
        _, told = second.communicate(timeout=TIMEOUT_S)
        assert second.returncode == 3
        assert re.fullmatch(r"ukernel: system busy ended after \d+ of 99 intervals\n", told)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, columns: int, *args: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        self.settings = termios.tcgetattr(slave)
        self.slave = slave
        self.seen = ""
        size = ("COLUMNS", "LINES")  # of another terminal
        self.process = subprocess.Popen(
            [sys.executable, "-m", "launcher.cli", *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={k: v for k, v in os.environ.items() if k not in size} | {"TERM": "xterm"},
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *raised: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def shows(self, text: str) -> bool:
        """Wait until `text` has been written."""
        while text not in self.seen:
            if not select.select([self.master], [], [], TIMEOUT_S)[0]:
                return False
            self.seen += os.read(self.master, 1 << 16).decode(errors="replace")
        return True

    def ends(self) -> bool:
        """Whether the end is a good one, and the terminal as it was."""
        good = self.process.wait(TIMEOUT_S) == 0
        return good and termios.tcgetattr(self.slave) == self.settings


def test_top_on_a_terminal_ends_with_q_or_ctrl_c(up_with: UpWith) -> None:
    up_with(BUSY)
    with Terminal(160, "top") as terminal, Terminal(160, "top") as other:
        assert terminal.shows("echo")
        assert "READY s" in terminal.seen
        assert "FAULTS" in terminal.seen
        os.write(terminal.master, b"xq")
        assert terminal.ends()
        assert other.shows("echo")
        other.process.send_signal(signal.SIGINT)
        assert other.ends()


def test_top_on_a_terminal_ends_with_the_system_and_says_so(
    ukernel: Ukernel, up_with: UpWith
) -> None:
    up_with(BUSY)
    with Terminal(60, "top", "--every", "0.1") as terminal:
        assert terminal.shows("echo")
        assert "FAULTS" not in terminal.seen, "a narrow terminal shows less"
        ukernel("down")
        assert terminal.shows("system busy has ended")
        assert terminal.ends()
        _, left_behind = terminal.seen.split("\x1b[?1049l")
        assert "busy: " in left_behind, "the last figures stay, after the screen has gone"


def test_columns_go_in_order_until_the_rest_fits() -> None:
    columns = [["NAME", "a-long-name"], ["LIFE", "1"], ["CALLS", "17"], ["FAULTS", "0"]]
    dispensable = ["FAULTS", "LIFE"]
    for width, kept in ((80, 4), (30, 4), (29, 3), (22, 2), (5, 2)):
        assert len(fitting(columns, width, dispensable)) == kept, width
    assert [column[0] for column in fitting(columns, 5, dispensable)] == ["NAME", "CALLS"]


# --- blocked ------------------------------------------------------------------------------------


def chain_to(culprit: str, why: str) -> dict[str, Any] | None:
    """What `blocked` says, when there is a chain that ends so."""
    done = subprocess.run(
        [sys.executable, "-m", "launcher.cli", "blocked", "--json"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    ends = [(chain["culprit"], chain["why"]) for chain in found["chains"]]
    return found if (culprit, why) in ends else None


def test_blocked_names_the_deepest_callee(ukernel: Ukernel, up_with: UpWith) -> None:
    up_with(FILES)
    ukernel("fs", "put", "-", "/a", stdin="x" * 100_000)
    ukernel("restart", "fs")  # what it has in its cache would not need the disk
    ukernel("kill", "disk", "--signal", "STOP")
    with command("fs", "sha256", "/a") as shell:
        found = until(lambda: chain_to("disk", "is suspended"))
        (chain,) = found["chains"]
        first, second = chain["waits"]
        assert (first["caller"], first["callee"]) == ("shell", "fs")
        assert (second["caller"], second["callee"]) == ("fs", "disk")
        assert second["operation"].startswith("Block.")
        assert first["waited_ms"] >= second["waited_ms"] > 0
        (stall,) = [each for each in found["stalls"] if each["server"] == "disk"]
        assert (stall["taken"], stall["culprit"]) == (1, "disk")
        told = ukernel("blocked").stdout
        assert re.search(
            r"shell -> fs \S+ \d+ ms -> disk Block\.\w+ \d+ ms: disk is suspended\n", told
        )
        assert "disk: 0 queued, 1 taken: disk is suspended\n" in told
        with command("blocked", "--watch", "--json") as watch:
            assert next(lines(watch))["chains"][0]["culprit"] == "disk"
            assert next(lines(watch))["chains"][0]["culprit"] == "disk"
            assert interrupted(watch)
        ukernel("kill", "disk", "--signal", "CONT")
        out, _ = shell.communicate(timeout=TIMEOUT_S)
        assert (shell.returncode, out.split()[1]) == (0, "/a")
    assert ukernel("blocked").stdout == "nobody is blocked\n"


def test_blocked_tells_of_calls_that_wait_for_a_dead_server(
    ukernel: Ukernel, up_with: UpWith
) -> None:
    up_with(BUSY)
    ukernel("kill", "echo")
    until(lambda: state_of("echo") == ("ready", 2))
    ukernel("kill", "echo")  # the second time it has to wait for its next life
    found = until(lambda: chain_to("echo", "is dead"))
    assert found["chains"][0]["waits"][0]["operation"] == "Echo.echo"
    stall = {"server": "echo", "queued": 1, "taken": 0, "culprit": "echo", "why": "is dead"}
    assert found["stalls"] == [stall]
    assert "echo is ready: life 3" in ukernel("restart", "echo").stdout


def state_of(name: str) -> tuple[str, int]:
    with Client() as client:
        (row,) = [row for row in client.ask("ps") if row["name"] == name]
    return row["state"], row["life"]


# --- events -------------------------------------------------------------------------------------


def test_events_tell_what_has_happened(ukernel: Ukernel, up_with: UpWith) -> None:
    up_with(BUSY)
    with command("events", "--follow", "--json") as follower:
        told = lines(follower)
        first = next(told)
        assert (first["number"], first["kind"], first["who"]) == (0, "ready", "echo#1")
        ukernel("kill", "echo")
        died = next(event for event in told if event["kind"] == "died")
        assert (died["who"], died["text"]) == ("echo#1", "killed by SIGKILL")
        assert next(e for e in told if e["kind"] == "serving")["who"] == "echo#2"
        assert interrupted(follower)
    shown = ukernel("events").stdout
    assert re.search(r"(?m)^\d\d:\d\d:\d\d\.\d{3} echo#1 ready$", shown)
    assert re.search(r"echo asked: kill with SIGKILL\n", shown)
    assert re.search(r"echo#1 died: killed by SIGKILL\n", shown)
    assert re.search(r"echo#2 serving: its first good reply, \d+\.\d ms after its HELLO\n", shown)
    deaths = ukernel("events", "--kind", "died", "--kind", "killed").stdout
    assert deaths.count("\n") == 1
    assert (
        "no kind 'deaths'; there are ready,"
        in ukernel("events", "--kind", "deaths", status=2).stderr
    )


def test_events_that_were_dropped_are_said_to_be(ukernel: Ukernel, up_with: UpWith) -> None:
    up_with(BUSY)
    with Client() as client:
        for _ in range(system.EVENTS + 100):
            client.ask("kill", "client", signal.SIGCONT)
    first, second = ukernel("events").stdout.splitlines()[:2]
    dropped = re.fullmatch(r"\.\.\. (\d+) events are forgotten here", first)
    assert dropped is not None
    assert int(dropped[1]) >= 100
    assert second.endswith("client asked: kill with SIGCONT")
    told = [json.loads(line) for line in ukernel("events", "--json").stdout.splitlines()]
    assert told[0] == {"forgotten": told[1]["number"]}
    numbers = [event["number"] for event in told[1:]]
    assert numbers == list(range(numbers[0], numbers[-1] + 1)), "every other one, page by page"


def test_every_kind_of_event_can_be_asked_for() -> None:
    source = "".join(inspect.getsource(module) for module in (system, rounds, lives))
    said = set(re.findall(r"self\._?say\(\"(\w+)\"", source)) | {"poison", "suspect"}
    from_kernel = {v for k, v in vars(syscalls).items() if k.startswith("EVENT_")}
    assert set(KINDS) == said | from_kernel | {requests.ASKED}


# --- quarantine ---------------------------------------------------------------------------------


@pytest.fixture
def eat(up_with: UpWith, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Has the victim eat a word; what came of it. The system is up."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    up_with(ALLERGIC)

    def run(word: str) -> str:
        with Client() as client, open(os.devnull) as nothing:
            read, write = os.pipe()
            try:
                fd = nothing.fileno()
                assert client.run("guest", [word], (fd, write, fd)) == 0
            finally:
                os.close(write)
            with open(read) as output:
                return output.read().strip()

    return run


def cases(ukernel: Ukernel) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ukernel("quarantine", "--json").stdout)
    return found


def test_quarantine_lists_replays_and_releases(ukernel: Ukernel, eat: Callable[[str], str]) -> None:
    assert cases(ukernel) == []
    assert eat("bread") == "5"
    assert eat("nut") == "E_POISON"
    assert eat("nut") == "E_POISON"
    (case,) = cases(ukernel)
    assert (case["server"], case["call"], case["deaths"]) == (
        "victim", "Allergic.eat(food=b'nut')", 2
    )  # fmt: skip
    number = str(case["number"])
    assert re.search(
        rf"{number} +victim  Allergic\.eat\(food=b'nut'\) +6 +2  \d\d:",
        ukernel("quarantine").stdout,
    )

    died = ukernel("quarantine", "--replay", number, status=1).stdout
    assert died == (
        "victim Allergic.eat(food=b'nut') = E_DEAD_UNKNOWN, died: "
        "it died again: back in quarantine\n"
    )
    until(lambda: state_of("victim") == ("ready", 4))
    verdict = ukernel("quarantine", "--replay", number, "--json", status=1).stdout
    assert json.loads(verdict)["outcome"] == "died"
    assert len(cases(ukernel)) == 1

    assert (
        f"request {number} may reach victim again"
        in ukernel("quarantine", "--release", number).stdout
    )
    assert cases(ukernel) == []
    assert eat("nut") == "E_POISON", "after one more death"
    assert eat("cure") == "None"
    assert eat("nut") == "E_POISON", "nobody has told the launcher"
    answered = ukernel("quarantine", "--replay", number).stdout
    assert answered == "victim Allergic.eat(food=b'nut') = 3, answered\n"
    assert eat("nut") == "3"


def test_quarantine_refuses_what_makes_no_sense(
    ukernel: Ukernel, eat: Callable[[str], str]
) -> None:
    assert eat("nut") == "E_POISON"
    number = str(cases(ukernel)[0]["number"])
    for words, told in (
        (["--replay", "1"], f"no request 1 is in quarantine; there is {number}"),
        (["--release", "1"], f"no request 1 is in quarantine; there is {number}"),
        (["--release", number, "--replay", number], "give one of the two"),
    ):
        assert told in ukernel("quarantine", *words, status=2).stderr
    ukernel("stop", "victim")
    told = ukernel("quarantine", "--replay", number, status=2).stderr
    assert "cannot be sent again: victim is stopped: restart it first" in told


# --- stop ---------------------------------------------------------------------------------------


def test_a_stopped_server_stays_so_until_it_is_restarted(ukernel: Ukernel, up_with: UpWith) -> None:
    up_with(FILES)
    for _ in range(2):
        assert ukernel("stop", "fs").stdout.startswith("fs is stopped: ")
        assert state_of("fs") == ("stopped", 1)
    assert "fs is stopped" in ukernel("fs", "ls", status=1).stderr
    assert ukernel("restart", "fs").stdout == "fs is ready: life 2\n"
    assert ukernel("fs", "ls").stdout == ""
    kinds = [
        event.split()[1:] for event in ukernel("events", "--kind", "asked").stdout.splitlines()
    ]
    assert kinds == [["fs", "asked:", what] for what in ("stop", "stop", "restart")]
    assert ukernel("events", "--kind", "died").stdout == "", "it was no death"
    for name, told in (
        ("nobody", "has no task 'nobody'"),
        ("machine", "as long as the system"),
        ("shell", "shell is a command"),
    ):
        assert told in ukernel("stop", name, status=2).stderr


def test_a_suspended_server_is_stopped_too(ukernel: Ukernel, up_with: UpWith) -> None:
    up_with(BUSY)
    ukernel("kill", "echo", "--signal", "STOP")
    ukernel("stop", "echo")
    assert state_of("echo")[0] == "stopped"
