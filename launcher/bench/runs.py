"""runs: fresh process sets. Each measures one path once, and nothing of it is left afterwards."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from launcher.bench import host
from launcher.bench.load import Counts, Run
from launcher.bench.peers import FAULTY
from launcher.config import load
from launcher.process import describe
from launcher.system import System

SYSTEM_FILE = Path(__file__).with_name("bench.yaml")
KERNEL = "kernel"
PEERS = ("zmq_proxy_c", "bare_router")


class RunError(Exception):
    """A process set came to no result; the text says which process ended, and how."""


def run(name: str, core: int, counts: Counts, faulty: bool = False) -> Run:
    """One run of a path on `core`. A `faulty` peer gives wrong echoes, to test the gate."""
    before = host.steal_ticks(core)
    done = run_kernel(core, counts) if name == KERNEL else run_peer(name, core, counts, faulty)
    done.steal_ticks = host.steal_ticks(core) - before
    return done


def run_kernel(core: int, counts: Counts) -> Run:
    """Boot a system on `core`, let its client measure, take it down."""
    file = load(SYSTEM_FILE)
    with host.pinned(core), System(file, name=f"bench-{os.getpid()}") as system:
        system.boot()
        done = _parsed(_run_client(system, [str(core), counts.dump()]))
        assert system.kernel is not None
        pids = [task.process.pid for task in system.tasks.values() if task.process is not None]
        for pid in (system.kernel.process.pid, *pids):
            done.strays += host.strays(pid, core)
        return done


def _run_client(system: System, argv: list[str]) -> bytes:
    """What the client says on stdout, which is memory: it never waits for a reader."""
    out = os.memfd_create("bench-out")
    try:
        with open(os.devnull, "rb") as nothing:
            task = system.run_task("client", argv, (nothing.fileno(), out, 2))
            try:
                while task.process is not None:
                    system.pump(1.0)
            except BaseException:
                if task.process is not None:
                    task.process.send(signal.SIGKILL)  # it would not hear the kernel's notice
                raise
        if task.status:
            raise RunError(f"the bench client: {describe(task.status)}")
        return os.pread(out, os.fstat(out).st_size, 0)
    finally:
        os.close(out)


def run_peer(name: str, core: int, counts: Counts, faulty: bool = False) -> Run:
    """Broker, server and client of a peer: three processes, set up one after the other."""
    # an abstract address: no file, so none to leave behind
    address = f"ipc://@ukernel-bench-{os.getpid()}-{secrets.token_hex(8)}"
    roles = ("broker", FAULTY if faulty else "server", "client")
    with ExitStack() as stack:
        started = []
        for role in roles:
            process = _start(name, role, address, core, counts)
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        *serving, client = started
        for process, role in zip(serving, roles, strict=False):
            if _tell(process) != b"ready\n":
                raise RunError(f"{name}: its {role} ended before it was ready")
        done = _parsed(_tell(client))
        for process in serving:
            done.strays += host.strays(process.pid, core)
        return done


def _start(
    name: str, role: str, address: str, core: int, counts: Counts
) -> subprocess.Popen[bytes]:
    """A process that has imported everything, or soon will have, and waits to be told."""
    module = [sys.executable, "-m", "launcher.bench.peers"]
    what = [name, role, address, str(core), counts.dump()]
    return subprocess.Popen(
        [*module, *what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is ours to hear; the process dies with us
    )


def _tell(process: subprocess.Popen[bytes]) -> bytes:
    """Let a process set itself up; the line that it answers with, empty when it ends."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()
    return process.stdout.readline()


def _parsed(line: bytes) -> Run:
    try:
        return Run(**json.loads(line))
    except (ValueError, TypeError):
        raise RunError("the client ended without a result") from None
