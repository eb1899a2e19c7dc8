"""checkers: pure functions from the evidence of a run to a verdict; one module for each family.

UNKNOWN is for evidence that cannot decide. No evidence is never HELD.
"""

from __future__ import annotations

from launcher.chaos.checkers.beside import beside_dies
from launcher.chaos.checkers.bystanders import bystanders
from launcher.chaos.checkers.calls import one_outcome_per_call
from launcher.chaos.checkers.common import Checker
from launcher.chaos.checkers.counter import no_duplicate_effect
from launcher.chaos.checkers.downloads import downloads_complete, same_connection
from launcher.chaos.checkers.durable import acked_writes_durable, wrong_data_seen
from launcher.chaos.checkers.guests import guest_gap, guests_right
from launcher.chaos.checkers.leaks import no_leak
from launcher.chaos.checkers.radius import blast_radius_as_predicted
from launcher.chaos.checkers.recovery import recovery_ms
from launcher.chaos.checkers.run import failed, kernel_alive, min_landed
from launcher.chaos.checkers.sweep import throughput_loss

__all__ = ["CHECKERS", "Checker"]

CHECKERS: dict[str, Checker] = {
    "one_outcome_per_call": one_outcome_per_call,
    "acked_writes_durable": acked_writes_durable,
    "no_duplicate_effect": no_duplicate_effect,
    "recovery_ms": recovery_ms,
    "bystanders": bystanders,
    "blast_radius_as_predicted": blast_radius_as_predicted,
    "no_leak": no_leak,
    "kernel_alive": kernel_alive,
    "failed": failed,
    "min_landed": min_landed,
    "throughput_loss": throughput_loss,
    "wrong_data_seen": wrong_data_seen,
    "downloads_complete": downloads_complete,
    "same_connection": same_connection,
    "guest_gap": guest_gap,
    "guests_right": guests_right,
    "beside_dies": beside_dies,
}
