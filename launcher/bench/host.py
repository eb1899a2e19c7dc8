"""host: the machine that a figure comes from, and whether everything stayed where it was put."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import zmq

from launcher.words import count

HIDDEN = "hidden"  # what a virtual machine does not let us see
LAST_CPU = 36  # column of /proc/PID/stat, counted from behind the name, proc(5)
PROJECT = Path(__file__).parent.parent.parent


def facts(core: int) -> dict[str, Any]:
    """What somebody must know before comparing figures."""
    sys_cpu = Path("/sys/devices/system")
    info = _read("/proc/cpuinfo")
    return {
        "cpu": _field(info, "model name") or platform.machine(),
        "cores": os.cpu_count() or 0,
        "core": core,
        "hypervisor": "hypervisor" in _field(info, "flags").split(),
        "kernel": platform.release(),
        "clock_source": _read(sys_cpu / "clocksource/clocksource0/current_clocksource") or HIDDEN,
        "governor": _read(sys_cpu / f"cpu/cpu{core}/cpufreq/scaling_governor") or HIDDEN,
        "cgroup_cpu_max": _read("/sys/fs/cgroup/cpu.max") or HIDDEN,
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Of everything on the measured paths."""
    return {
        "python": platform.python_version(),
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "msgpack": metadata.version("msgpack"),
    }


def version_of(package: str) -> str:
    """Of a Python package; empty when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def version_of_program(program: str) -> str:
    """The first line that it says of its version; empty when it is not there."""
    try:
        asked = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return asked.stdout.partition("\n")[0]


def commit() -> str:
    """The git commit that is measured; "" outside a checkout, "-dirty" when files differ."""
    if not (PROJECT / ".git").exists():
        return ""
    what = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        asked = subprocess.run(what, cwd=PROJECT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return asked.stdout.strip()


# --- where things run ---------------------------------------------------------------------------


def pick_core(wanted: int) -> int:
    """`wanted` when this process may use it, else the first that it may."""
    allowed = os.sched_getaffinity(0)
    return wanted if wanted in allowed else min(allowed)


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """This thread, and every process and thread that it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def place(pid: int, core: int) -> None:
    """Every thread of a process on one core. What they start later inherits it."""
    for thread in _threads(pid):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), {core})


def strays(pid: int, core: int) -> list[str]:
    """Threads of a process that may run anywhere but on `core`, libzmq's own included."""
    found = []
    for thread in _threads(pid):
        status = _read(thread / "status")
        allowed = _field(status, "Cpus_allowed_list")
        if allowed and allowed != str(core):
            name = _field(status, "Name")
            found.append(f"thread {thread.name} ({name}) may run on {allowed}, not only {core}")
    return found


def migrations(pid: int, core: int) -> dict[str, int]:
    """How often Linux will have moved each thread of a process to another core once all are on
    `core`, where it tells. Who sleeps elsewhere has yet to come over."""
    found = {}
    for thread in _threads(pid):
        moves = _field(_read(thread / "sched"), "se.nr_migrations")
        columns = _read(thread / "stat").rpartition(")")[2].split()
        if moves.isdigit() and len(columns) > LAST_CPU:
            found[thread.name] = int(moves) + (columns[LAST_CPU] != str(core))
    return found


def moved(pid: int, core: int, before: dict[str, int]) -> list[str]:
    """What `migrations` says more than `before`, in words. New threads begin where they are."""
    return [
        f"thread {name} was moved to another core, {count(moves - before[name], 'time')}"
        for name, moves in migrations(pid, core).items()
        if moves > before.get(name, moves)
    ]


def steal_ticks(*cores: int) -> int:
    """Clock ticks in which the hypervisor ran something else on `cores`, since boot (proc(5))."""
    names, ticks = {f"cpu{core}" for core in cores}, 0
    for line in _read("/proc/stat").splitlines():
        name, *columns = line.split()
        if name in names and len(columns) > 7:
            ticks += int(columns[7])
    return ticks


def _threads(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it has ended
        return []


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    """The first `name : value` of a file in /proc."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
