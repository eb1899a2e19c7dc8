"""outside: a client that is no task but a program of the host, beyond the card's cable.

    python -m servers.workload.outside LAUNCHER download CLIENT to=SERVER url=URL key=value ...
    python -m servers.workload.outside LAUNCHER datagrams CLIENT to=SERVER address=IP key=value ...

It has curl(1) fetch the file over and over, and sums up what comes, or sends datagrams and compares
what comes back, until standard input ends or the process LAUNCHER does. What it writes down is what
a task would (see `history`, `bulk` and `light`), and of each download `{"n": 0, "port": 40312,
"bytes": 4096}`: from where curl had connected, by which its connection is found among the frames of
the card, and how much came.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import subprocess
import sys
import time
from functools import partial
from typing import IO

from servers.workload.bulk import TOLD_NS
from servers.workload.datagrams import Datagrams, DatagramsRun
from servers.workload.history import OK, History, NotDone
from servers.workload.pace import Pace
from servers.workload.session import STDIN, STDOUT, Order, UsageError, parse
from ukernel.lib.confine import live_under

PIPE_BYTES = 1 << 20  # between curl and us
WRITE_OUT = "%{stderr}\n%{local_port}\n"  # the last line of what curl says


class Downloads:
    """One after the other."""

    def __init__(self, order: Order, history: History) -> None:
        self.url = str(order.options["url"])
        self.history = history
        self.count = self.done = 0
        self.moved_bytes = 0
        self._told_ns = 0
        timeout_s = int(order.options["timeout_ms"]) / 1000
        self._command = curl(self.url, timeout_s)

    def step(self) -> bool:
        """Make one; whether it came to its end."""
        done = self.history.attempt("download", self.url, self._fetch) == OK
        self.count += 1
        self.done += done
        return done

    def _fetch(self) -> str:
        """The SHA-256 of what came. Raises NotDone."""
        die_too = partial(live_under, os.getpid(), "", 0)
        with subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=die_too,  # noqa: PLW1509 - there is one thread
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            before = self.moved_bytes
            digest = self._sum(process.stdout)
            said, _, port = process.stderr.read().decode().strip().rpartition("\n")
        came = self.moved_bytes - before
        if port.isdigit():
            self.history.say(n=self.count, port=int(port), bytes=came)
        if process.returncode:
            raise NotDone(said.strip() or f"curl ended with {process.returncode}")
        return digest

    def _sum(self, source: IO[bytes]) -> str:
        digest = hashlib.sha256()
        fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        while piece := os.read(source.fileno(), PIPE_BYTES):
            digest.update(piece)
            self.moved_bytes += len(piece)
            now_ns = time.monotonic_ns()
            if now_ns - self._told_ns >= TOLD_NS:
                self._told_ns = now_ns
                self.history.say(moved=self.moved_bytes, at=now_ns)
        return digest.hexdigest()


def curl(url: str, timeout_s: float) -> list[str]:
    """The command that writes what is at `url` to its standard output, whatever the user's own
    settings of curl and of proxies say. It connects once and does not try again."""
    return [
        "curl", "--disable", "--silent", "--show-error", "--fail", "--noproxy", "*",
        "--max-time", f"{timeout_s:g}", "--write-out", WRITE_OUT, "--output", "-", url,
    ]  # fmt: skip


def work(client: Downloads | Datagrams, times: int, pace: Pace) -> None:
    """Until the input ends. Who has done what it was to do waits for that."""
    good = True
    for _ in range(times) if times else itertools.count():
        if not pace.wait(good):
            return
        good = client.step()
    while os.read(STDIN, 4096):
        continue


def main(argv: list[str]) -> int:
    try:
        order = parse(argv[1:])
    except UsageError as error:
        print(f"workload: {error}", file=sys.stderr)
        return 2
    live_under(int(argv[0]), order.client, 0)
    history = History(STDOUT)
    client = (
        Datagrams(order.client, order.options, history)
        if order.run is DatagramsRun
        else Downloads(order, history)
    )
    work(client, int(order.options["times"]), Pace(STDIN, int(order.options["every_ms"])))
    done, count = client.done, client.count
    history.say(end={"ok": done, "retried": 0, "unknown": 0, "failed": count - done})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
