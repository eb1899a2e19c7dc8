"""answers: what a measured server makes of a request, right or, to test the bench, wrong.

wrong      one answer in a hundred is another than was sent
slow:US    each takes so many microseconds more
stall:N    the Nth takes 50 ms more
wander     from the first request on, the server may run on every core
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from launcher.bench.peers import Answer, pack, unpack

STALL_MS = 50
WRONG_EACH = 100


def answering(packed: bool, fault: str = "") -> Answer:
    """For a server that sees msgpack, arguments in and result out, or bare bytes."""
    if not packed:
        return faulted(fault) if fault else lambda request: request
    spoil = faulted(fault) if fault else None

    def answer(request: bytes) -> bytes:
        (data,) = unpack(request)
        result: bytes = pack(spoil(data) if spoil is not None else data)
        return result

    return answer


def faulted(fault: str) -> Answer:
    """An echo with a fault."""
    kind, _, number = fault.partition(":")
    act = FAULTS[kind](int(number or 0))
    calls = 0

    def echo(data: bytes) -> bytes:
        nonlocal calls
        calls += 1
        return act(data, calls)

    return echo


Fault = Callable[[bytes, int], bytes]


def _wrong(_: int) -> Fault:
    return lambda data, calls: data[::-1] if calls % WRONG_EACH == 0 else data


def _slow(more_us: int) -> Fault:
    def act(data: bytes, calls: int) -> bytes:
        enough = time.perf_counter_ns() + more_us * 1000
        while time.perf_counter_ns() < enough:
            pass
        return data

    return act


def _stall(at: int) -> Fault:
    def act(data: bytes, calls: int) -> bytes:
        if calls == at:
            time.sleep(STALL_MS / 1e3)
        return data

    return act


def _wander(_: int) -> Fault:
    def act(data: bytes, calls: int) -> bytes:
        if calls == 1:
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
        return data

    return act


FAULTS: dict[str, Callable[[int], Fault]] = {
    "wrong": _wrong,
    "slow": _slow,
    "stall": _stall,
    "wander": _wander,
}
