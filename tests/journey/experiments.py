"""experiments: small systems, and experiments on them, written and run by a test."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from launcher.chaos.evidence import Injection, Recovery
from launcher.chaos.experiment import load
from launcher.chaos.runner import Run

ALWAYS = "restart: {when: always, max_restarts: 1000, backoff: {first_ms: 0}}"
STORAGE = f"""
system: storage
hardware:
  disk0: {{model: virtio-blk, image: disk.img, size: 16MiB}}
  clock: {{model: timer}}
  rng0: {{model: virtio-rng, seed: 1}}
servers:
  disk: {{run: servers.disk, serves: block, devices: [disk0], {ALWAYS}}}
  fs:
    run: servers.fs
    serves: file
    calls: [disk]
    state: disk
    args: {{format_if_blank: true}}
    {ALWAYS}
  kv: {{run: servers.kv, serves: kv, calls: [fs], state: disk, {ALWAYS}}}
  echo: {{run: servers.echo, serves: echo, memory: 96MiB, {ALWAYS}}}
  timer: {{run: servers.timer, serves: timer, devices: [clock], {ALWAYS}}}
  rng: {{run: servers.rng, serves: entropy, devices: [rng0], {ALWAYS}}}
"""
ECHO = """
system: echo
servers:
  echo: {run: servers.echo, serves: echo, restart: RESTART}
  other: {run: servers.echo, calls: [echo], restart: RESTART}
"""

WRITER = {"client": "writer", "run": "files", "files": 12, "size": "8KiB", "verify": "sha256"}
TELLER = {"client": "teller", "run": "kv", "keys": 20}
WATCH = {"client": "watch", "run": "clock", "every_ms": 5}
TALKER = {"client": "talker", "run": "echo", "to": "echo", "every_ms": 5}
GAMBLER = {"client": "gambler", "run": "entropy", "every_ms": 5}
READER = {"client": "reader", "run": "read", "size": "6MiB"}  # more than fs keeps in memory
READY = {"probe": "all_ready"}
KEPT = ["one_outcome_per_call", "acked_writes_durable", "no_duplicate_effect", "kernel_alive"]


def echoes(restart: str) -> str:
    """A system without hardware; nobody calls on the link other->echo."""
    return ECHO.replace("RESTART", restart)


def experiment(folder: Path, system: str, **parts: Any) -> Path:
    """An experiment file and its system, in `folder`."""
    (folder / "system.yaml").write_text(system)
    defaults = {"version": 1, "title": "an experiment", "system": "system.yaml", "seed": 7}
    whole = {**defaults, "quiet": "200ms", "reboot": False, **parts}
    path = folder / "experiment.yaml"
    path.write_text(json.dumps(whole))
    return path


def play(path: Path, seed: int | None = None, meanwhile: Callable[[], None] | None = None) -> Run:
    """Run it in this process; `meanwhile` is called again and again from the first fault on."""
    run = Run(load(path), seed, progress=lambda part: meanwhile() if meanwhile else None)
    with nothing_left():
        run.run()
    return run


def results(run: Run) -> dict[str, str]:
    """What each verdict says, in a word."""
    return {verdict.checker: verdict.result.value for verdict in run.verdicts}


def told(run: Run) -> dict[str, str]:
    """Why, for each verdict that says something else than held."""
    return {v.checker: v.why for v in run.verdicts if v.result.value != "held"}


def injections(run: Run) -> dict[tuple[str, str], Injection]:
    """By fault and target, where that names one."""
    return {(each.fault, each.target): each for each in run.evidence.injections}


def repairs(run: Run) -> dict[tuple[str, int], Recovery]:
    return {(each.server, each.life): each for each in run.evidence.recoveries}


@contextmanager
def nothing_left() -> Iterator[None]:
    """A run leaves this process as it was: no descriptor, no child, no file."""
    before = _held()
    with tempfile.TemporaryDirectory(prefix="uk-scratch-") as scratch:
        with mock.patch.object(tempfile, "tempdir", scratch):  # others run beside us
            yield
        assert os.listdir(scratch) == []
    assert _held() - before == set()


def _held() -> set[str]:
    descriptors = {f"{fd} -> {_link(fd)}" for fd in os.listdir("/proc/self/fd") if _link(fd)}
    children = {str(process) for process in psutil.Process().children(recursive=True)}
    return descriptors | children | {f"shm {name}" for name in os.listdir("/dev/shm")}


def _link(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # it was the descriptor of the list itself
        return ""
