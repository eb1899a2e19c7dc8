"""faults: how an experiment breaks things: devices of the machine, messages on a link.

The kernel holds no fault code. A device breaks inside the machine; a message breaks in an
interposer, a task that holds the callee's capability while the caller holds the interposer's.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from ukernel.abi.errors import Answer
from ukernel.abi.interface import Interface, op, u32, u64

# Faults of a device. Those of the medium concern block devices only, those of frames network cards:
# frames in either direction.
IO_ERROR = "io_error"  # the request fails with a status, nothing is done
TORN_WRITE = "torn_write"  # some sectors of a write reach the medium, then the request fails
WRONG_DATA = "wrong_data"  # a read succeeds with other bytes than were written
NO_ROOM = "no_room"  # a write fails as it does when the host's disk is full
STUCK = "stuck"  # the request is never completed
LOST_INTERRUPT = "lost_interrupt"  # work is done, the line is not raised
SPURIOUS_INTERRUPT = "spurious_interrupt"  # the line is raised, nothing was done
LOSE_FRAME = "lose_frame"  # it never arrives
DUPLICATE_FRAME = "duplicate_frame"  # it arrives twice
REORDER_FRAME = "reorder_frame"  # it arrives after the one that follows it
CORRUPT_FRAME = "corrupt_frame"  # one bit of it is another
MEDIUM_FAULTS = (IO_ERROR, TORN_WRITE, WRONG_DATA, NO_ROOM)
LINE_FAULTS = (LOST_INTERRUPT, SPURIOUS_INTERRUPT)
FRAME_FAULTS = (LOSE_FRAME, DUPLICATE_FRAME, REORDER_FRAME, CORRUPT_FRAME)
DEVICE_FAULTS = (*MEDIUM_FAULTS, STUCK, *LINE_FAULTS, *FRAME_FAULTS)

# Faults of a message.
DROP = "drop"  # a request or its reply is never passed on
DELAY = "delay"  # passed on `ms`, more or less `jitter_ms`, later
DUPLICATE = "duplicate"  # a request is passed on twice; the second outcome is dropped
CORRUPT = "corrupt"  # one bit of the request's body is another
MESSAGE_FAULTS = (DROP, DELAY, DUPLICATE, CORRUPT)


class NoSuchDevice(Answer):
    """The machine has no device of this name."""


class NoSuchFault(Answer):
    """This device cannot break in this way."""


class Landed(NamedTuple):
    """How often a fault has really happened since it was planned."""

    where: str  # a device, or the interposer's link
    fault: str
    times: u64


class DeviceFaults(Interface):
    """What the machine is asked to break. Served under badge 0; only the root task holds it."""

    answers: ClassVar[tuple[type[Answer], ...]] = (NoSuchDevice, NoSuchFault)

    @op(100)
    def break_device(
        self, device: str, fault: str, count: u32, probability: float, seed: u64
    ) -> None:
        """The next `count` requests that the fault concerns (0: all, until `mend`) meet it, each
        with `probability`; `seed` decides which."""

    @op(101, idempotent=True)
    def mend(self) -> None:
        """End every fault; requests that were stuck complete with an error."""

    @op(102, idempotent=True)
    def broken(self) -> list[Landed]:
        """What has happened so far."""


class Interposer(Interface):
    """How an interposer is told what to do to the messages that pass it."""

    answers = (NoSuchFault,)

    @op(200)
    def disturb(self, fault: str, probability: float, ms: u32, jitter_ms: u32, seed: u64) -> None:
        """From now on each request meets `fault` with `probability`; several may be in force."""

    @op(201, idempotent=True)
    def pass_all(self) -> None:
        """End every fault; what is being delayed is passed on at once."""

    @op(202, idempotent=True)
    def disturbed(self) -> list[Landed]:
        """What has happened so far."""
