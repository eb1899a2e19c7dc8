"""cores: which pairs of cores there are to measure between, by how far apart they are.

What is nearest shares most: one core, the two threads of a core (SMT), an L2 cache, an L3 cache,
a socket; what /sys hides is told as "another core".
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

SYS_CPU = Path("/sys/devices/system/cpu")
SAME, SMT, L2, L3 = "same core", "SMT sibling", "other core, same L2", "other core, same L3"
SOCKET, FAR, UNKNOWN = "other L3, same socket", "other socket", "another core"
CLASSES = (SAME, SMT, L2, L3, SOCKET, FAR, UNKNOWN)


class Placement(NamedTuple):
    """Where the processes of a path run, and how far apart its two ends are. A broker runs beside
    the client, so a call crosses once each way, whatever the path."""

    client: int
    server: int
    distance: str

    @property
    def broker(self) -> int:
        return self.client

    @property
    def is_cross(self) -> bool:
        return self.client != self.server


def allowed() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def one_of_each_class(cores: Iterable[int], sys_cpu: Path = SYS_CPU) -> list[Placement]:
    """The first pair of each topology class, nearest first."""
    found: dict[str, Placement] = {}
    for placement in every_pair(cores, sys_cpu):
        found.setdefault(placement.distance, placement)
    return sorted(found.values(), key=lambda p: CLASSES.index(p.distance))


def every_pair(cores: Iterable[int], sys_cpu: Path = SYS_CPU) -> list[Placement]:
    """All ordered pairs, a core with itself too."""
    listed = list(cores)
    return [Placement(a, b, distance(a, b, sys_cpu)) for a in listed for b in listed]


def distance(one: int, other: int, sys_cpu: Path = SYS_CPU) -> str:
    """The class of a pair."""
    if one == other:
        return SAME
    here = sys_cpu / f"cpu{one}"
    if other in _cores(here / "topology/thread_siblings_list"):
        return SMT
    for level, shared in ((2, L2), (3, L3)):
        if other in _cores(_cache(here, level) / "shared_cpu_list"):
            return shared
    sockets = [_text(sys_cpu / f"cpu{core}/topology/physical_package_id") for core in (one, other)]
    if "" in sockets:
        return UNKNOWN
    return SOCKET if sockets[0] == sockets[1] else FAR


def topology(cores: Iterable[int], sys_cpu: Path = SYS_CPU) -> list[dict[str, Any]]:
    """What /sys says of each core; "hidden" where it does not."""
    rows = []
    for core in cores:
        here = sys_cpu / f"cpu{core}"
        rows.append(
            {
                "core": core,
                "socket": _text(here / "topology/physical_package_id") or "hidden",
                "smt": _text(here / "topology/thread_siblings_list") or "hidden",
                "l2": _text(_cache(here, 2) / "shared_cpu_list") or "hidden",
                "l3": _text(_cache(here, 3) / "shared_cpu_list") or "hidden",
                "governor": _text(here / "cpufreq/scaling_governor") or "hidden",
            }
        )
    return rows


def _cache(cpu: Path, level: int) -> Path:
    """The directory of a core's cache of this level; one that is not there when it is hidden."""
    for index in sorted(cpu.glob("cache/index*")):
        if _text(index / "level") == str(level):
            return index
    return cpu / "hidden"


def _cores(path: Path) -> set[int]:
    """The cores of a list such as `0-3,8`."""
    found: set[int] = set()
    for part in filter(None, _text(path).split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
