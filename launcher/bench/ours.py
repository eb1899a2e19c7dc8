"""ours: one run of a path of ours: a whole system, booted for it and taken down again."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path as File

from launcher.bench import host
from launcher.bench.cores import Placement
from launcher.bench.job import Job, Run
from launcher.bench.paths import Path
from launcher.bench.watch import RunError, parsed, watched
from launcher.config import SystemFile, load
from launcher.kernel import SystemDown
from launcher.process import describe
from launcher.system import BootError, System
from ukernel.abi.manifest import Link

SYSTEM_FILE = File(__file__).with_name("bench.yaml")


def run_system(path: Path, where: Placement, job: Job, fault: str = "") -> Run:
    """Boot a system, put its tasks where they belong, let its client measure, take it down."""
    file, name = system_file(path, fault), f"bench-{os.getpid()}"
    try:
        with host.pinned(where.broker), System(file, name=name, trace=path.trace) as system:
            system.boot()
            return _measured(system, path, where, job)
    except (BootError, SystemDown) as error:
        raise RunError(f"the system of {path.name}: {error}") from None


def _measured(system: System, path: Path, where: Placement, job: Job) -> Run:
    assert system.kernel is not None
    pids = {system.kernel.process.pid: where.broker}
    for task in system.tasks.values():
        if task.process is not None:
            pids[task.process.pid] = where.server
    way = "channel" if path.is_channel else "kernel"
    with watched(pids) as gone_astray:
        done = parsed(output_of(system, [job.dump(), way]))
    done.strays += gone_astray
    done.kernel_calls = system.slots()["client"].calls
    return done


def system_file(path: Path, fault: str = "") -> SystemFile:
    """The one system file; a path says by which way, and a self-test with which server."""
    client: dict[str, object] = {}
    if path.spin_us is not None:
        client["calls"] = {"echo": Link(via="channel", spin_us=path.spin_us)}
    echo = {"run": "launcher.bench.echo", "args": {"fault": fault}} if fault else {}
    return with_servers(load(SYSTEM_FILE), client=client, echo=echo)


def with_servers(file: SystemFile, **changed: Mapping[str, object]) -> SystemFile:
    """The same file, but for these keys of these servers."""
    servers = {
        name: server.model_copy(update=changed.get(name))
        for name, server in file.manifest.servers.items()
    }
    manifest = file.manifest.model_copy(update={"servers": servers})
    return SystemFile(manifest, file.path, file.source)


def output_of(system: System, argv: list[str]) -> bytes:
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
