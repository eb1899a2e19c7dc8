"""runs: fresh process sets. Each measures one path once, and nothing of it is left afterwards."""

from __future__ import annotations

from launcher.bench.cores import Placement
from launcher.bench.job import Counts, Job, Run, Step
from launcher.bench.lone import run_peer
from launcher.bench.ours import run_system
from launcher.bench.paths import Path
from launcher.bench.watch import RunError

__all__ = ["RunError", "run"]


def run(
    path: Path, where: Placement, counts: Counts, steps: tuple[Step, ...], fault: str = ""
) -> Run:
    """One run of a path. Raises RunError when it comes to no result."""
    job = Job(counts, steps, where.client, tuple(sorted({where.client, where.server})))
    return (run_system if path.is_ours else run_peer)(path, where, job, fault)
