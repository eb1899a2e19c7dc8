"""engine: runs a guest's processor, for a while at a time, and says why it stopped.

What the processor sees beside its memory is a Bus. Whatever the guest does is the guest's matter:
`run` raises only if the monitor itself is broken.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol


class Kind(StrEnum):
    """Why the processor was left."""

    SLICE = "slice"  # its time is up, or somebody kicked it
    WFI = "wfi"  # it waits for an interrupt
    HALT = "halt"  # the guest switched the machine off, or asked for a reset
    FAULT = "fault"  # it cannot go on: only a reset helps


class Exit(NamedTuple):
    kind: Kind
    detail: str = ""  # of a halt: pass, fail N or reset; of a fault: why


class BadState(Exception):
    """These bytes are not the state of such a processor."""


class Bus(Protocol):
    """What the processor reaches below its memory. Nothing here raises for what a guest does."""

    lines: int  # interrupt lines that are high, as bits of mip
    halted: str  # not empty: the guest has switched the machine off

    def load(self, address: int, size: int) -> int:
        """So many bytes (1, 2, 4 or 8) as a number."""

    def store(self, address: int, size: int, value: int) -> None: ...

    def poll(self) -> int | None:
        """Bring `lines` up to now; nanoseconds until time alone will change them."""

    def time(self) -> int:
        """The counter that `rdtime` reads."""


class Engine(Protocol):
    """A processor and its memory. One thread runs it; only `kick` may come from others."""

    strays: int  # accesses where neither memory nor bus is, of which it has told the guest

    def reset(self, pc: int, used: int | None = None) -> None:
        """As after power-on, at `pc`. Also when its memory was replaced, of which the first `used`
        bytes may be anything, and the others are zeros; None: all may be anything."""

    def run(self, budget_us: int) -> Exit:
        """Let it run: at most about so long."""

    def kick(self) -> None:
        """End the slice that is running, as soon as may be."""

    def save(self) -> bytes:
        """All that the processor is. Its memory and the bus are saved by those who have them."""

    def load(self, state: bytes) -> None:
        """Be what was saved, in this process or another. Raises BadState."""

    def close(self) -> None:
        """Give everything back. It cannot run any more."""
