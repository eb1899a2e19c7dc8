"""load: the two loads that every path is put under, by one contract, and how they are checked.

Closed loop: one call at a time, each timed. Pipelined: `depth` calls under way, all timed at
once. Every payload begins with its sequence number and every echo must equal what was sent.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

SEQUENCE = struct.Struct("<Q")


@dataclass(frozen=True)
class Counts:
    """How much one process set measures."""

    size: int = 64  # bytes of payload
    warmup_calls: int = 1000
    warmup_ms: int = 100
    samples: int = 4000
    pipelined: int = 8000
    depth: int = 64

    def dump(self) -> str:
        return json.dumps(asdict(self))


@dataclass
class Run:
    """What one process set has seen. `wrong` counts echoes that are not what was sent."""

    samples: list[int]
    calls_per_s: float
    wrong: int = 0
    strays: list[str] = field(default_factory=list)  # threads that may leave the core
    steal_ticks: int = 0  # of the core, taken by the hypervisor meanwhile

    def dump(self) -> str:
        return json.dumps(asdict(self))


def payloads(count: int, size: int) -> list[bytes]:
    filler = b"u" * (size - SEQUENCE.size)
    return [SEQUENCE.pack(number) + filler for number in range(count)]


def warm_up(call: Callable[[bytes], bytes], counts: Counts) -> None:
    """At least so many calls and at least so long."""
    data = payloads(1, counts.size)[0]
    enough = time.perf_counter_ns() + counts.warmup_ms * 1_000_000
    for _ in range(counts.warmup_calls):
        call(data)
    while time.perf_counter_ns() < enough:
        call(data)


def closed_loop(call: Callable[[bytes], bytes], counts: Counts) -> tuple[list[int], int]:
    """Round trips in nanoseconds, and how many came back wrong."""
    clock, wrong = time.perf_counter_ns, 0
    sent = payloads(counts.samples, counts.size)
    samples = [0] * counts.samples
    for at, data in enumerate(sent):
        begun = clock()
        answer = call(data)
        samples[at] = clock() - begun
        if answer != data:
            wrong += 1
    return samples, wrong


def pipelined(
    post: Callable[[bytes], object], collect: Callable[[], bytes], counts: Counts
) -> tuple[float, int]:
    """Calls per second with `depth` of them under way, and how many came back wrong.

    Echoes come back in the order of their calls: there is one server, and it is fair.
    """
    sent = payloads(counts.pipelined, counts.size)
    wrong = 0
    begun = time.perf_counter_ns()
    for data in sent[: counts.depth]:
        post(data)
    for at, data in enumerate(sent, counts.depth):
        if collect() != data:
            wrong += 1
        if at < counts.pipelined:
            post(sent[at])
    return counts.pipelined * 1e9 / (time.perf_counter_ns() - begun), wrong
