"""load: the loads that every path is put under, by one contract, and how their echoes are checked.

Closed: one call at a time, each timed. Gap: the same, with a pause before each. Open: calls at
fixed times, each timed from when it was to be sent, so that a late answer counts against all that
it kept waiting (wrk2's remedy for coordinated omission). Pipelined: `depth` calls under way, all
timed at once. Every payload begins with its sequence number and every echo must equal what was
sent, byte for byte. Times are nanoseconds.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import NamedTuple

SEQUENCE = struct.Struct("<Q")
BATCH_BELOW_NS = 5_000
BATCH = 100  # reading the clock costs 0.1 µs: 0.3 % of 100 round trips of 0.3 µs. A thousand, as
# others take, would make it 0.03 %, and leave less of the tail to be seen
SPIN_NS = 1_000_000  # before a call is due: a sleep would wake up too late by tens of µs

Call = Callable[[bytes], bytes]


class Load(NamedTuple):
    """What a load has seen: one figure per sample, and how many echoes were not what was sent."""

    samples: list[float]
    wrong: int
    batch: int = 1  # round trips that a sample is the mean of


def payloads(count: int, size: int, first: int = 0) -> list[bytes]:
    filler = b"u" * (size - SEQUENCE.size)
    return [SEQUENCE.pack(first + number) + filler for number in range(count)]


def warm_up(call: Call, size: int, calls: int, least_ms: float) -> float:
    """At least so many calls and at least so long; what a round trip takes now, roughly."""
    (data,) = payloads(1, size)
    clock = time.perf_counter_ns
    enough = clock() + int(least_ms * 1e6)
    for _ in range(calls):
        call(data)
    while clock() < enough:
        call(data)
    took = []
    for _ in range(9):
        begun = clock()
        call(data)
        took.append(clock() - begun)
    return float(sorted(took)[4])


def closed_loop(call: Call, count: int, size: int, gap_us: float = 0) -> Load:
    """Round trips one after the other, each after a pause if there is a gap."""
    clock, sleep, wrong = time.perf_counter_ns, time.sleep, 0
    samples, filler = [0.0] * count, b"u" * (size - SEQUENCE.size)
    for at in range(count):
        data = SEQUENCE.pack(at) + filler
        if gap_us:
            sleep(gap_us / 1e6)
        begun = clock()
        answer = call(data)
        samples[at] = clock() - begun
        if answer != data:
            wrong += 1
    return Load(samples, wrong)


def batched(call: Call, count: int, size: int, batch: int = BATCH) -> Load:
    """For round trips that the clock would weigh on: each sample is the mean of a batch."""
    clock, wrong = time.perf_counter_ns, 0
    samples = [0.0] * count
    for at in range(count):
        sent = payloads(batch, size, at * batch)
        begun = clock()
        got = [call(data) for data in sent]
        samples[at] = (clock() - begun) / batch
        wrong += sum(answer != data for answer, data in zip(got, sent, strict=True))
    return Load(samples, wrong, batch)


def open_loop(call: Call, count: int, size: int, period_ns: float) -> Load:
    """A call each `period_ns`, whether or not the last one came back in time."""
    clock, sleep, wrong = time.perf_counter_ns, time.sleep, 0
    samples, filler = [0.0] * count, b"u" * (size - SEQUENCE.size)
    begun = clock()
    for at in range(count):
        data = SEQUENCE.pack(at) + filler
        intended = begun + int(at * period_ns)
        if (early := intended - clock()) > 2 * SPIN_NS:
            sleep((early - SPIN_NS) / 1e9)
        while clock() < intended:
            pass
        answer = call(data)
        samples[at] = clock() - intended
        if answer != data:
            wrong += 1
    return Load(samples, wrong)


def pipelined(
    post: Callable[[bytes], object], collect: Callable[[], bytes], count: int, size: int, depth: int
) -> tuple[float, int]:
    """Calls per second with `depth` of them under way, and how many came back wrong.

    Echoes come back in the order of their calls: there is one server, and it is fair.
    """
    sent = payloads(count, size)
    wrong = 0
    begun = time.perf_counter_ns()
    for data in sent[:depth]:
        post(data)
    for at, data in enumerate(sent, depth):
        if collect() != data:
            wrong += 1
        if at < count:
            post(sent[at])
    return count * 1e9 / (time.perf_counter_ns() - begun), wrong
