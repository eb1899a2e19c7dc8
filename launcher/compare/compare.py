"""compare: every case once in a round, each round in an order of its own, over several rounds.

So what the machine does meanwhile hits all alike. A run that comes to no end is told and is no
reason to stop: the others still have their figures.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from launcher.bench import host
from launcher.compare.amounts import Amounts
from launcher.compare.cases import Cast, absent, cases, cast
from launcher.compare.drive import NoOutcome
from launcher.compare.figures import per_unit_ns
from launcher.compare.result import Result
from launcher.compare.run import Armed, Run, run
from launcher.config import SystemFile
from launcher.kernel import SystemDown
from launcher.system import BootError
from ukernel.abi.errors import CallError
from ukernel.abi.manifest import VirtioBlk

ENOUGH = 2  # failures of a case, which may take minutes each

Progress = Callable[[str], None]


def compare(file: SystemFile, amounts: Amounts, progress: Progress, armed: Armed) -> Result:
    """Carry out a comparison. Raises ConfigError, before anything is started."""
    players = cast(file)
    missing = absent(file, players)
    known = [case for case in cases(file) if case not in missing]
    amounts = amounts.fitting(_disk_bytes(file, players))
    facts, rounds = _facts(), {case: dict[int, Run]() for case in known}
    result = Result(
        file, players, amounts, facts, host.versions(), host.commit(), rounds, absent=missing
    )
    todo = [(at, c) for at in range(amounts.rounds) for c in random.sample(known, len(known))]
    begun_s = time.monotonic()
    for number, (at, case) in enumerate(todo, 1):
        if sum(failed == case for failed, _, _ in result.failures) == ENOUGH:
            progress(f"{number:3}/{len(todo)} {case.name:14} given up")
            continue
        try:
            done = result.rounds[case][at] = run(file, players, case, amounts, armed)
            told = _told(done)
        except (NoOutcome, BootError, SystemDown, CallError) as error:
            result.failures.append((case, at, str(error)))
            told = f"failed: {error}"
        left_s = (time.monotonic() - begun_s) / number * (len(todo) - number)
        progress(f"{number:3}/{len(todo)} {case.name:14} {told}; {_left(left_s)}")
    return result


def _told(done: Run) -> str:
    files = 1e9 / per_unit_ns(done, "files")
    return f"{files:6.0f} files/s, recovery {done.kill.recovery_ns / 1e6:6.1f} ms"


def _left(seconds: float) -> str:
    return f"{seconds:.0f} s left" if seconds < 90 else f"{seconds / 60:.1f} min left"


def _disk_bytes(file: SystemFile, players: Cast) -> int:
    hardware = file.manifest.hardware
    devices = (hardware[name] for name in file.manifest.servers[players.victim].devices)
    return min(device.size for device in devices if isinstance(device, VirtioBlk))


def _facts() -> dict[str, Any]:
    """Nothing is bound to a core here."""
    facts = host.facts(host.pick_core(0))
    del facts["core"]
    return facts
