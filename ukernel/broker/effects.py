"""effects: events go into `step`, effects come out. Neither side of the border does the other's.

Descriptors are named by numbers here; only the shell knows the real ones.
"""

from __future__ import annotations

from typing import NamedTuple


class Arrived(NamedTuple):
    """A frame from a connection. `pid` is what Linux says of an unbound one, 0 for a bound one."""

    now: int
    rid: bytes
    frame: bytes
    pid: int = 0


class Refused(NamedTuple):
    """A message that is not two frames, or whose routing id the peer chose itself."""

    now: int
    rid: bytes
    why: str


class Tick(NamedTuple):
    """Time passes: deadlines are looked at."""

    now: int


class Refill(NamedTuple):
    """Fresh random tokens."""

    tokens: list[bytes]


class Undeliverable(NamedTuple):
    """A task does not read what it is sent, or its connection is gone."""

    rid: bytes


class MakeFailed(NamedTuple):
    """Linux had no memory or descriptor for the object of this number."""

    number: int


Event = Arrived | Refused | Tick | Refill | Undeliverable | MakeFailed


class Send(NamedTuple):
    """Put a frame on a connection, without ever waiting for it."""

    rid: bytes
    frame: bytes


class Make(NamedTuple):
    """A memfd of `size` bytes, or an eventfd when that is 0.

    When Linux refuses: do `otherwise`, and nothing more of this step.
    """

    number: int
    size: int
    otherwise: Send


class MakeControl(NamedTuple):
    """The control socket of a life; its far end goes to the root task under `tag`. As Make."""

    number: int
    root: int
    tag: int
    otherwise: Send


class Close(NamedTuple):
    """Forget a descriptor."""

    number: int


class Pass(NamedTuple):
    """Hand descriptors over a life's control socket, announced as `tag`."""

    control: int
    tag: int
    numbers: tuple[int, ...]
    read_only: bool


class BootRecord(NamedTuple):
    """First datagram on a life's control socket."""

    control: int
    secret: bytes
    slot: str
    life: int


class Raise(NamedTuple):
    """Make an eventfd readable, or not readable any more."""

    number: int
    readable: bool


class Schedule(NamedTuple):
    """CPU cores (empty: leave) and policy of a process; failing is counted, not fatal."""

    pid: int
    cores: tuple[int, ...]
    fifo: bool
    priority: int


class Signal(NamedTuple):
    """A Linux signal for a process of ours."""

    pid: int
    signal: int


Effect = Send | Make | MakeControl | Close | Pass | BootRecord | Raise | Schedule | Signal
