"""run: the run itself: its kernel lived, who was given up, and the faults really happened."""

from __future__ import annotations

from launcher.chaos.checkers.common import Params, judged
from launcher.chaos.evidence import Evidence, Verdict
from launcher.words import count


def kernel_alive(evidence: Evidence, params: Params) -> Verdict:
    """The kernel was never replaced and never died."""
    broken = [] if evidence.kernel_alive else ["the kernel died"]
    return judged("kernel_alive", "" if broken else "the kernel lives", broken)


def failed(evidence: Evidence, params: Params) -> Verdict:
    """The servers given up are `exactly` these ([])."""
    expected, found = set(params.get("exactly", ())), set(evidence.failed)
    broken = [f"{name} was given up" for name in sorted(found - expected)]
    broken += [f"{name} was not given up" for name in sorted(expected - found)]
    text = f"given up: {', '.join(sorted(found)) or 'nobody'}"
    return judged("failed", text, broken, figures={"failed": sorted(found)})


def min_landed(evidence: Evidence, params: Params) -> Verdict:
    """At least `faults` (1) injections landed, and each that was planned. A run in which one did
    not has shown nothing: it is UNKNOWN, whatever else held."""
    planned = evidence.injections
    landed = [i for i in planned if i.landed_ns]
    least = params.get("faults", 1)
    unknown = [
        f"{i.fault} {i.number} on {i.target} never landed{f': {i.detail}' if i.detail else ''}"
        for i in planned
        if not i.landed_ns
    ]
    if len(landed) < least:
        unknown.insert(0, f"at least {least} had to land")
    text = f"{len(landed)} of {count(len(planned), 'fault')} landed"
    figures = {"planned": len(planned), "landed": len(landed)}
    return judged("min_landed", text, [], unknown, figures)
