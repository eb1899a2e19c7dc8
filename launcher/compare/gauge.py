"""gauge: what a running system has used so far, as Linux and its kernel count it.

Counted are the processes that make the system: the kernel, the machine, and whatever the servers
run in. The launcher and its zygote only look after them, and are not.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from launcher.meter import DONE
from launcher.system import System

EVENTS, BUSY = "events", "busy_ns"  # the kernel's counters of messages, and of its time for them


class Reading(NamedTuple):
    """Totals since the boot; subtract two of them."""

    cpu_ns: int
    switches: int  # by Linux, from one thread to another, wanted or not
    calls: int  # that had their outcome from the kernel
    events: int  # messages that the kernel took
    busy_ns: int  # of the kernel, for those
    channel: int = 0  # calls past the kernel: by channel
    direct: int = 0  # and within a process

    def since(self, before: Reading) -> Reading:
        return Reading(*(now - then for now, then in zip(self, before, strict=True)))


def pids(system: System) -> set[int]:
    """Every process of the system; servers that share one count once."""
    assert system.kernel is not None
    tasks = (task.process for task in system.tasks.values())
    return {system.kernel.process.pid, *(process.pid for process in tasks if process is not None)}


def read(system: System) -> Reading:
    counters = {count.name: count.value for count in system.control().counters()}
    told = [task.box.tally.counts() for task in system.tasks.values()]
    threads = [path for pid in pids(system) for path in _threads(pid)]
    return Reading(
        sum(_cpu_ns(thread) for thread in threads),
        sum(_switches(thread) for thread in threads),
        counters.get(DONE, 0),
        counters.get(EVENTS, 0),
        counters.get(BUSY, 0),
        sum(counts.by_channel for counts in told),
        sum(counts.direct for counts in told),
    )


def pss_bytes(system: System) -> int:
    """Memory of all its processes; what several share is divided among those who share it, some
    of whom (zygote, launcher) are not of the system."""
    return sum(_pss_bytes(pid) for pid in pids(system))


def _threads(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it has ended meanwhile
        return []


def _cpu_ns(thread: Path) -> int:
    """proc(5), schedstat: nanoseconds on a processor, where `stat` has hundredths of a second."""
    words = _text(thread / "schedstat").split()
    return int(words[0]) if words else 0


def _switches(thread: Path) -> int:
    lines = _text(thread / "status").splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def _pss_bytes(pid: int) -> int:
    lines = _text(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
