"""porch: what the members of a household pass to each other through the kernel, which checks it.

A call to the callee's endpoint, made and served in one process. A password says that the two ends
are one: whoever else calls these operations is told that there are none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ukernel.abi.errors import Protocol
from ukernel.abi.interface import FIRST_RESERVED, Interface, op
from ukernel.abi.syscalls import Kernel

if TYPE_CHECKING:
    from ukernel.lib.server import Server


class Parcel:
    """What is on its way: a `thing` to be fetched, or a `token` or the `client` that arrived."""

    def __init__(self, thing: Interface | None = None) -> None:
        self.thing = thing
        self.token = b""
        self.client = 0


class Porch(Interface):
    """Served for one member, beside its own interface. `parcels` are those expected."""

    def __init__(self, parcels: dict[bytes, Parcel], member: Server) -> None:
        self._parcels = parcels
        self._member = member

    @op(FIRST_RESERVED + 11)
    def introduce(self, password: bytes) -> None:
        """The caller is who the kernel says it is."""
        self._parcel(password).client = self._member.caller.client

    @op(FIRST_RESERVED + 12)
    def hand_over(self, password: bytes, thing: Kernel) -> None:
        """A capability of the caller becomes one of the callee too."""
        self._parcel(password).token = cast(Any, thing).token

    @op(FIRST_RESERVED + 13)
    def fetch(self, password: bytes) -> Kernel:
        """The other way round."""
        return cast(Kernel, self._parcel(password).thing)

    def _parcel(self, password: bytes) -> Parcel:
        parcel = self._parcels.pop(password, None)
        if parcel is None:
            raise Protocol(f"{self._member.connection.slot} has no such operation")
        return parcel


NUMBERS = {operation.name: operation.number for operation in Porch.ops.values()}
