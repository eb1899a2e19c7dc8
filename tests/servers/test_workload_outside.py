"""A client outside: what curl brings is summed up, what it does not bring is said, and it ends."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import getpid

import pytest

from launcher.chaos import history
from launcher.chaos.evidence import Operation
from servers.workload.outside import curl
from tests.tools import needs

CONTENT = bytes(range(256)) * 1000
TIMEOUT_S = 20


class Files(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        promised = {"/big": len(CONTENT), "/cut": len(CONTENT) + 1}.get(self.path)
        self.send_response(200 if promised else 404)
        self.send_header("Content-Length", str(promised or 0))
        self.end_headers()
        if promised:
            self.wfile.write(CONTENT)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def start(*words: str, launcher: int = 0) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "servers.workload.outside", str(launcher or getpid())]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*program, *words], stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1
    )


def downloads(url: str, count: int) -> str:
    """What is written down until so many downloads are over and the input has ended."""
    with start("download", "c", "to=fs", f"url={url}") as client:
        assert client.stdin is not None
        assert client.stdout is not None
        lines: list[str] = []
        while sum(f'"do": "{outcome}"' in each for each in lines for outcome in ("ok", "fail")) < (
            count
        ):
            lines.append(client.stdout.readline())
            assert lines[-1], "it has ended"
        client.stdin.close()
        lines += client.stdout.readlines()
        assert client.wait(TIMEOUT_S) == 0
    return "".join(lines)


@needs("curl")
def test_what_comes_is_summed_up(site: str) -> None:
    told = downloads(f"{site}/big", 2)
    made = history.read(told, "c")
    assert len(made) >= 2
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert {(op.op, op.key, op.outcome, op.value) for op in made} == {
        ("download", f"{site}/big", "ok", digest)
    }
    came = history.came(told)
    assert list(came) == [op.number for op in made]
    assert {length for _, length in came.values()} == {len(CONTENT)}
    assert len({port for port, _ in came.values()}) == len(made)
    moved = [each.moved_bytes for each in history.moved(told)]
    assert moved
    assert moved == sorted(moved)
    assert history.ended(told) == {"ok": len(made), "retried": 0, "unknown": 0, "failed": 0}


@needs("curl")
@pytest.mark.parametrize(
    ("path", "why"),
    [("/none", "(22) The requested URL returned error: 404"), ("/cut", "(18) transfer closed")],
)
def test_what_does_not_come_whole_has_failed(site: str, path: str, why: str) -> None:
    told = downloads(site + path, 1)
    first = history.read(told, "c")[0]
    assert (first.outcome, first.value) == ("fail", "")
    assert first.error.startswith("NotDone: curl: ")
    assert why in first.error
    ended = history.ended(told)
    assert ended is not None
    assert ended["failed"] >= 1


@needs("curl")
def test_who_has_done_its_part_waits_for_the_end(site: str) -> None:
    with start("download", "c", "to=fs", f"url={site}/big", "times=2") as client:
        told, complaints = client.communicate("", TIMEOUT_S)
    assert (client.returncode, complaints) == (0, "")
    assert len(history.read(told, "c")) <= 2  # the input has ended at once


def test_it_does_not_outlive_its_launcher() -> None:
    with start("download", "c", "to=fs", "url=http://127.0.0.1:1/", launcher=1) as client:
        _, complaints = client.communicate("", TIMEOUT_S)
    assert (client.returncode, complaints) == (1, "the launcher is gone\n")


def test_what_is_no_command_line_is_refused() -> None:
    with start("download", "c") as client:
        _, complaints = client.communicate("", TIMEOUT_S)
    assert client.returncode == 2
    assert complaints.startswith("workload: download c calls nobody")


def test_curl_is_told_all_that_matters() -> None:
    words = curl("http://10.0.0.2/big", 1.5)
    assert words[:2] == ["curl", "--disable"]  # the user's settings, which must come first
    assert words[words.index("--max-time") + 1] == "1.5"
    assert words[-1] == "http://10.0.0.2/big"


# --- datagrams ------------------------------------------------------------------------------------


def answered(answer: Callable[[int, bytes], Sequence[bytes]], count: int) -> list[Operation]:
    """Of so many datagrams, each with what `answer` gives for its number and its bytes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(TIMEOUT_S)
        options = {"address": "127.0.0.1", "port": server.getsockname()[1], "timeout_ms": 100}
        words = [f"{key}={value}" for key, value in options.items()]
        with start("datagrams", "c", "to=vm", *words, f"times={count}") as client:
            for number in range(count):
                data, sender = server.recvfrom(1 << 16)
                for each in answer(number, data):
                    server.sendto(each, sender)
            told, _ = client.communicate(timeout=TIMEOUT_S)
            assert client.returncode == 0
    return history.read(told, "c")


def test_an_answer_is_compared_with_its_datagram() -> None:
    sent: list[bytes] = []

    def answer(number: int, data: bytes) -> list[bytes]:
        sent.append(data)
        return [[data], [], [sent[number - 1], data], [data[:-1] + b"?"]][number]

    made = answered(answer, 4)
    assert [op.outcome for op in made] == ["ok", "info", "ok", "ok"]
    assert [op.key == f"c.{op.value}" for op in made] == [True, True, True, False]
    assert made[1].error == "E_DEADLINE: no answer in 0.1 s"


def test_nobody_there_is_told_as_not_done() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with start("datagrams", "c", "to=vm", "address=127.0.0.1", f"port={port}", "times=2") as client:
        assert client.stdout is not None
        told = "".join(client.stdout.readline() for _ in range(4))
        client.communicate(timeout=TIMEOUT_S)
    made = history.read(told, "c")
    assert [op.outcome for op in made] == ["fail", "fail"]
    assert "refused" in made[0].error
