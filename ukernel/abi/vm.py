"""vm: the interface of a virtual machine, which is served by its monitor.

An image is a frozen virtual machine as bytes: `save` makes it, `image` puts a piece of it into lent
memory, and in another, empty monitor `load` takes the pieces and `start_loaded` goes on from it. So
a machine is written to a file, and so it moves. The one it came from stays paused: it is told to
`discard` what it has, or to `resume` when nothing came of the move.
"""

from __future__ import annotations

from typing import NamedTuple

from ukernel.abi.errors import Answer
from ukernel.abi.interface import Interface, Lent, op, u32, u64

RUNNING = "running"  # states of VmStatus
PAUSED = "paused"
HALTED = "halted"  # the guest has switched itself off
EMPTY = "empty"  # there is no guest: to be loaded
FAILED = "failed"  # the guest cannot be run on, or its engine cannot be had

OUTPUT_BYTES = 16 << 10  # the most of one `output`
OUTPUT_WAIT_MS = 1000


class WrongState(Answer):
    """The virtual machine is not in a state in which this can be done; the text says which."""


class BadImage(Answer):
    """What was loaded is not the image of a virtual machine, not all of it, or one that does not
    fit here: another engine, another size of memory, other devices."""


class VmFailed(Answer):
    """The engine could not do it; the text says why."""


class ExitCount(NamedTuple):
    """How often the guest was left for one reason: its time was up (slice), it waits (wfi), it has
    switched itself off (halt) or cannot go on (fault). Within a slice, it was left for an access of
    a device's register so often (device). Of QEMU: so often its devices came to our side (block,
    ethernet)."""

    kind: str
    times: u64


class FaultCount(NamedTuple):
    """How often the guest did wrong in one place: on the bus, where nothing is; where no memory is
    (memory); with the device of that name; or so that it could not be told of it (processor)."""

    where: str
    times: u64


class Moments(NamedTuple):
    """When this life of the monitor had got so far, on CLOCK_MONOTONIC in ns; 0: it has not."""

    begun: u64 = 0  # it is connected, and begins to set itself up
    made: u64 = 0  # memory, devices and engine are there
    loaded: u64 = 0  # its program, or its snapshot, is in memory
    shown: u64 = 0  # the first byte of its guest on the console, as the guest writes it


class VmStatus(NamedTuple):
    """What a virtual machine is and has done, in this life of its monitor unless said otherwise."""

    engine: str  # unicorn, qemu/kvm, qemu/tcg
    state: str
    memory: u64  # bytes
    uptime_ms: u64  # of the guest, since it was last reset, across snapshots
    slices: u64
    run_us: u64  # time in which the guest had the processor
    exits: list[ExitCount]
    faults: u64  # what the guest did wrong: accesses of nothing, bad descriptors
    resets: u64  # after faults that it could not be told of, or because it asked for one
    snapshots: u64
    snapshot_age_ms: u64  # of the last one; 0 when there is none
    snapshot_pause_us: u64  # how long the guest stood still for it
    restored_from_ms: u64  # how old the snapshot was that this life began with; 0: with none
    disk_requests: u64 = 0  # of the guest, that have come to an end
    frames_sent: u64 = 0  # by the guest
    frames_received: u64 = 0
    moments: Moments = Moments()
    faults_by: list[FaultCount] = []  # noqa: RUF012


class Output(NamedTuple):
    """A piece of what the guest has shown."""

    at: u64  # where it begins: later than asked for when older output is not kept any more
    data: bytes


class VirtualMachine(Interface):
    """A virtual machine."""

    answers = (WrongState, BadImage, VmFailed)

    @op(1, idempotent=True)
    def status(self) -> VmStatus:
        """What it is, what it does and what it has done."""

    @op(2, idempotent=True)
    def pause(self) -> None:
        """Stop its processor and its clock; its devices finish what they have begun."""

    @op(3, idempotent=True)
    def resume(self) -> None:
        """Let it go on."""

    @op(4, idempotent=True)
    def output(self, at: u64) -> Output:
        """What it has shown on its console from position `at`, at most 16 KiB. Waits until there
        is some; after a second without, the answer is empty."""

    @op(5)
    def enter(self, data: bytes) -> u32:
        """Type `data` on its console; the bytes that there was room for."""

    @op(6)
    def save(self) -> u64:
        """Pause it and freeze an image of it; the bytes of the image."""

    @op(9)
    def start_loaded(self) -> None:
        """Go on from the image that was loaded, at the point where it was saved."""

    @op(10, idempotent=True)
    def discard(self) -> None:
        """Forget the guest, for it runs elsewhere: it is empty now, and stays so after a death."""

    @op(11, idempotent=True)
    def image(self, offset: u64, into: Lent) -> u64:
        """Fill `into` with the image that was saved last, from `offset` to its end at most; how
        many bytes that were."""

    @op(12, idempotent=True)
    def load(self, offset: u64, data: Lent) -> None:
        """Take a piece of an image; only while it is empty. The first is at offset 0 and begins
        anew; of one that comes again, what is there already stays as it is."""

    @op(13, idempotent=True)
    def make_room(self) -> None:
        """Have memory in place for an image that is about to come, while nobody waits for it; only
        while it is empty."""
