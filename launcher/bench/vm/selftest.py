"""selftest: whether the bench sees what is done to a machine on purpose."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from launcher.bench.vm.guest import Guest
from launcher.bench.vm.plan import SHARE
from launcher.bench.vm.result import Row, SelfTest
from launcher.bench.vm.visits import Visits

HELD_S = 0.05  # a monitor, while it begins
TOLERANCE_MS = 15.0
NEAR = 0.15  # of its share that a machine's speed may be off it


def boot_held(visits: Visits, lives: int) -> SelfTest:
    """A monitor that is stopped for 50 ms as it begins shows its first byte so much later. The
    quickest lives are compared: those that nothing else has held up."""
    plain = min(visits.boot()["shown"] for _ in range(lives))
    held = min(visits.boot(_hold)["shown"] for _ in range(lives))
    return of_boot(plain, held)


def _hold(guest: Guest) -> None:
    process = guest.task.process
    assert process is not None
    process.send(signal.SIGSTOP)
    try:
        guest.run_for(HELD_S)
    finally:
        process.send(signal.SIGCONT)


def of_boot(plain_ms: float, held_ms: float) -> SelfTest:
    later = held_ms - plain_ms
    held = abs(later - HELD_S * 1e3) <= TOLERANCE_MS
    text = f"held for {HELD_S * 1e3:.0f} ms, it shows its first byte {later:.1f} ms later"
    return SelfTest("boot", held, text)


def of_share(rows: Sequence[Row]) -> SelfTest | None:
    """A machine with a share of the processor has that share of the speed that a second of the
    processor gives. Its quickest life is looked at: one that nothing else has held up."""
    found = {(row.figure, row.who): row.summary for row in rows if row.summary}
    whole = found.get(("cpu_speed", "monitor"), {}).get("p50")
    part = found.get(("speed", f"share-{SHARE}"), {}).get("max")
    if not whole or not part:
        return None
    percent = 100 * part / whole
    held = abs(percent - SHARE) <= SHARE * NEAR
    return SelfTest("share", held, f"with share: {SHARE} the loop has {percent:.1f} % of its speed")
