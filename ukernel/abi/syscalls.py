"""syscalls: what a task may ask of the kernel itself, declared like any other interface.

The header's token names the capability that a call acts on; the arguments follow in the body.
`Kernel` is for every task. `Control` needs the control capability, which the kernel gives to the
root task alone. A result called *tag* announces descriptors on the task's control socket.
"""

from __future__ import annotations

from typing import NamedTuple

from ukernel.abi.interface import Interface, op, u8, u16, u32, u64

# Rights of a capability. Deriving can only take some away.
READ = 1  # map a region for reading; wait for a notification
WRITE = 2  # map a region for writing; signal a notification
CALL = 4  # call or send to an endpoint or a device
RECV = 8  # receive from an endpoint
GRANT = 16  # pass the capability on in a message
ALL_RIGHTS = 31
RIGHT_NAMES = {READ: "read", WRITE: "write", CALL: "call", RECV: "recv", GRANT: "grant"}


class Quota(NamedTuple):
    """What one life may have at once. Beyond it: E_OVERLOAD, for that task and nobody else."""

    calls: int = 256
    queued_bytes: int = 4 << 20
    caps: int = 1024
    objects: int = 64  # regions and notifications
    mappings: int = 256  # of regions into one device's IOMMU domain


KERNEL_BADGE = (1 << 64) - 1  # stamped on what the kernel itself asks of the machine

# States of a slot, as the root task sets them or the kernel sees them.
NEW = "new"
STARTING = "starting"
READY = "ready"
DEAD = "dead"
FAILED = "failed"  # given up: callers get E_UNAVAILABLE at once
STOPPED = "stopped"  # on purpose: the same


def rights_text(rights: int) -> str:
    """Rights as people read them: `call+grant`."""
    return "+".join(name for bit, name in RIGHT_NAMES.items() if rights & bit) or "none"


class Described(NamedTuple):
    """What a capability refers to."""

    kind: str
    name: str
    rights: u8
    badge: u64
    fingerprint: str
    size: u64


class Kernel(Interface):
    """System calls of every task. They act on the capability in the header's token field."""

    of_kernel = True

    @op(1)
    def mint(self, rights: u8, badge: u64) -> bytes:
        """Derive a capability with fewer rights; `badge` is set once, 0 keeps the one there is."""

    @op(2)
    def copy(self) -> bytes:
        """A second capability like this one, derived from the same parent."""

    @op(3)
    def move(self) -> bytes:
        """The same capability under a fresh token; the old token is dead (after a leak)."""

    @op(4)
    def delete(self) -> None:
        """Give the capability up; those derived from it stay, under its parent."""

    @op(5)
    def revoke(self) -> u32:
        """Destroy every capability derived from this one; how many."""

    @op(6, idempotent=True)
    def describe(self) -> Described:
        """What the capability refers to."""

    @op(10)
    def ready(self, fingerprint: str) -> None:
        """Setup is done; clients compare the fingerprint of the interface."""

    @op(11, idempotent=True)
    def badges(self) -> list[u64]:
        """Badges that somebody still holds on this endpoint (RECV). 0 is not listed."""

    @op(12, posted=True)
    def progress(self) -> None:
        """The call under way takes long, but it is getting on."""

    @op(20)
    def notification(self) -> bytes:
        """A new notification: a word of bits, empty."""

    @op(21)
    def signal(self) -> None:
        """OR the capability's badge (1 when it has none) into the word; wake who waits."""

    @op(22)
    def take(self) -> u64:
        """The word, which is empty afterwards."""

    @op(23)
    def waitable(self) -> u64:
        """Tag of an eventfd that becomes readable when the word is not empty."""

    @op(30)
    def region(self, name: str, size: u64, persistent: bool) -> bytes:
        """Zeroed memory. A persistent region belongs to the slot: asked for again by the same
        name, in this life or a later one, it is the same bytes."""

    @op(31)
    def map(self) -> u64:
        """Tag of the region's memory descriptor; writable only with WRITE."""

    @op(32)
    def channel(self, call: u64, size: u64) -> list[u64]:
        """Memory shared with the caller of a call that one has, for as long as the capability
        stands that it came by: tags for oneself and for the caller, each of a page that only the
        kernel writes, `size` bytes, and two eventfds, the server's and the client's."""

    @op(40)
    def lines(self) -> u64:
        """Tag of a device's doorbell and interrupt line, two eventfds in this order."""

    @op(41)
    def dma_map(self, region: bytes, writable: bool) -> u64:
        """Let the device reach a region; the bus address where the device sees it."""

    @op(42, posted=True)
    def device_fault(self, device: u16, text: str) -> None:
        """Said by the machine: the driver of its device number `device` broke a rule."""


class Grant(NamedTuple):
    """One capability that a life begins with, found under `name`."""

    kind: str  # "endpoint" or "device"
    name: str
    rights: u8
    object: str  # the slot or the device; mostly it has this name too
    badge: u64 = 0  # the object of the slot that it is for; 0: the server itself


class CapRow(NamedTuple):
    """A capability as people may see it: a number, never its token."""

    number: u64
    parent: u64  # 0: the object itself
    holder: str  # "slot#life", or "kernel"
    kind: str
    object: str
    rights: u8
    badge: u64


class SlotRow(NamedTuple):
    """A task slot and its current life. Times are CLOCK_MONOTONIC nanoseconds, 0: not yet."""

    name: str
    life: u64
    state: str
    pid: u32
    priority: u8
    caps: u32
    regions: u32
    region_bytes: u64
    queued: u32
    taken: u32
    calls: u64
    replies: u64
    errors: u64
    faults: u64
    begun_ns: u64
    hello_ns: u64
    ready_ns: u64
    first_reply_ns: u64
    heard_ns: u64  # its last message, of whatever kind
    progress_ns: u64  # its last `progress`
    oldest_ns: u64  # when it took the oldest call that it has not answered
    waits_for: str  # the slot that it is blocked in a call on
    waits_op: u16
    waits_badge: u64
    waits_since_ns: u64
    waited_ns: u64  # of callers, for all its replies together


class Count(NamedTuple):
    name: str
    value: u64


class TraceRow(NamedTuple):
    """One finished call. Times are CLOCK_MONOTONIC nanoseconds; the heads are cut off."""

    number: u64
    client: str
    server: str
    life: u64  # of the server, 0 when no life took it
    opcode: u16
    badge: u64
    status: u16
    sent_size: u32
    got_size: u32
    queued_ns: u64
    taken_ns: u64
    done_ns: u64
    sent_head: bytes
    got_head: bytes


class Control(Interface):
    """System calls of the root task: what exists, who lives, what is going on."""

    of_kernel = True

    @op(60)
    def slot(self, name: str, priority: u8, window: u8, memory: u64) -> bytes:
        """A task slot with its endpoint; a task capability. `memory` bounds regions, in bytes."""

    @op(61)
    def device(self, name: str, machine: str) -> u16:
        """A device of the slot `machine`; its index, from 0 in the order of these calls."""

    @op(62)
    def endpoint(self, badge: u64) -> bytes:
        """On a task capability: a capability of one's own to call it, under any badge."""

    @op(76)
    def prepare(self) -> u64:
        """On a task capability: a life ahead of its time, which can say HELLO and nothing else
        until it begins; tag of its control socket. One that was prepared before is forgotten."""

    @op(77)
    def start(self, pid: u32) -> None:
        """On a task capability: this process is the prepared life; it gets its boot record."""

    @op(78)
    def begin(self, grants: list[Grant]) -> u64:
        """On a task capability whose last life has ended: the prepared life is the next, holding
        `grants`; its number. Now its HELLO is answered."""

    @op(79)
    def end(self, state: str) -> None:
        """On a task capability: its process is certainly dead; settle everything it had open."""

    @op(84)
    def tell(self, kind: u16) -> None:
        """On a task capability: a notice, wire.NOTICE_STOP or NOTICE_PING."""

    @op(80, idempotent=True)
    def caps(self, start: u32) -> list[CapRow]:
        """The derivation tree, parents before children, 256 rows from number `start`."""

    @op(81, idempotent=True)
    def slots(self) -> list[SlotRow]:
        """Every slot."""

    @op(82, idempotent=True)
    def counters(self) -> list[Count]:
        """What the kernel counts."""

    @op(83, idempotent=True)
    def trace(self, start: u64) -> list[TraceRow]:
        """Finished calls from number `start`, at most 256, oldest first."""


class Machine(Interface):
    """What the kernel asks of the simulated machine, under `KERNEL_BADGE`."""

    @op(90)
    def map(self, device: u16, iova: u64, size: u64, writable: bool, tag: u64) -> u64:
        """Map the memory under `tag` into the device's IOMMU domain at `iova`; `iova`."""


# Events for the root task: body of NOTICE_EVENT is [kind, slot, life, detail].
EVENT_READY = "ready"
EVENT_SERVING = "serving"  # its first good reply; detail: the ns of HELLO, READY and this reply
EVENT_DENIED = "denied"  # detail: what was refused
EVENT_FAULT = "fault"  # detail: which rule was broken
EVENT_LOST = "lost"  # the task does not read what it is sent; it is cut off


class Boot(NamedTuple):
    """First datagram on a task's control socket: where the kernel is and how to prove oneself."""

    address: str
    secret: bytes
    slot: str
