"""watch: processes that are measured stay on their cores, or it is told; and say what they saw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from launcher.bench import host
from launcher.bench.job import Run


class RunError(Exception):
    """A process set came to no result; the text says which process ended, and how."""


@contextmanager
def watched(cores: dict[int, int]) -> Iterator[list[str]]:
    """Put processes on their cores; at the end, the list says who could leave or has left."""
    found: list[str] = []
    for pid, core in cores.items():
        host.place(pid, core)
    before = {pid: host.migrations(pid, core) for pid, core in cores.items()}
    yield found
    for pid, core in cores.items():
        found += host.strays(pid, core) + host.moved(pid, core, before[pid])


def parsed(line: bytes) -> Run:
    try:
        return Run.parsed(line)
    except (ValueError, TypeError, KeyError):
        raise RunError("the client ended without a result") from None
