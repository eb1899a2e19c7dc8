"""means: what a server has to work with: memory, devices, the call under way, its objects.

How messages become calls of its methods is in `server`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ukernel.abi.errors import Denied
from ukernel.abi.errors import Protocol as BadCall
from ukernel.abi.interface import Interface, Lent
from ukernel.lib.connection import Connection
from ukernel.lib.device import Device
from ukernel.lib.memory import Borrowed, Region
from ukernel.lib.stub import kernel
from ukernel.lib.way import Caller, Current, KernelWay, Pending


class Means(Interface):
    """The side of a server that its own code uses."""

    connection: Connection
    args: dict[str, Any]
    state: str
    objects: dict[int, Interface]  # that it has handed out, by badge
    holders: Counter[int]  # in the same process, by badge: see `direct`

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.args = connection.info.args
        self.state = connection.info.state
        self.objects = {}
        self.holders = Counter()
        self._kernel = KernelWay(connection)
        self._borrowed = Borrowed(connection)
        self._current: Current | None = None

    def region(self, name: str, size: int, *, persistent: bool = False) -> Region:
        """Memory of one's own; `persistent` memory is there again in the next life.

        Raises Denied when the system file says that this server keeps nothing.
        """
        if persistent and self.state == "stateless":
            raise Denied(
                f"{self.connection.slot} keeps a region, but its state is stateless: set "
                f"state: persistent or disk ({self.connection.info.origin})"
            )
        return Region(self.connection, name, size, persistent=persistent)

    def memory(self, lent: Lent, *, write: bool = False) -> memoryview:
        """The bytes lent with a call."""
        return self._borrowed.view(lent, write=write)

    def device(self, name: str = "") -> Device:
        """A device that the system file gives this server; without a name, its first."""
        given = self.connection.info.devices
        if not name and not given:
            raise Denied(f"{self.connection.slot} drives a device: name it under .devices")
        return Device(self.connection, name or given[0])

    def pending(self) -> Pending[Any]:
        """Take the call under way out of the loop: its reply comes later."""
        return Pending(self._under_way)

    @property
    def caller(self) -> Caller:
        """Who made the call under way."""
        return self._under_way.caller

    @property
    def by_kernel(self) -> bool:
        """Whether the kernel has delivered the call under way: then it counts until it has its
        outcome, and no more than the window do so at once."""
        return self._under_way.way is self._kernel

    @property
    def number_in_hand(self) -> int:
        """The number of the call under way, which the kernel has delivered. Raises Protocol."""
        if not self.by_kernel:
            raise BadCall("this is asked by the kernel's way only")
        return self._under_way.number

    @property
    def _under_way(self) -> Current:
        assert self._current is not None, "only while a call is served"
        return self._current

    def progress(self) -> None:
        """Say, from within a long call, that it is getting on: `ukernel ps` and whoever watches
        for hangs can tell slow from stuck."""
        kernel(self.connection).progress()

    def export(self, obj: Interface, badge: int) -> None:
        """Make `obj` callable under `badge`; returned from a method it becomes a capability."""
        obj.badge = badge
        self.objects[badge] = obj

    def held_badges(self) -> list[int]:
        """Badges that clients still hold, from this life or an earlier one."""
        held = kernel(self.connection, self.connection.named["self"]).badges()
        return [*held, *(badge for badge in self.holders if badge not in held)]
