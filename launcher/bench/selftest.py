"""selftest: does the bench see what is done to a server on purpose? Otherwise, believe nothing.

200 µs that a server takes longer must be seen as 200 µs. A stall of 50 ms must be seen in the p99
of the open loop, where calls go on being due, and not in that of the closed one, which waits with
it: that is what is wrong with closed loops (coordinated omission).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from launcher.bench.answers import STALL_MS
from launcher.bench.cores import Placement
from launcher.bench.job import CLOSED, OPEN, Counts, Step
from launcher.bench.paths import PATHS, Path
from launcher.bench.result import SelfTest
from launcher.bench.runs import run

SLOWER_US, WITHIN_US = 200, 20
TRIES = 3  # a busy host can move a p50 by more than that between two runs
CALLS, PERIOD_US = 1000, 250
# The stall comes in the middle: one call in a thousand, so that a closed loop's p99 misses it.
COUNTS = Counts(warmup_calls=100, warmup_ms=0, settle_calls=0, settle_ms=0, samples=CALLS,
                budget_ms=60_000)  # fmt: skip
STALL_AT = COUNTS.warmup_calls + CALLS // 2


def self_tests(
    names: Iterable[str], where: Placement, progress: Callable[[str], None]
) -> list[SelfTest]:
    """Both tests on each of these paths."""
    found = []
    for name in names:
        for test in (_delay, _stall):
            done = test(PATHS[name], where)
            found.append(done)
            progress(f"self-test {done.name} of {name} {_verdict(done.held)}: {done.text}")
    return found


def _verdict(held: bool) -> str:
    return "passed" if held else "FAILED"


def _delay(path: Path, where: Placement) -> SelfTest:
    seen_us: list[float] = []
    while len(seen_us) < TRIES and not (seen_us and is_seen(seen_us[-1])):
        plain = _figure(path, where, Step(CLOSED), "", "p50")
        slowed = _figure(path, where, Step(CLOSED), f"slow:{SLOWER_US}", "p50")
        seen_us.append((slowed - plain) / 1e3)
    text = f"{SLOWER_US} us more in the server moved the p50 by {seen_us[-1]:.1f}"
    return SelfTest("delay", path.name, is_seen(seen_us[-1]), text)


def is_seen(moved_us: float) -> bool:
    """Whether a p50 moved by what the server took longer."""
    return abs(moved_us - SLOWER_US) <= WITHIN_US


def _stall(path: Path, where: Placement) -> SelfTest:
    fault, half_ms = f"stall:{STALL_AT}", STALL_MS / 2
    closed = _figure(path, where, Step(CLOSED), fault, "p99") / 1e6
    opened = _figure(path, where, Step(OPEN, period_us=PERIOD_US), fault, "p99") / 1e6
    text = f"p99 with a stall of {STALL_MS} ms: closed {closed:.2f} ms, open {opened:.2f}"
    return SelfTest("stall", path.name, closed < half_ms < opened, text)


def _figure(path: Path, where: Placement, step: Step, fault: str, figure: str) -> float:
    return run(path, where, COUNTS, (step,), fault).seen[0].figures[figure]
