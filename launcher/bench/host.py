"""host: the machine that a figure comes from, and whether everything stayed where it was put."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import zmq

HIDDEN = "hidden"  # what a virtual machine does not let us see
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


def strays(pid: int, core: int) -> list[str]:
    """Threads of a process that may run anywhere but on `core`, libzmq's own included."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        status = _read(thread / "status")
        allowed = _field(status, "Cpus_allowed_list")
        if allowed != str(core):
            name = _field(status, "Name")
            found.append(f"thread {thread.name} ({name}) may run on {allowed}, not only {core}")
    return found


def steal_ticks(core: int) -> int:
    """Clock ticks in which the hypervisor ran something else on `core`, since boot (proc(5))."""
    for line in _read("/proc/stat").splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}" and len(ticks) > 7:
            return int(ticks[7])
    return 0


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
