"""objects: what the kernel knows. Plain records; every change to them happens inside `step`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

from ukernel.abi import syscalls
from ukernel.abi.syscalls import Quota


@dataclass(slots=True, eq=False, repr=False)
class Cap:
    """(object, rights, badge, parent), held by one life and named by a token only it can use.

    `given` maps a life to the child that a transfer made for it: passing the same capability again
    finds the same child, as a Mach port right keeps its name. What is `mapped` through it for a
    device ends with it, the `channel` opened through it also when it changes hands. It counts
    against its `payer`: who made it, or whose call it was passed with, either way.
    """

    number: int
    obj: Object
    rights: int
    badge: int
    parent: Cap | None
    holder: Life | None
    token: bytes
    payer: Life = field(init=False)
    endpoint: Endpoint | None = None  # where a call on it goes
    children: dict[Cap, None] = field(default_factory=dict)
    given: dict[Life, Cap] = field(default_factory=dict)
    mapped: list[tuple[Device, int]] = field(default_factory=list)  # IOMMU domain, bus address
    channel: Channel | None = None
    alive: bool = True


@dataclass(slots=True, eq=False)
class Object:
    """What a capability can refer to. The kernel holds the `root` of its derivation tree."""

    name: str
    root: Cap = field(init=False, repr=False)
    kind: ClassVar[str]


@dataclass(slots=True, eq=False)
class Endpoint(Object):
    """Where calls to a slot queue. Outlives lives; `credit` is what the current one asked for."""

    slot: Slot
    credit: int = 0
    queue: list[tuple[int, int, Call]] = field(default_factory=list)  # heap: -priority, number
    badges: dict[int, int] = field(default_factory=dict)  # badge -> capabilities that carry it
    kind = "endpoint"


@dataclass(slots=True, eq=False)
class Memory(Object):
    """What a life makes: its descriptors go by `number`, its owner (None: the slot) pays for it."""

    number: int
    size: int
    slot: Slot
    owner: Life | None


@dataclass(slots=True, eq=False)
class Notification(Memory):
    """A word of bits and an eventfd that is readable while it is not empty."""

    word: int = 0
    kind = "notification"


@dataclass(slots=True, eq=False)
class Region(Memory):
    """Memory that is lent until the life of its lender ends, and it too unless persistent."""

    kind = "region"


@dataclass(slots=True, eq=False)
class Channel(Memory):
    """Memory that its owner, a client, shares with a server for as long as `cap` stands.

    What passes through it is theirs. Nobody holds a capability of it.
    """

    server: Life
    cap: Cap
    kind = "channel"


@dataclass(slots=True, eq=False)
class Device(Object):
    """A device of the machine. `epoch` grows with every driver life; an old one reaches nothing."""

    index: int
    machine: Slot
    epoch: int = 0
    driver: Life | None = None
    lines: int = 0  # number of its descriptors, doorbell and interrupt
    next_iova: int = 0x1000_0000  # no bus address is used twice
    domain: set[int] = field(default_factory=set)  # bus addresses that are mapped
    kind = "device"


@dataclass(slots=True, eq=False)
class Control(Object):
    """The kernel itself, as the root task may use it."""

    kind = "control"


@dataclass(slots=True, eq=False)
class Slot(Object):
    """A task's place: its name, its endpoint, what survives a restart, and its current life."""

    priority: int
    window: int
    memory: int
    endpoint: Endpoint = field(init=False)
    number: int = 0  # of the current or last life; the first is 1
    state: str = syscalls.NEW
    life: Life | None = None
    next: Life | None = None  # prepared: it may have a process, and holds nothing
    fingerprint: str = ""
    regions: dict[str, Memory] = field(default_factory=dict)  # persistent ones
    stale: frozenset[bytes] = frozenset()  # tokens of the life before
    region_bytes: int = 0
    calls: int = 0
    replies: int = 0
    waited_ns: int = 0  # by callers, for all that was answered
    errors: int = 0
    faults: int = 0
    kind = "task"


@dataclass(slots=True, eq=False)
class Life:
    """One process in a slot, from `begin` to `end`. `client` is the stamp that servers see."""

    slot: Slot
    client: int
    secret: bytes
    number: int = 0  # until it begins
    name: str = ""  # "slot#life"
    quota: Quota = field(default_factory=Quota)
    pid: int = 0
    rid: bytes = b""  # the routing id it is bound to
    caps: dict[bytes, Cap] = field(default_factory=dict)
    paid: int = 0  # capabilities that it is the payer of
    named: dict[str, bytes] = field(default_factory=dict)
    revoked: deque[bytes] = field(default_factory=lambda: deque(maxlen=256))
    sent: dict[int, Call] = field(default_factory=dict)  # its calls without an outcome
    taken: dict[int, Call] = field(default_factory=dict)  # calls delivered to it, unanswered
    waiting: Call | None = None  # the one call that its only thread is blocked in
    queued_bytes: int = 0
    owned: dict[Memory, None] = field(default_factory=dict)
    devices: list[Device] = field(default_factory=list)
    begun_ns: int = 0
    hello_ns: int = 0
    ready_ns: int = 0
    first_reply_ns: int = 0
    heard_ns: int = 0  # its last message
    progress_ns: int = 0  # its last word that a long call is getting on


@dataclass(slots=True, eq=False)
class Call:
    """A request from its arrival to its one outcome. `server` is None until it is delivered."""

    number: int
    client: Life
    cap: Cap | None  # None: the kernel's own request to the machine, or it got its channel
    endpoint: Endpoint
    badge: int
    flags: int
    opcode: int
    seq: int  # the client's number for it
    deadline_ns: int
    caps: tuple[bytes, ...]
    payload: bytes
    queued_ns: int
    taken_ns: int = 0
    server: Life | None = None
