"""demo: the main job, on real input: files go in while their driver is killed, and all come out.

Boots `storage.yaml` on a fresh disk, copies a tree of real source files into it while `disk` is
killed at seeded moments, reads everything back, boots again from the same image and reads once
more, then measures a kernel call. Every figure printed was measured in this run.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import signal
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from launcher.bench import ipc
from launcher.bench.plan import brief
from launcher.bench.stats import percentile
from launcher.config import load
from launcher.job import Job
from launcher.system import System
from launcher.tasks import Stages
from ukernel.abi.syscalls import READY

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "storage.yaml"
BROKER = ROOT / "ukernel" / "broker"
PACKAGES = ("encodings", "email", "asyncio", "json", "unittest", "xml", "http")
VICTIM = "disk"
KILLS = 20
PAUSE_S = (0.04, 0.12)  # between a recovery and the next kill


@dataclass
class Findings:
    """What the demo saw. `document` is the JSON that `--json` writes."""

    boot_ms: float = 0.0
    servers: int = 0
    sources: dict[str, Path] = field(default_factory=dict)  # path inside -> file outside
    stored: int = 0  # files whose copy was acknowledged
    good: int = 0
    lost: int = 0
    reboot_good: int = 0
    recoveries: list[float] = field(default_factory=list)
    kills: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    bench: dict[str, float] = field(default_factory=dict)
    ratio: float = 0.0

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.sources.values())

    @property
    def held(self) -> bool:
        """Whether every claim held: no byte wrong, no call without an outcome, enough kills."""
        every = len(self.sources)
        intact = self.good == every and self.reboot_good == every and not self.lost
        return intact and self.calls.get("lost") == 0 and self.kills >= KILLS

    def document(self) -> dict[str, Any]:
        """The figures under the names that the README explains."""
        ordered = sorted(self.recoveries)
        every = len(self.sources)
        return {
            "boot_ms": round(self.boot_ms, 1),
            "servers": self.servers,
            "files": every,
            "bytes": self.size,
            "sha256_ok": self.good == every,
            "kills": self.kills,
            "recovery_ms": {
                name: round(percentile(ordered, part), 2) if ordered else 0.0
                for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
            },
            "calls": self.calls,
            "acked_writes_lost": self.lost,
            "reboot_sha256_ok": self.reboot_good == every,
            "ipc_rtt_us": {name: round(value, 1) for name, value in self.bench.items()},
            "kernel_over_zmq_proxy_c": round(self.ratio, 3),
            "broker_lines": broker_lines(),
        }


def broker_lines() -> int:
    """Lines of the trusted kernel, comments and blank lines included."""
    return sum(len(path.read_text().splitlines()) for path in BROKER.glob("*.py"))


def source_tree() -> dict[str, Path]:
    """Real input: source files of the running Python, by their place inside the system."""
    top = Path(sysconfig.get_paths()["stdlib"])
    files = (path for name in PACKAGES for path in sorted((top / name).rglob("*.py")))
    return {"/" + path.relative_to(top).as_posix(): path for path in files}


class Nemesis:
    """Kills a server, waits for its recovery, and kills again: at moments that a seed decides."""

    def __init__(self, system: System, seed: int, shown: Callable[[int, Stages], None]) -> None:
        self.system = system
        self.random = random.Random(seed)
        self.shown = shown
        self.kills = 0
        self.recoveries: list[Stages] = []
        self.due = time.monotonic() + self.random.uniform(*PAUSE_S)

    def act(self) -> float:
        """Kill if it is time; seconds until there is something to do again."""
        done = self.system.recoveries
        while len(self.recoveries) < len(done) and done[len(self.recoveries)].serving_ns:
            self.recoveries.append(done[len(self.recoveries)])
            self.shown(len(self.recoveries), self.recoveries[-1])
            self.due = time.monotonic() + self.random.uniform(*PAUSE_S)
        if len(self.recoveries) < self.kills:
            return 0.1  # the last one is still being repaired
        if time.monotonic() >= self.due and self.system.tasks[VICTIM].state == READY:
            self.system.signal(VICTIM, signal.SIGKILL)
            self.kills += 1
        return max(0.001, self.due - time.monotonic())


def copy_in(files: dict[str, Path]) -> list[str]:
    folders = sorted({str(Path(inside).parent) for inside in files})
    return [
        *(shlex.join(["mkdir", folder]) for folder in folders),
        *(shlex.join(["put", str(outside), inside]) for inside, outside in files.items()),
    ]


def read_back(files: dict[str, Path]) -> list[str]:
    return [shlex.join(["sha256", inside]) for inside in files]


def matching(files: dict[str, Path], found: dict[str, str]) -> int:
    """How many files have the SHA-256 of their original."""
    return sum(
        found.get(inside) == hashlib.sha256(outside.read_bytes()).hexdigest()
        for inside, outside in files.items()
    )


class Demo:
    """One run, step by step, telling a person what it does."""

    def __init__(self, console: Console, seed: int) -> None:
        self.console = console
        self.seed = seed
        self.found = Findings(sources=source_tree())
        self.unknown = 0  # calls of the shell whose outcome it could not find out

    def run(self) -> Findings:
        with tempfile.TemporaryDirectory(prefix="ukernel-demo-") as state:
            image = Path(state, "disk.img")
            with self._booted(image) as system:
                self._boot_table(system)
                self._copy_and_compare(system)
            self._reboot(image)
        self._bench()
        return self.found

    @contextmanager
    def _booted(self, image: Path) -> Iterator[System]:
        with System(load(CONFIG), name=f"demo-{os.getpid()}", images={"disk0": image}) as system:
            system.boot()
            yield system

    def _boot_table(self, system: System) -> None:
        self.found.boot_ms = system.boot_ms
        rows = [row for row in system.slots().values() if row.ready_ns]
        self.found.servers = len(rows)
        table = Table(title="Booted on a blank 64 MiB disk", title_justify="left")
        for heading in ("process", "pid", "ready after ms"):
            table.add_column(heading, justify="left" if heading == "process" else "right")
        for row in rows:
            took = (row.ready_ns - row.begun_ns) / 1e6
            table.add_row(row.name, str(row.pid), f"{took:.1f}")
        table.add_row("all", "", f"{system.boot_ms:.0f}")
        self.console.print(table)

    def _copy_and_compare(self, system: System) -> None:
        found, files = self.found, self.found.sources
        self.console.print(
            f"Copying {len(files)} files ({found.size / 1e6:.1f} MB) into it, and killing "
            f"[bold]{VICTIM}[/bold] meanwhile (seed {self.seed})"
        )
        nemesis = Nemesis(system, self.seed, self._kill_line)
        found.stored = self._run(system, copy_in(files), nemesis).done("put")
        some = dict(list(files.items())[:20])
        while nemesis.kills < KILLS or len(nemesis.recoveries) < nemesis.kills:
            self._run(system, copy_in(some), nemesis)  # a fast machine was done too soon
        found.good = matching(files, self._run(system, read_back(files)).digests)
        found.lost = found.stored - found.good
        found.kills = nemesis.kills
        found.recoveries = [stages.outage_ms for stages in nemesis.recoveries]
        self._count_calls(system)

    def _run(self, system: System, commands: list[str], nemesis: Nemesis | None = None) -> Job:
        with Job(system, commands) as job:
            job.run(nemesis.act if nemesis else None)
            self.unknown += job.calls("unknown")
            return job

    def _kill_line(self, number: int, stages: Stages) -> None:
        dead = (stages.dead_ns - stages.killed_ns) / 1e6
        ready = (stages.ready_ns - stages.killed_ns) / 1e6
        self.console.print(
            f"  kill {number:2}  {stages.server}#{stages.life}: dead {dead:.1f} ms, next life "
            f"ready {ready:.1f}, first good reply {stages.outage_ms:.1f}"
        )

    def _count_calls(self, system: System) -> None:
        """Outcomes of every call of the run, as the kernel counted them."""
        counters = {row.name: row.value for row in system.control().counters()}
        slots = system.slots().values()
        died = counters.get("E_DEAD_UNKNOWN", 0)
        self.found.calls = {
            "ok": sum(slot.calls - slot.errors for slot in slots),
            "retried": died - self.unknown,
            "unknown": self.unknown,
            "lost": counters["calls_open"],
        }

    def _reboot(self, image: Path) -> None:
        files = self.found.sources
        with self._booted(image) as system:
            self.found.reboot_good = matching(files, self._run(system, read_back(files)).digests)
        self.console.print("Shut down and booted again from the same image; read everything again")

    def _bench(self) -> None:
        self.console.print("Measuring a kernel call beside two others, all on one core")
        result = ipc.measure(brief(), lambda text: None)
        self.found.bench = {row.peer: row.summary["p50"] / 1e3 for row in result.results}
        self.found.ratio = result.ratios["kernel_over_zmq_proxy_c_p50"]


def show(console: Console, found: Findings) -> None:
    """The summary, a claim a line."""
    figures = found.document()
    recovery, calls = figures["recovery_ms"], figures["calls"]
    rows = [
        ("files intact", f"{found.good} of {len(found.sources)}"),
        ("files intact after a reboot", f"{found.reboot_good} of {len(found.sources)}"),
        ("kills of the block driver", f"{found.kills}"),
        (
            "SIGKILL to the next good reply, ms",
            f"p50 {recovery['p50']}, p99 {recovery['p99']}, max {recovery['max']}",
        ),
        ("acknowledged writes lost", f"{found.lost}"),
        ("calls", ", ".join(f"{value} {name}" for name, value in calls.items())),
        (
            "round trip of a call, us (p50)",
            ", ".join(f"{name} {value}" for name, value in figures["ipc_rtt_us"].items()),
        ),
        ("kernel / C zmq_proxy", f"{figures['kernel_over_zmq_proxy_c']}"),
        ("lines of the trusted kernel", f"{figures['broker_lines']}"),
    ]
    table = Table(title="Summary", title_justify="left", show_header=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print("Every claim held." if found.held else "[bold red]A claim did not hold.[/]")


def run_demo(json_file: Path | None, seed: int = 4000) -> int:
    """Run it and tell; 0 when every claim held, 1 when not."""
    console = Console(highlight=False)
    found = Demo(console, seed).run()
    show(console, found)
    if json_file is not None:
        json_file.write_text(json.dumps(found.document(), indent=2) + "\n")
    return 0 if found.held else 1
