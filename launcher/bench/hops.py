"""hops: where the time of a call goes: from the client's hands to the server's and back, by name.

Notes of both ends and the kernel's trace, all of one clock, cut each call into hops that follow one
another, so their sum is the call. `attribute` is pure. What else the notes cost shows in the
difference to the same calls without them, which must be small for the table to mean anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

KEPT = 0.95  # of the calls: the slowest few met something else than the path
AGREES = 0.05  # by how much the sum may differ from the whole

KERNEL_HOPS = (
    "client: pack",
    "to the kernel",
    "kernel: check, pass on",
    "kernel: queue",
    "to the server",
    "server: unpack, check",
    "server: method",
    "server: pack",
    "back to the kernel",
    "kernel: settle, pass on",
    "back to the client",
    "client: unpack",
)
CHANNEL_HOPS = (
    "client: pack",
    "to the server",
    "server: unpack, check",
    "server: method",
    "server: pack",
    "back to the client",
    "client: unpack",
)

# Hops that end with a reading of the clock which calls without notes do not have.
NOTED = frozenset(
    ("client: pack", "to the server", "server: unpack, check", "server: method", "server: pack",
     "back to the client")
)  # fmt: skip

Client = Sequence[int]  # begun, packed, back, unpacked
Server = Sequence[int]  # came, begun, ended, packed


class Passage(NamedTuple):
    """A call in the kernel: when it came, was delivered, and when its reply came."""

    queued_ns: int
    taken_ns: int
    done_ns: int


@dataclass
class Hops:
    """Means in nanoseconds, in the order of the way."""

    path: str
    where: str
    parts: dict[str, float]
    whole_ns: float  # the same calls without notes

    @property
    def sum_ns(self) -> float:
        return sum(self.parts.values())

    @property
    def difference(self) -> float:
        """Of the sum from the whole, as a share of the whole."""
        return (self.sum_ns - self.whole_ns) / self.whole_ns

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= AGREES

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "where": self.where,
            "unit": "ns",
            "parts": {name: round(ns) for name, ns in self.parts.items()},
            "sum": round(self.sum_ns),
            "whole": round(self.whole_ns),
            "difference": round(self.difference, 4),
            "status": "ok" if self.agrees else "suspect",
        }


def by_channel(client: Client, server: Server) -> tuple[int, ...]:
    """One call through a channel, cut into CHANNEL_HOPS."""
    begun, packed, back, unpacked = client
    return _lengths((begun, packed, *server, back, unpacked))


def by_kernel(client: Client, server: Server, passage: Passage, busy_ns: int) -> tuple[int, ...]:
    """One call through the kernel, cut into KERNEL_HOPS; `busy_ns` is how long the kernel has to do
    with a message, on average: when it is done with one is not noted."""
    begun, packed, back, unpacked = client
    queued, taken, done = passage
    there = (queued, queued + busy_ns, taken + busy_ns)
    return _lengths((begun, packed, *there, *server, done, done + busy_ns, back, unpacked))


def _lengths(times: Sequence[int]) -> tuple[int, ...]:
    return tuple(later - earlier for earlier, later in pairwise(times))


def attribute(
    path: str,
    where: str,
    names: Sequence[str],
    calls: Sequence[tuple[int, ...]],
    plain: Sequence[int],
    clock_ns: float = 0.0,
) -> Hops:
    """Means over the calls that nothing disturbed. `plain`: calls without notes. What reading the
    clock for a note costs, `clock_ns`, is taken out of the hop that it ends."""
    usual = sorted(calls, key=sum)[: max(1, int(len(calls) * KEPT))]
    columns = zip(names, zip(*usual, strict=True), strict=True)
    parts = {n: max(0.0, fmean(column) - clock_ns * (n in NOTED)) for n, column in columns}
    quiet = sorted(plain)[: max(1, int(len(plain) * KEPT))]
    return Hops(path, where, parts, fmean(quiet))
