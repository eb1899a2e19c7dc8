"""nemesis: what an experiment may break, and when. One class is one action: its keys, its meaning.

An action is said once (`at`), or again `every` so often, `count` times or `until` a moment,
whichever comes first. Times count from the begin of the run.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from launcher.chaos.values import Interval, Link, Moment, Probability, Span, Targets, one_of
from ukernel.abi.faults import DEVICE_FAULTS, MESSAGE_FAULTS
from ukernel.abi.manifest import Listed, Name, Part

KILLS = ("kill", "kill_together")  # actions that end a life at once, in whatever process it is
IN_FORCE_S = 1.0  # how long a disturbance lasts that does not say so
MS = Annotated[int, Field(ge=0, le=60_000)]
ROUNDING = 1e-9  # of an interval: 0.3 / 0.1 is 3
U32 = (1 << 32) - 1


class Action(Part):
    """What every action has."""

    do: str
    """Its name."""
    at_s: Moment = Field(alias="at")
    """When it happens for the first time."""
    every_s: Span | None = Field(default=None, alias="every")
    """The time from one to the next."""
    count: Annotated[int, Field(ge=1)] | None = None
    """How often, with `every`."""
    until_s: Span | None = Field(default=None, alias="until")
    """The last moment for one, with `every`."""

    several: ClassVar[bool] = False
    """Whether it meets many targets at once, rather than one that the seed chooses."""
    lethal: ClassVar[bool] = True
    """Whether somebody may die of it."""

    def occurrences(self) -> int:
        """How often it happens."""
        if self.every_s is None:
            return 1
        ends = [self.count] if self.count is not None else []
        if self.until_s is not None:
            ends.append(int((self.until_s - self.at_s) / self.every_s + ROUNDING) + 1)
        return max(0, min(ends, default=1))

    def moments(self) -> list[float]:
        """When it happens, in seconds."""
        return [round(self.at_s + n * (self.every_s or 0), 6) for n in range(self.occurrences())]


class OnServer(Action):
    """An action that something of the system suffers."""

    target: Targets
    """A server, a list of them, or '*' for all that run from boot; the seed chooses one."""

    for_one: ClassVar[str] = ""
    """Of an action that needs several targets: what does the same to one."""


class Kill(OnServer):
    """Send a signal that ends the life."""

    do: Literal["kill"]
    signal: Literal["KILL", "TERM", "SEGV", "ABRT"] = "KILL"
    """Which; TERM is the one that a server hears and may obey in order."""


class KillTogether(OnServer):
    """Kill all targets in one breath."""

    do: Literal["kill_together"]
    several = True
    for_one = "kill"


class Pause(OnServer):
    """Suspend the process (SIGSTOP), resume it later; it may have been replaced meanwhile."""

    do: Literal["pause"]
    for_s: Span = Field(alias="for")
    """How long."""


class Hang(OnServer):
    """Let the request loop spin: alive, and never answering again."""

    do: Literal["hang"]


class Exit(OnServer):
    """Let the process leave by itself, with exit status 0."""

    do: Literal["exit"]


class Leak(OnServer):
    """Let the process take memory until it meets its `memory:` limit."""

    do: Literal["leak"]


class Swizzle(OnServer):
    """Suspend some of the targets one after the other, then resume them in another order."""

    do: Literal["swizzle"]
    step_s: Span = Field(default=0.1, alias="step")
    """The time between two of these steps."""
    several = True
    for_one = "pause"


class CrashInit(OnServer):
    """Kill a life, and let the lives after it die while they set themselves up."""

    do: Literal["crash_init"]
    times: Annotated[int, Field(ge=1, le=1000)]
    """How many of them."""


class DmaAbuse(OnServer):
    """Let a driver point its device at memory outside its grant."""

    do: Literal["dma_abuse"]


class Message(Action):
    """Disturb what is sent on one link: drop, delay, duplicate or corrupt it."""

    do: Literal["message"]
    lethal = False
    link: Link
    """`fs->disk`: what fs calls disk for, or `writer->fs` for a client of the workload."""
    fault: Annotated[str, one_of(MESSAGE_FAULTS)]
    """What happens to a message."""
    ms: MS = 0
    """How late, for a delay."""
    jitter_ms: MS = 0
    """More or less, for a delay."""
    probability: Probability = 1.0
    """For each message."""
    for_s: Span = Field(default=IN_FORCE_S, alias="for")
    """How long the link is disturbed."""


class Device(Action):
    """Break a device: io_error, torn_write, wrong_data, no_room, stuck, lost_interrupt,
    spurious_interrupt, or for a network card lose_frame, duplicate_frame, reorder_frame or
    corrupt_frame."""

    do: Literal["device"]
    device: Name
    """The device."""
    fault: Annotated[str, one_of(DEVICE_FAULTS)]
    """What happens to a request, to the interrupt line, or to a frame."""
    requests: Annotated[int, Field(ge=0, le=U32)] = 0
    """How many requests or frames may meet it; 0: all that come."""
    probability: Probability = 1.0
    """For each request or frame."""
    for_s: Span = Field(default=IN_FORCE_S, alias="for")
    """How long the device is broken."""


class Powercut(Action):
    """Kill the machine; the system boots again from the same image."""

    do: Literal["powercut"]


ACTIONS: dict[str, type[Action]] = {
    "kill": Kill,
    "kill_together": KillTogether,
    "pause": Pause,
    "hang": Hang,
    "exit": Exit,
    "leak": Leak,
    "swizzle": Swizzle,
    "crash_init": CrashInit,
    "dma_abuse": DmaAbuse,
    "message": Message,
    "device": Device,
    "powercut": Powercut,
}
AnyAction = Annotated[
    Kill | KillTogether | Pause | Hang | Exit | Leak | Swizzle | CrashInit | DmaAbuse
    | Message | Device | Powercut,
    Field(discriminator="do"),
]  # fmt: skip


class Sweep(Part):
    """Throughput against the interval between kills: in each round one leg for each interval."""

    target: Name
    """The server that is killed."""
    every_s: Listed[Interval] = Field(alias="every")
    """Intervals between two kills; `never` is the leg that the others are compared with."""
    for_s: Span = Field(alias="for")
    """How long a leg takes."""
    rounds: Annotated[int, Field(ge=1, le=1000)] = 3
    """How often the whole is done."""
    client: Name
    """The client of the workload whose bytes are counted."""
