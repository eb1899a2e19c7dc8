"""heartbeat: is a server hung, or at work, or waiting for somebody else? Pure.

A ping is answered by the request loop itself: ZeroMQ's thread goes on when the loop spins, so its
own heartbeat proves nothing. What a server is given is counted in its own time. That stands still
while it is blocked in a call (blame goes to the deepest callee) and in a round that came late,
when it was the supervisor or the whole machine that stood still. It creeps while Linux lets the
server wait for a processor; if it stood still then too, a busy machine would never find a hang.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ukernel.abi.manifest import Server

HUNG, OVERLONG = "hung", "has a call in hand"
STUCK = (HUNG, OVERLONG)  # how a reason begins for which the request in hand may be to blame
LATE_S = 0.25  # between two rounds: more, and it was us (or the whole machine) that stood still
STARVED_PACE = 0.1  # of its own time, in a round in which Linux ran others


class Vital(NamedTuple):
    """What the kernel and Linux say of a living server. Times on the clock of `now_s`."""

    heard_s: float  # its last message to the kernel
    progress_s: float = 0.0  # its last `progress`
    oldest_s: float = 0.0  # when it took the oldest call that it has not answered; 0: none
    waits_for: str = ""  # the server that it is blocked in a call on
    starved: bool = False  # it was ready to run, and Linux ran others
    used_bytes: int = 0  # of private memory
    says_it_waits_for: str = ""  # so it tells where the kernel does not see it; it answers pings


@dataclass
class Pulse:
    """The supervisor's memory of one life."""

    looked_s: float = float("-inf")  # the last round
    pinged_s: float = float("-inf")  # the last ping
    asked: bool = False  # it has not been heard since that
    silent_s: float = 0.0  # of its own time, since that
    begun_s: float = 0.0  # its oldest call, or its last progress since; 0: no call
    stuck_s: float = 0.0  # of its own time, since that


def ailment(pulse: Pulse, spec: Server, vital: Vital, now_s: float) -> str:
    """Once a round: why this server has to be killed; empty when it may live."""
    own_s = _own_time_s(pulse, vital, now_s)
    if spec.memory is not None and vital.used_bytes > spec.memory:
        return f"has {vital.used_bytes} bytes of memory, and may have {spec.memory}"
    stuck_s = 0.0 if vital.says_it_waits_for else own_s
    return _hung(pulse, spec, vital, own_s) or _overlong(pulse, spec, vital, now_s, stuck_s)


def ping_due(pulse: Pulse, spec: Server, now_s: float) -> bool:
    """Whether to ping now; if so, it is noted. One ping at a time is open."""
    period_ms = spec.heartbeat.period_ms
    if not period_ms or pulse.asked or 1000 * (now_s - pulse.pinged_s) < period_ms:
        return False
    pulse.asked, pulse.pinged_s, pulse.silent_s = True, now_s, 0.0
    return True


def _own_time_s(pulse: Pulse, vital: Vital, now_s: float) -> float:
    """How much of the time since the last round counts against it."""
    round_s, pulse.looked_s = now_s - pulse.looked_s, now_s
    if vital.waits_for or round_s > LATE_S:
        return 0.0
    return round_s * (STARVED_PACE if vital.starved else 1.0)


def _hung(pulse: Pulse, spec: Server, vital: Vital, own_s: float) -> str:
    """It leaves a ping unanswered, and says nothing else either. That it says it waits excuses
    nobody: such waits answer pings, and who spins leaves its last word standing."""
    pulse.asked = pulse.asked and vital.heard_s < pulse.pinged_s
    pulse.silent_s += own_s
    silent_ms = 1000 * pulse.silent_s
    if not pulse.asked or silent_ms < spec.heartbeat.period_ms * spec.heartbeat.misses:
        return ""
    return f"{HUNG}: silent for {silent_ms:.0f} ms after a ping"


def _overlong(pulse: Pulse, spec: Server, vital: Vital, now_s: float, own_s: float) -> str:
    """It answers pings, but has a call in hand for too long and does not say that it gets on."""
    begun_s = max(vital.oldest_s, vital.progress_s) if vital.oldest_s else 0.0
    if begun_s == pulse.begun_s:
        pulse.stuck_s += own_s
    else:
        pulse.begun_s, pulse.stuck_s = begun_s, max(0.0, min(own_s, now_s - begun_s))
    limit_s = spec.heartbeat.max_call_s
    if limit_s is None or not begun_s or pulse.stuck_s <= limit_s:
        return ""
    return f"{OVERLONG} for {pulse.stuck_s:.1f} s without progress"
