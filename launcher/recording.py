"""recording: what a running system told of itself over a while. Times are CLOCK_MONOTONIC."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ukernel.abi.syscalls import TraceRow


@dataclass
class Recording:
    """Records as `launcher.requests` gives them, in their order."""

    system: str
    tasks: list[str]
    notes: list[str]  # what people may miss in it
    from_ns: int = 0  # 0: from the first call that the kernel remembered
    now_ns: int = 0  # its end
    rows: list[TraceRow] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)  # when so many calls were missed
    events: list[dict[str, Any]] = field(default_factory=list)
    recoveries: list[dict[str, Any]] = field(default_factory=list)
    slots: list[dict[str, Any]] = field(default_factory=list)

    def begin_ns(self) -> int:
        """Of what happened before the oldest call that is known, too much is forgotten."""
        known = [row.queued_ns for row in self.rows]
        if self.from_ns:
            known.append(self.from_ns)
        elif not self.rows or not self.rows[0].number:  # nothing is forgotten
            known += [event["at_ns"] for event in self.events]
        return min(known, default=self.now_ns)
