"""lone: one run of a peer: its processes, which belong to nobody's system, and their folder."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

from launcher import vitals
from launcher.bench.cores import Placement
from launcher.bench.job import Job, Run
from launcher.bench.paths import BROKERED, Path
from launcher.bench.watch import RunError, parsed, watched
from launcher.rundir import RunDir

READY_S, DONE_S = 15.0, 120.0  # for a process to be set up, and for a client to have measured


def run_peer(path: Path, where: Placement, job: Job, fault: str = "") -> Run:
    """Broker, server and client of a peer, as many as it has, set up one after the other."""
    roles = {"broker": (where.broker, ""), "server": (where.server, fault)}
    if path.kind != BROKERED:
        del roles["broker"]
    if path.ends == 1:
        roles = {}
    roles["client"] = (where.client, job.dump())
    with contextlib.ExitStack() as stack:
        with _undisturbed():
            folder = RunDir(f"bench-{os.getpid()}")
            stack.callback(folder.remove)
        started = {}
        for role, (core, what) in roles.items():
            with folder.appending(role) as log, _undisturbed():
                process = _start([path.name, role, str(folder.path), str(core), what], log)
                stack.callback(_end, process)
            started[role] = process
        client = started.pop("client")
        for role, process in started.items():
            if not _tell(process, READY_S):
                raise RunError(
                    f"{path.name}: its {role} was never ready{_last_words(folder, role)}"
                )
        with watched({process.pid: roles[role][0] for role, process in started.items()}) as found:
            line = _tell(client, DONE_S)
        if not line:
            raise RunError(f"{path.name}: its client came to no end{_last_words(folder, 'client')}")
        done = parsed(line)
        done.strays += found
        return done


def _last_words(folder: RunDir, role: str) -> str:
    return "".join(f"\n  {line}" for line in vitals.tail(folder.log(role)))


def _start(what: list[str], log: int) -> subprocess.Popen[bytes]:
    """A process that has imported everything, or soon will have, and waits to be told."""
    return subprocess.Popen(
        [sys.executable, "-m", "launcher.bench.peers", *what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it and wait until it is gone."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits until what is being started is known; whoever starts here never hears it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _tell(process: subprocess.Popen[bytes], patience_s: float) -> bytes:
    """Let a process set itself up; the line that it answers with, empty when there is none."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    except BrokenPipeError:
        return b""
    heard, _, _ = select.select([process.stdout], [], [], patience_s)
    return process.stdout.readline() if heard else b""
