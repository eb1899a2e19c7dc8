"""link: what becomes of each request that passes. Deterministic: seeds and time come from outside.

Requests and the passing of time go in, instructions come out. Every call gets exactly one answer
out of them: the outcome of its one heard `Pass`, or one `Expire`. What is past its deadline is
never passed on, as the kernel does with what waits in its queues.
"""

from __future__ import annotations

import random
from heapq import heappop, heappush
from typing import NamedTuple

from ukernel.abi import wire
from ukernel.abi.faults import CORRUPT, DELAY, DROP, DUPLICATE, MESSAGE_FAULTS, Landed, NoSuchFault


class Pass(NamedTuple):
    """Pass the request on; unless `heard`, what comes of it is told to nobody."""

    request: wire.Message
    heard: bool


class Expire(NamedTuple):
    """Tell the caller that its deadline has passed."""

    request: wire.Message


Instruction = Pass | Expire


class Fault:
    """One fault in force. What it does to the n-th request depends on its seed and on n, and on
    no other fault: it draws twice for each, whatever comes of it."""

    def __init__(self, name: str, probability: float, ms: int, jitter_ms: int, seed: int) -> None:
        self.probability = probability
        self.ms, self.jitter_ms = ms, jitter_ms
        self._random = random.Random(f"{name} {seed}")  # two faults of one seed are no twins

    def strike(self) -> float | None:
        """None when it spares the next request, else a number in [0, 1) that says how it hits."""
        chance, how = self._random.random(), self._random.random()
        return how if chance < self.probability else None

    def delay_ns(self, how: float) -> int:
        return int(max(0.0, self.ms + self.jitter_ms * (2 * how - 1)) * 1e6)


class Link:
    """The faults in force, what has come of them, and what waits for its time."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}
        self._landed: dict[str, int] = {}
        self._waiting: list[tuple[int, int, Instruction]] = []  # heap: when, order of arrival
        self._order = 0

    def disturb(
        self, fault: str, probability: float, ms: int = 0, jitter_ms: int = 0, seed: int = 0
    ) -> None:
        """Put a fault in force, in place of an earlier one of its kind. Raises NoSuchFault."""
        if fault not in MESSAGE_FAULTS:
            raise NoSuchFault(f"{fault!r}: a message knows {', '.join(MESSAGE_FAULTS)}")
        self._faults[fault] = Fault(fault, probability, ms, jitter_ms, seed)
        self._landed[fault] = 0

    def disturbed(self, where: str) -> list[Landed]:
        """What has really happened, for each fault since it was last put in force."""
        return [Landed(where, fault, times) for fault, times in self._landed.items()]

    @property
    def due_ns(self) -> int:
        """When `elapse` has something to say; 0: not before the next request."""
        return self._waiting[0][0] if self._waiting else 0

    def arrive(self, request: wire.Message, now_ns: int) -> list[Instruction]:
        """What to do with a request at once."""
        if not self._faults:
            return [Pass(request, True)]
        met = {name: how for name, f in self._faults.items() if (how := f.strike()) is not None}
        heard = True
        if DROP in met and _may_be_lost(request):
            self._landed[DROP] += 1
            if _is_call(request):
                self._wait(request.deadline_ns, Expire(request))
            if met[DROP] < 0.5 or not _is_call(request):
                return []
            heard = False
        if CORRUPT in met and request.body:
            self._landed[CORRUPT] += 1
            request = request._replace(body=_flipped(request.body, met[CORRUPT]))
        passed: list[Instruction] = [Pass(request, heard)]
        if DUPLICATE in met:
            self._landed[DUPLICATE] += 1
            passed.append(Pass(request, False))
        if DELAY not in met:
            return passed
        self._landed[DELAY] += 1
        for each in passed:
            self._wait(now_ns + self._faults[DELAY].delay_ns(met[DELAY]), each)
        return []

    def elapse(self, now_ns: int) -> list[Instruction]:
        """What to do now that it is so late."""
        ripe = []
        while self._waiting and self._waiting[0][0] <= now_ns:
            ripe.append(heappop(self._waiting)[2])
        return _in_time(ripe, now_ns)

    def pass_all(self, now_ns: int) -> list[Instruction]:
        """End every fault; what is being delayed. Callers of what was dropped go on waiting."""
        self._faults.clear()
        waiting = sorted(self._waiting)
        self._waiting = [entry for entry in waiting if isinstance(entry[2], Expire)]
        return _in_time([what for _, _, what in waiting if isinstance(what, Pass)], now_ns)

    def _wait(self, due_ns: int, what: Instruction) -> None:
        self._order += 1
        due_ns = min(due_ns, what.request.deadline_ns or due_ns)
        heappush(self._waiting, (due_ns, self._order, what))


def _is_call(request: wire.Message) -> bool:
    return not request.flags & wire.ONEWAY


def _may_be_lost(request: wire.Message) -> bool:
    """A caller without a deadline would wait for ever."""
    return bool(request.deadline_ns) or not _is_call(request)


def _in_time(ripe: list[Instruction], now_ns: int) -> list[Instruction]:
    """The same instructions, with what is past its deadline expired instead of passed on."""
    return [timely for what in ripe if (timely := _timely(what, now_ns)) is not None]


def _timely(what: Instruction, now_ns: int) -> Instruction | None:
    request = what.request
    if isinstance(what, Expire) or not 0 < request.deadline_ns <= now_ns:
        return what
    return Expire(request) if what.heard and _is_call(request) else None


def _flipped(body: bytes, how: float) -> bytes:
    """`body` with the bit at `how` of its length the other way round."""
    at, bit = divmod(int(how * len(body) * 8), 8)
    return body[:at] + bytes((body[at] ^ 1 << bit,)) + body[at + 1 :]
