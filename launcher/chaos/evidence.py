"""evidence: what a run leaves behind for the checkers. Plain records, no I/O, nothing of a process.

All times are CLOCK_MONOTONIC nanoseconds, one clock for every process of the host; 0: not reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

OK = "ok"  # done, and the answer is known
FAIL = "fail"  # certainly not done
INFO = "info"  # done or not: nobody knows (E_DEAD_UNKNOWN, E_DEADLINE)
OPEN = "open"  # the client never heard an outcome


class Operation(NamedTuple):
    """One call of a workload's client, from its own history."""

    client: str
    number: int  # from 0, in the order in which the client began them
    op: str  # put, get, add, read, write, echo, ...
    key: str
    begun_ns: int
    ended_ns: int
    outcome: str
    value: str = ""  # what was written, or what was read: text, a number, or a SHA-256
    error: str = ""  # the code or answer, and its text
    outcomes: int = 1  # how many the history holds; 1 is right


class Injection(NamedTuple):
    """A fault as it was planned and as it landed."""

    number: int
    fault: str  # kill, pause, hang, ...; see `ukernel chaos list`
    target: str  # a server, a device, a link `a->b`
    planned_ns: int
    landed_ns: int  # 0: it never landed
    healed_ns: int = 0  # pauses and such: when it was taken back
    life: int = 0  # of the target, when it landed
    detail: str = ""  # why it did not land, or what was done


class Recovery(NamedTuple):
    """The repair of one death, by its stages."""

    server: str
    life: int  # the one that died
    cause: str  # "killed by SIGKILL", "hung: ...", "exit 1"
    injected: bool  # by this run, rather than by itself or by its strategy
    killed_ns: int
    detected_ns: int
    dead_ns: int
    spawned_ns: int
    hello_ns: int
    ready_ns: int
    serving_ns: int  # its first good reply passed the kernel
    client_ns: int = 0  # the first good reply that a client of the workload saw

    @property
    def outage_ms(self) -> float:
        """From the kill (or the death) to the first good reply; -1 when none came."""
        end_ns = self.client_ns or self.serving_ns
        return (end_ns - (self.killed_ns or self.dead_ns)) / 1e6 if end_ns else -1.0


class Blast(NamedTuple):
    """Who is down, who feels it, and who must not, when something dies."""

    down: tuple[str, ...]
    degraded: tuple[str, ...]
    untouched: tuple[str, ...]


class Usage(NamedTuple):
    """What one process of the system (or `launcher`, `kernel`, `zygote`) uses."""

    name: str
    fds: int
    rss_bytes: int


class Snapshot(NamedTuple):
    """The system at rest, before the first fault and after the last."""

    usage: tuple[Usage, ...]
    processes: int  # of the whole system
    counters: dict[str, int]  # the kernel's: caps, lives, objects, calls_open, ...


class Transfer(NamedTuple):
    """How a download of a client outside came, as the client tells it."""

    client: str
    number: int  # of its operation
    device: str  # the card
    port: int  # of the client
    moved_bytes: int


class Connection(NamedTuple):
    """A TCP connection that the host has opened, as the frames of the card show it."""

    device: str
    port: int  # of the client
    opened_ns: int  # its first SYN
    ended_ns: int  # its last segment
    acked_bytes: int  # of what came, acknowledged by the host


class Line(NamedTuple):
    """A line that the guest of a virtual machine has shown on its console."""

    client: str  # who saw it
    machine: str
    at_ns: int  # when it was seen
    text: str


class Health(NamedTuple):
    """What the monitor of a virtual machine says of it."""

    client: str
    machine: str
    at_ns: int
    state: str  # running, paused, ...: see ukernel.abi.vm
    faults: int  # in this life of the monitor, as are
    resets: int


class Leg(NamedTuple):
    """One stretch of a sweep: a bulk transfer while its target is killed at one interval."""

    every_s: float  # between two kills; 0: never
    round: int
    moved_bytes: int
    took_s: float
    kills: int
    right: bool  # the checksum of everything that was moved


@dataclass
class Evidence:
    """Everything that is known of a run."""

    seed: int = 0
    placement: str = ""  # micro, hybrid or mono
    calm_ns: int = 0  # when the time without faults began that is compared with; 0: there is none
    begun_ns: int = 0
    ended_ns: int = 0
    history: Sequence[Operation] = ()
    injections: Sequence[Injection] = ()
    recoveries: Sequence[Recovery] = ()
    before: Snapshot | None = None
    after: Snapshot | None = None
    calls_open: int = 0  # calls of the kernel without an outcome, at rest
    found: dict[str, str] = field(default_factory=dict)  # key -> value, read back at the end
    found_after_reboot: dict[str, str] | None = None  # the same, when the experiment reboots
    predicted: Blast | None = None
    observed: Blast | None = None
    sweep: Sequence[Leg] = ()
    prepared: dict[str, str] = field(default_factory=dict)  # client -> SHA-256 of its file
    transfers: Sequence[Transfer] = ()
    connections: Sequence[Connection] = ()
    lines: Sequence[Line] = ()
    health: Sequence[Health] = ()
    unheard: str = "nobody has noted the frames"  # why some connections are not known
    bystanders: tuple[str, ...] = ()  # clients of the workload that must notice nothing
    failed: tuple[str, ...] = ()  # servers given up
    kernel_alive: bool = True
    beside: Evidence | None = None  # of the same in another placement, up to its first fault


class Result(Enum):
    """Of a checker, a probe, a run. UNKNOWN is not a pass."""

    HELD = "held"
    BROKEN = "broken"
    UNKNOWN = "unknown"


class Verdict(NamedTuple):
    """What a checker says of the evidence."""

    checker: str
    result: Result
    why: str  # one sentence: what was counted, and the first thing that was wrong
    figures: Mapping[str, Any] = MappingProxyType({})
