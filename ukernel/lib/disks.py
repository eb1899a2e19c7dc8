"""disks: a server of several disks. Which of them a caller has is said by its badge, and no other.

The disks are the same in every life, so a badge is what it was; badge 0, the server's own, is
nobody's.
"""

from __future__ import annotations

from collections.abc import Sequence

from ukernel.abi.errors import Denied
from ukernel.abi.interface import Interface, Lent
from ukernel.abi.services import Block
from ukernel.lib.server import Server


class Disks(Server, Block):
    """`setup` makes the `disks`: badge 1 is the first. `each` is what a caller is told they are."""

    each: str
    disks: Sequence[Block]

    def restore(self, badge: int) -> Interface | None:
        if not 0 < badge <= len(self.disks):
            return None
        disk = self.disks[badge - 1]
        self.export(disk, badge)
        return disk

    def capacity(self) -> int:
        raise self._nobodys()

    def read(self, first: int, into: Lent) -> int:
        raise self._nobodys()

    def write(self, first: int, data: Lent) -> int:
        raise self._nobodys()

    def flush(self) -> None:
        raise self._nobodys()

    def discard(self, first: int, count: int) -> None:
        raise self._nobodys()

    def _nobodys(self) -> Denied:
        me = self.connection.slot
        return Denied(f"{me} is called for one {self.each}: `calls: [{{{me}: {{badge: 1}}}}]`")
